"""Waiting that mostly ends before its time: all who wait have one timer. It knows a loop, and nothing of QUIC."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_CLOSE = 1e-3
"""Seconds that a timer may be early, by the loop's coarse clock."""


class Patience:
    """Those on one connection who wait, each for one thing at a time."""

    __slots__ = ("_at", "_loop", "_timer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[object, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def begin(self, who: object, seconds: float, give_up: Callable[[], None]) -> None:
        """Call ``give_up`` in so many seconds, unless ``end`` is called before."""
        at = self._loop.time() + seconds
        self._waiting[who] = at, give_up
        if self._timer is None or at < self._at:
            self._set_timer(at)

    def end(self, who: object) -> None:
        """This one waits no longer, if it did."""
        self._waiting.pop(who, None)

    def stop(self) -> None:
        """Nobody waits any longer."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """The one for whom the timer was set may have gone; others have come since."""
        self._timer = None
        now = self._loop.time() + _CLOSE
        late = [who for who, (at, _) in self._waiting.items() if at <= now]
        for who in late:
            if who in self._waiting:
                self._waiting.pop(who)[1]()
        if self._waiting and self._timer is None:
            self._set_timer(min(at for at, _ in self._waiting.values()))
