"""What establishment decided against, and why: the stuff of ``explain()`` and of NO_CANDIDATES errors."""

from __future__ import annotations


class RuledOut:
    """A stack, path or address that is no candidate; ``reasons`` are phrases, the most telling one first.

    ``by_parameters``: a stack that suits the properties, and whose library cannot honour the security parameters.
    """

    __slots__ = ("by_parameters", "reasons", "what")

    def __init__(self, what: str, reasons: tuple[str, ...], by_parameters: bool = False) -> None:
        self.what = what
        self.reasons = reasons
        self.by_parameters = by_parameters

    def __repr__(self) -> str:
        return f"{self.what}: {'; '.join(self.reasons)}"
