"""What has begun on one event loop and has not ended: as long as there is something, ``start()`` does not return.

It knows Connections and Listeners only as activities: what they have in common, and nothing of what they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import neatpy
from neatpy.classic.utils import Handler, fire, log, shim_print

if TYPE_CHECKING:
    from neatpy.classic.preconnection import Preconnection

GRACE = 1.0
"""Seconds that Connections have for what they were given to send when the program is interrupted."""

_Real = TypeVar("_Real", bound=neatpy.Connection | neatpy.Listener)
_Action = TypeVar("_Action", bound=Callable[..., None])


class Runner:
    """Base of Preconnection: runs an event loop, and all that begins there; also what handlers begin by another one.

    Where a program has its own loop, it knows only what was begun by itself."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []  # what is to be done when the loop runs
        self.activities: dict[Activity[Any], None] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Future[None] | None = None  # done when ``start()`` is to return

    def start(self) -> None:
        """Run an event loop until no Connection and no Listener is left, or ``stop()`` or Ctrl-C ends them.

        Raises RuntimeError inside a running loop, where everything runs already, or while it runs in another thread;
        EstablishmentError as the class says."""
        if _is_in_loop():
            raise RuntimeError("start() inside a running event loop: what is initiated there runs already")
        if self._over is not None:
            raise RuntimeError("this Preconnection has been started already")
        try:
            neatpy.run(self._until_nothing_is_left())
        except KeyboardInterrupt:
            shim_print("interrupted", level="error")

    def stop(self) -> None:
        """End in order everything that runs; callable from any thread."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._close_all)

    def fail(self, error: Exception) -> None:
        """Let ``start()`` raise this; where the program has its own loop, that loop's exception handler gets it."""
        if self._over is None:
            raise error
        if not self._over.done():
            self._over.set_exception(error)

    def end_if_idle(self) -> None:
        """Let ``start()`` return if nothing is left."""
        if self._over is not None and not self.activities and not self._over.done():
            self._over.set_result(None)

    async def _until_nothing_is_left(self) -> None:
        """Do what waits, and wait until all that comes of it has ended. Cancelling it ends everything."""
        CURRENT.set(self)
        self.loop = asyncio.get_running_loop()
        over = self._over = self.loop.create_future()
        waiting, self.waiting, self.activities = self.waiting, [], {}
        for action in (*waiting, self.end_if_idle):
            self.loop.call_soon(action)
        try:
            await asyncio.wait((over,))
        except asyncio.CancelledError:
            self._close_all()
            await asyncio.wait((over,), timeout=GRACE)
            raise
        finally:
            left, self.activities = self.activities, {}
            self.loop = self._over = None
            for activity in left:
                activity.abort()
        over.result()

    def _close_all(self) -> None:
        for activity in tuple(self.activities):
            activity.close()


CURRENT: ContextVar[Runner] = ContextVar("neatpy.classic.CURRENT")
"""Who runs the loop that the calling handler is called by."""


class Activity(Generic[_Real]):
    """A Connection or Listener of 1.0. Today's, which ``open_real`` makes, exists as soon as an event loop runs."""

    runner: Runner
    _real: _Real

    def __init__(self, preconnection: Preconnection, open_real: Callable[[], _Real]) -> None:
        self.preconnection = preconnection
        self._open_real = open_real
        self._real = None  # type: ignore[assignment]  # until it has begun; whoever needs it waits for that

    def __repr__(self) -> str:
        return f"<classic {self._real!r}>"

    def begin_soon(self) -> Self:
        """Begin at once where an event loop runs, else as soon as ``start()`` runs one."""
        if _is_in_loop():
            self.begin()
        else:
            self.preconnection.waiting.append(self.begin)
        return self

    def begin(self) -> None:
        """Begin, as a part of what runs here."""
        self.runner = CURRENT.get(self.preconnection)
        self.runner.loop = asyncio.get_running_loop()
        self._real = self._open_real()
        self.runner.activities[self] = None
        self.listen_to(self._real)

    def listen_to(self, real: _Real) -> None:
        """Ask for the events of today's."""

    def ended(self, handler: Handler | None, *arguments: object) -> None:
        """Nothing more comes of it: tell this handler, if there is one, unless everything is over."""
        if self in self.runner.activities:
            del self.runner.activities[self]
            try:
                fire(handler, *arguments)
            finally:
                asyncio.get_running_loop().call_soon(self.runner.end_if_idle)

    def failed(self, error: neatpy.TransportServicesError, handler: Handler | None, *told: object) -> None:
        """The same, because of an error. Where nobody hears why it could not be established, that is logged."""
        if error.reason is neatpy.Reason.NO_CANDIDATES:
            handler, told = self.preconnection.unfulfilled_handler or partial(self.runner.fail, error), ()
        elif handler is None and not isinstance(error, neatpy.ConnectionError):
            log.warning("%r: %s", self, error)
        self.ended(handler, *told)

    def close(self) -> None:
        """End in order."""

    def abort(self) -> None:
        """End at once."""


def once_begun(action: _Action) -> _Action:
    """What is called before an event loop runs is done when it does."""

    @wraps(action)
    def now_or_later(self: Activity[Any], *arguments: Any, **named: Any) -> None:
        if self._real is None:
            self.preconnection.waiting.append(partial(action, self, *arguments, **named))
        else:
            action(self, *arguments, **named)

    return cast(_Action, now_or_later)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
