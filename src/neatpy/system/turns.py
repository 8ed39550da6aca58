"""Who waits for data is woken at the end of the turn in which they came.

A task that awaits a future is resumed by way of the loop, one turn after the future is done: a turn too late, and long
enough for the task to be cancelled in between, so that what the future holds is lost. Whoever reads a socket begins a
turn instead, lets everybody above take in what came, and at its end has the waiting tasks resumed on the spot.
"""

from __future__ import annotations

import asyncio
from types import BuiltinMethodType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")


if TYPE_CHECKING:
    from typing import Protocol

    class Waking(Protocol):
        """Who has something for somebody that waits."""

        def wake(self) -> None:
            """The turn is over: hand it out. Application code runs in here."""
            ...


class Turn:
    """The present turn of one loop: ``active`` while somebody tells what a socket had to read, to be set and reset by
    those who read. If somebody is in ``waking`` then, they call ``end`` as the last thing they do. Outside of a turn,
    waking goes by way of the loop."""

    __slots__ = ("active", "waking")

    def __init__(self) -> None:
        self.waking: list[Waking] = []
        self.active = False

    def end(self) -> None:
        """Everything that was read has been told."""
        waking = self.waking
        while waking:
            waking.pop(0).wake()


class Turns:
    """Finds the turn of a loop."""

    __slots__ = ("_by_loop",)

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()

    def of(self, loop: asyncio.AbstractEventLoop) -> Turn:
        """The turn of this loop."""
        turn = self._by_loop.get(loop)
        if turn is None:
            turn = self._by_loop[loop] = Turn()
        return turn


turns = Turns()

_Task = asyncio.Task
_WakeUp = MethodType if isinstance(vars(_Task).get("cancel"), FunctionType) else BuiltinMethodType
"""The type of the callback by which a future resumes a task."""


def complete(future: asyncio.Future[_T], result: _T) -> None:
    """Give a future its result and, if a task awaits it, resume that task now, as the loop would a turn later. For the
    end of a turn only: the task runs in here."""
    callbacks: list[tuple[Any, Any]] | None = future._callbacks
    if callbacks:
        callback, context = callbacks[0]
        if type(callback) is _WakeUp and isinstance(callback.__self__, _Task) and len(callbacks) == 1:
            future.remove_done_callback(callback)
            future.set_result(result)
            context.run(callback, future)
            return
    future.set_result(result)
