"""Spacing what is sent so that a rate is kept. Pure logic: it knows sizes and times, and no socket."""

from __future__ import annotations

import math

_BURST_SECONDS = 0.01


class Pacer:
    """Spaces data so that a rate is kept on average, with bursts of at most 10 ms of it. Time is an argument."""

    __slots__ = ("_due", "_seconds_per_byte")

    def __init__(self, bits_per_second: float) -> None:
        self._seconds_per_byte = 8 / bits_per_second
        self._due = -math.inf

    def spend(self, size: int, now: float) -> float:
        """Account for ``size`` bytes that leave ``now`` (s); seconds until more may leave, 0 for at once."""
        self._due = max(self._due, now - _BURST_SECONDS) + size * self._seconds_per_byte
        return max(0.0, self._due - now)
