"""What has begun on one event loop and has not ended: as long as there is something, ``start()`` does not return.

It knows Connections and Listeners only as activities: what they have in common, and nothing of what they do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import neatpy
from neatpy.classic.utils import Handler, fire, log

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

    def __repr__(self) -> str:
        return f"<classic {self._real!r}>"

    def begin_soon(self) -> Self:
        """Begin at once where an event loop runs, else as soon as ``start()`` runs one."""
        run = current_run()
        if run is None:
            self.preconnection.waiting.append(self.begin)
        else:
            self.begin(run)
        return self

    def begin(self, run: Run) -> None:
        """Begin, as a part of this Run."""
        self.run, self._real = run, self._open_real()
        run.activities[self] = None
        self.listen_to(self._real)

    def listen_to(self, real: _Real) -> None:
        """Ask for the events of today's."""

    def ended(self, handler: Handler | None, *arguments: Any) -> None:
        """Nothing more comes of it: tell this handler, if there is one, unless the Run is over."""
        if self in self.run.activities:
            del self.run.activities[self]
            try:
                fire(handler, *arguments)
            finally:
                self.run.loop.call_soon(self.run.end_if_idle)

    def failed(
        self, error: neatpy.TransportServicesError, handler: Handler | None, *arguments: object
    ) -> None:
        """The same, because of an error; one that nobody hears is logged."""
        if error.reason is neatpy.Reason.NO_CANDIDATES:
            self.ended(self.preconnection.unfulfilled_handler or partial(self.run.fail, error))
            return
        if handler is None:
            level = logging.INFO if isinstance(error, neatpy.ConnectionError) else logging.WARNING
            log.log(level, "%r: %s", self, error)
        self.ended(handler, *arguments)

    def close(self) -> None:
        """End in order."""

    def abort(self) -> None:
        """End at once."""


def once_begun(action: _Action) -> _Action:
    """What is called before an event loop runs is done when it does."""

    @wraps(action)
    def now_or_later(self: Activity[Any], *arguments: Any, **named: Any) -> None:
        if self._real is None:
            self.preconnection.waiting.append(lambda _: action(self, *arguments, **named))
        else:
            action(self, *arguments, **named)

    return cast(_Action, now_or_later)


class Run:
    """The activities of one loop. Made while it runs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.activities: dict[Activity[Any], None] = {}
        self._over: asyncio.Future[None] = self.loop.create_future()

    def stop(self) -> None:
        """End all activities in order, soon. May be called from any thread."""
        self.loop.call_soon_threadsafe(self._close_all)

    def fail(self, error: Exception) -> None:
        """Let ``start()`` raise this; where the program has its own loop, that loop's exception handler gets it."""
        if CURRENT.get(None) is not self:
            raise error
        if not self._over.done():
            self._over.set_exception(error)

    def end_if_idle(self) -> None:
        """Let ``start()`` return if nothing is left."""
        if not self.activities and not self._over.done():
            self._over.set_result(None)

    async def until_nothing_is_left(self, actions: Iterable[Callable[[Run], None]]) -> None:
        """Do this and wait until what comes of it has ended. Cancelling it ends everything."""
        CURRENT.set(self)
        for action in actions:
            self.loop.call_soon(action, self)
        self.loop.call_soon(self.end_if_idle)
        try:
            await asyncio.wait((self._over,))
        except asyncio.CancelledError:
            self._close_all()
            await asyncio.wait((self._over,), timeout=GRACE)
            raise
        finally:
            left, self.activities = self.activities, {}
            for activity in left:
                activity.abort()
        self._over.result()

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
