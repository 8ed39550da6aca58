"""What has begun on one event loop and has not ended: as long as there is something, ``start()`` does not return.

It knows Connections and Listeners only as activities: what they have in common, and nothing of what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import neatpy
from neatpy.classic.utils import Handler, fire

if TYPE_CHECKING:
    from neatpy.classic.preconnection import Preconnection

GRACE = 1.0
"""Seconds that Connections have for what they were given to send when the program is interrupted."""

_Real = TypeVar("_Real", bound=neatpy.Connection | neatpy.Listener)
_Action = TypeVar("_Action", bound=Callable[..., None])


class Activity(Generic[_Real]):
    """A Connection or Listener of 1.0. Today's, which ``open_real`` makes, exists as soon as an event loop runs."""

    run: Run
    _real: _Real

    def __init__(self, preconnection: Preconnection, open_real: Callable[[], _Real]) -> None:
        self.preconnection = preconnection
        self._open_real = open_real
        self._real = None  # type: ignore[assignment]  # until it has begun; whoever needs it waits for that
        self._early: list[Callable[[], None]] = []

    def begin(self, run: Run) -> None:
        """The loop runs: begin, and do what was called so far."""
        self.run, self._real = run, self._open_real()
        run.activities[self] = None
        self.listen_to(self._real)
        early, self._early = self._early, []
        for action in early:
            try:
                action()
            except Exception as error:
                what = f"what was called on {self!r} before start() raised"
                run.loop.call_exception_handler({"message": what, "exception": error})

    def listen_to(self, real: _Real) -> None:
        """Ask for the events of today's."""

    def ended(self, handler: Handler | None = None, *arguments: Any) -> None:
        """Nothing more comes of it: tell this handler, if there is one."""
        self.run.ended(self)
        fire(handler, *arguments)

    def close(self) -> None:
        """End in order."""

    def abandon(self) -> None:
        """End at once, and tell nobody."""


def once_begun(action: _Action) -> _Action:
    """What is called before an event loop runs is done when it does."""

    @wraps(action)
    def now_or_later(self: Activity[Any], *arguments: Any, **named: Any) -> None:
        if self._real is None:
            self._early.append(partial(action, self, *arguments, **named))
        else:
            action(self, *arguments, **named)

    return cast(_Action, now_or_later)


class Run:
    """The activities of one loop. Made while it runs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.activities: dict[Activity[Any], None] = {}
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    def ended(self, activity: Activity[Any]) -> None:
        """Nothing more comes of it."""
        self.activities.pop(activity, None)
        self._changed.set()

    def stop(self) -> None:
        """End all activities in order, soon. May be called from any thread."""
        self.loop.call_soon_threadsafe(self._close_all)

    def fail(self, error: Exception) -> None:
        """Let ``start()`` raise this; where the program has its own loop, that loop's exception handler gets it."""
        if CURRENT.get(None) is not self:
            raise error
        self._error = error
        self._changed.set()

    async def until_nothing_is_left(self, activities: list[Activity[Any]]) -> None:
        """Begin these and wait until they, and what comes of them, have ended. Cancelling it ends them."""
        CURRENT.set(self)
        try:
            for activity in activities:
                activity.begin(self)
            await self._wait()
        except asyncio.CancelledError:
            self._close_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._wait()
            raise
        finally:
            for activity in tuple(self.activities):
                activity.abandon()

    async def _wait(self) -> None:
        while self.activities and self._error is None:
            self._changed.clear()
            await self._changed.wait()
            await asyncio.sleep(0)  # what the last handler did is reported, or begins something new
        if self._error is not None:
            raise self._error

    def _close_all(self) -> None:
        for activity in tuple(self.activities):
            activity.close()


CURRENT: ContextVar[Run] = ContextVar("neatpy.classic.CURRENT")
"""The Run that the calling handler belongs to."""


def current_run() -> Run | None:
    """The Run that new activities belong to; None if no loop runs here, so that they wait for ``start()``."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    run = CURRENT.get(None)
    return run if run is not None and run.loop is loop else Run()
