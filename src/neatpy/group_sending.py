"""Connections of one group that have a Flow each take turns in sending (RFC 9622 sections 7.4 and 8.1.5).

The order is :mod:`neatpy.scheduling`'s; here are the data paths that it orders, and the clock. As long as there is
nothing to decide (``acts``) every data path sends by itself and knows nothing of this room.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from neatpy.scheduling import GroupScheduler

if TYPE_CHECKING:
    from neatpy.data_path import DataPath
    from neatpy.enumerations import Scheduler


class Turns:
    """Who of a group hands its next Message down."""

    __slots__ = ("_acts", "_loop", "_order", "_paths", "_pumping", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, scheduler: Scheduler) -> None:
        self._loop = loop
        self._paths: dict[DataPath, None] = {}
        self._order: GroupScheduler[DataPath] = GroupScheduler(scheduler, _undelivered)
        self._acts = self._pumping = False
        self._timer: asyncio.TimerHandle | None = None

    # What the group says

    def add(self, path: DataPath, priority: int) -> None:
        """A Connection with a Flow of its own joined, with this ``conn_priority``. Idempotent."""
        if path not in self._paths:
            self._paths[path] = None
            self._order.add(path, priority)
            if self._acts:
                self._enrol(path)
            self._review()

    def remove(self, path: DataPath) -> None:
        """It is over. Idempotent."""
        if path in self._paths:
            del self._paths[path]
            self._order.remove(path)
            path.take_turns(None)
            self._review()
            self._pump()

    def set_priority(self, path: DataPath, priority: int) -> None:
        """``conn_priority`` of a member was set."""
        if path in self._paths:
            self._order.set_priority(path, priority)
            self._review()
            self._pump()

    def set_scheduler(self, scheduler: Scheduler) -> None:
        """``conn_scheduler`` of the group was set."""
        self._order.set_scheduler(scheduler)
        self._review()
        self._pump()

    def _review(self) -> None:
        """Whether there is anything to decide may have changed."""
        if self._order.acts == self._acts:
            return
        self._acts = self._order.acts
        for path in tuple(self._paths):
            if self._acts:
                self._enrol(path)
            else:
                path.take_turns(None)

    def _enrol(self, path: DataPath) -> None:
        for _ in range(path.take_turns(self)):
            self._order.queued(path)
        self._tell(path)

    # What a data path says

    def queued(self, path: DataPath) -> None:
        """One more part of a Message waits there."""
        self._order.queued(path)

    def withdrawn(self, path: DataPath) -> None:
        """A part that waited will not be sent."""
        self._order.withdrawn(path)

    def changed(self, path: DataPath) -> None:
        """It has more to send, or its Flow takes more: see whose turn it is."""
        self._tell(path)
        self._pump()

    def _tell(self, path: DataPath) -> None:
        flow = path.flow
        now = time.monotonic()
        if flow is None or not flow.writable:
            self._order.blocked(path, now)
        elif path.outgoing.has_next:
            self._order.waiting(path, now)
        else:
            self._order.idle(path, now)

    # Turns

    def _pump(self) -> None:
        """Let whoever's turn it is hand a Message down, until it is nobody's."""
        if self._pumping or not self._acts:
            return
        self._pumping = True
        served: dict[DataPath, None] = {}
        try:
            while (path := self._order.next(time.monotonic())) is not None:
                served[path] = None
                handed = path.outgoing.hand_down()
                if handed is None:
                    self._order.withdrawn(path)
                else:
                    self._order.sent(path, *handed, time.monotonic())
                self._tell(path)
        finally:
            self._pumping = False
        self._wake_at(self._order.wake_at)
        for path in served:
            path.close_if_drained()

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at != math.inf:
            self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._pump()


def _undelivered(path: DataPath) -> int:
    return 0 if path.flow is None else path.flow.backlog()
