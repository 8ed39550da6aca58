"""What a Listener has not accepted yet, bounded in number and in time. This room knows no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from neatpy.stacks._tls.handshake import CallbackFailed


class Abortable(Protocol):
    """Something in progress that can be ended."""

    def abort(self) -> None:
        """End it."""


class Waiting:
    """Everything in progress at one Listener, at most ``limit``: one more, and the oldest is given up."""

    __slots__ = ("_limit", "_timers")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._timers: dict[Abortable, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def add(self, item: Abortable, seconds: float, late: Callable[[], None] | None = None) -> None:
        """Keep it for so long; then ``late`` is called, or it is given up."""
        if len(self._timers) >= self._limit:
            self.give_up(next(iter(self._timers)))
        loop = asyncio.get_running_loop()
        if late is None:
            self._timers[item] = loop.call_later(seconds, self.give_up, item)
        else:
            self._timers[item] = loop.call_later(seconds, late)

    def forget(self, item: Abortable) -> None:
        """It is in progress no longer. Idempotent."""
        timer = self._timers.pop(item, None)
        if timer is not None:
            timer.cancel()

    def give_up(self, item: Abortable) -> None:
        """End it."""
        self.forget(item)
        item.abort()

    def give_up_all(self) -> None:
        """End everything."""
        for item in list(self._timers):
            self.give_up(item)


def tell_loop(error: BaseException) -> None:
    """If it was a callback of the program that raised: no Connection is there to tell it, but the loop is."""
    if isinstance(error, CallbackFailed) and error.__cause__ is not None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "the trust verification callback of a Listener raised", "exception": error.__cause__}
        )
