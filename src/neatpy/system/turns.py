"""Who waits for data is woken at the end of the turn in which they came.

A task that awaits a future is resumed by way of the loop, one turn after the future is done: a turn too late, and long
enough for the task to be cancelled in between, so that what the future holds is lost. Whoever reads a socket begins a
turn instead, lets everybody above take in what came, and at its end has the waiting tasks resumed on the spot.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")


if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
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


def complete(future: asyncio.Future[_T], result: _T) -> None:
    """Give a future its result and, if somebody awaits it, go on there now, as the loop would a turn later. For the
    end of a turn only: application code runs in here."""
    callbacks: list[tuple[Callable[[asyncio.Future[_T]], object], Context]] | None = future._callbacks
    if not callbacks:
        future.set_result(result)
        return
    try:
        [(callback, context)] = callbacks
    except ValueError:  # several: they hear of it from the loop, in their order
        future.set_result(result)
        return
    future.remove_done_callback(callback)
    future.set_result(result)
    try:
        context.run(callback, future)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        what = {"message": f"Exception in callback {callback!r}", "exception": error, "future": future}
        future.get_loop().call_exception_handler(what)
