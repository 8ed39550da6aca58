"""In which order the streams of a connection are served (RFC 9622 section 8.1.5, RFC 8260).

Pure logic: the streams' numbers, priorities and how much of each was sent.
"""

from __future__ import annotations

from neatpy.enumerations import Scheduler

_TURNS = (Scheduler.ROUND_ROBIN, Scheduler.ROUND_ROBIN_PACKET)
_ALWAYS = (Scheduler.FIRST_COME_FIRST_SERVED, Scheduler.FAIR_CAPACITY)
"""Those that make a difference whatever the priorities; the others do if a stream has another one than the usual."""

USUAL = 100
"""The priority of a stream that was given none."""


class Order:
    """The key by which streams are sorted before each packet. Shares are measured by virtual time: what was sent of a
    stream, times its priority plus one. A stream that begins joins at the time of the least served."""

    __slots__ = ("_began", "_priorities", "_scheduler", "_sequence", "_sequences", "matters")

    matters: bool
    """Whether anything but taking turns is asked for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._priorities: dict[int, float] = {}
        """Of the streams that have not the usual one."""
        self._began: dict[int, float] = {}
        self._sequences: dict[int, int] = {}
        self._sequence = 0
        self.use(scheduler)

    def use(self, scheduler: Scheduler) -> None:
        """Schedule like this from now on."""
        self._scheduler = scheduler
        self._weigh()

    def _weigh(self) -> None:
        if self._scheduler in _TURNS:
            self.matters = False
        else:
            self.matters = self._scheduler in _ALWAYS or bool(self._priorities)

    def prioritise(self, stream: int, priority: float) -> bool:
        """Lower is more urgent. True if that changed whether the order matters."""
        if priority == self._priorities.get(stream, USUAL):
            return False
        mattered = self.matters
        if priority == USUAL:
            del self._priorities[stream]
        else:
            self._priorities[stream] = priority
        self._weigh()
        return self.matters is not mattered

    def begins(self, stream: int, sent: int, others: dict[int, int]) -> None:
        """A stream that had nothing to send has something now. ``others``: what was sent of those that do."""
        self._sequence += 1
        self._sequences[stream] = self._sequence
        weight = self._weight(stream)
        least = min((self._time(other, size) for other, size in others.items()), default=None)
        if least is not None and least > self._time(stream, sent):
            self._began[stream] = least - sent * weight

    def forget(self, stream: int) -> None:
        """It is closed."""
        if self._priorities and self._priorities.pop(stream, None) is not None:
            self._weigh()
        if self._sequence:
            self._began.pop(stream, None)
            self._sequences.pop(stream, None)

    def key(self, stream: int, sent: int) -> float:
        """The lowest is served first."""
        if self._scheduler is Scheduler.FIRST_COME_FIRST_SERVED:
            return self._sequences.get(stream, 0)
        if self._scheduler is Scheduler.PRIORITY:
            return self._priorities.get(stream, USUAL)
        return self._time(stream, sent)

    def _time(self, stream: int, sent: int) -> float:
        return self._began.get(stream, 0.0) + sent * self._weight(stream)

    def _weight(self, stream: int) -> float:
        if self._scheduler is Scheduler.FAIR_CAPACITY:
            return 1.0
        return self._priorities.get(stream, USUAL) + 1.0
