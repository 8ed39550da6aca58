"""What has begun on one event loop and has not ended: as long as there is something, ``start()`` does not return.

It knows Connections and Listeners only as activities, and nothing of what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import Protocol

GRACE = 1.0
"""Seconds that Connections have for what they were given to send when the program is interrupted."""


class Activity(Protocol):
    """A Connection or Listener."""

    def begin(self, run: Run) -> None:
        """The loop runs: do what was asked for so far."""

    def close(self) -> None:
        """End in order."""

    def abandon(self) -> None:
        """End at once, and tell nobody."""


class Run:
    """The activities of one loop. Made while it runs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._activities: dict[Activity, None] = {}
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._waited_for = False

    def add(self, activity: Activity) -> None:
        """Wait for this one, too."""
        self._activities[activity] = None

    def begin(self, activity: Activity) -> None:
        """Begin an activity, and wait for it."""
        self.add(activity)
        activity.begin(self)

    def ended(self, activity: Activity) -> None:
        """Nothing more comes of it."""
        self._activities.pop(activity, None)
        self._changed.set()

    def stop(self) -> None:
        """End all activities in order, soon. May be called from any thread."""
        self.loop.call_soon_threadsafe(self._close_all)

    def fail(self, error: Exception) -> None:
        """Let ``start()`` raise this; where the program has its own loop, that loop's exception handler gets it."""
        if self._waited_for:
            self._error = error
            self._changed.set()
        else:
            self.report("a Preconnection could not be fulfilled", error)

    def report(self, what: str, error: Exception) -> None:
        """Tell the loop's exception handler, which logs the traceback unless the program has another one."""
        self.loop.call_exception_handler({"message": what, "exception": error})

    async def until_nothing_is_left(self, activities: list[Activity]) -> None:
        """Begin these and wait until they, and what comes of them, have ended. Cancelling it ends them."""
        self._waited_for = True
        CURRENT.set(self)
        try:
            for activity in activities:
                self.begin(activity)
            await self._wait()
        except asyncio.CancelledError:
            self._close_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._wait()
            raise
        finally:
            for activity in tuple(self._activities):
                activity.abandon()

    async def _wait(self) -> None:
        while self._activities and self._error is None:
            self._changed.clear()
            await self._changed.wait()
            await asyncio.sleep(0)  # what the last handler did is reported, or begins something new
        if self._error is not None:
            raise self._error

    def _close_all(self) -> None:
        for activity in tuple(self._activities):
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
