"""What establishment decided against, and why: the stuff of ``explain()`` and of NO_CANDIDATES errors."""

from __future__ import annotations


class RuledOut:
    """A stack, path or address that is no candidate; ``reasons`` are phrases, the most telling one first."""

    __slots__ = ("reasons", "what")

    def __init__(self, what: str, reasons: tuple[str, ...]) -> None:
        self.what = what
        self.reasons = reasons

    def __repr__(self) -> str:
        return f"{self.what}: {'; '.join(self.reasons)}"
