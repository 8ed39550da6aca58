"""What a Listener has not accepted yet, bounded in number and in time. This room knows no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks._tls.handshake import CallbackFailed


class Abortable(Protocol):
    """Something in progress that can be ended."""

    def abort(self) -> None:
        """End it."""


class Waiting:
    """Everything in progress at one Listener, at most ``limit``: one more, and the oldest is given up. ``given_up`` is
    told of each that is, with the reason, before it ends."""

    __slots__ = ("_given_up", "_limit", "_timers")

    def __init__(self, limit: int, given_up: Callable[[Any, EstablishmentError], None] | None = None) -> None:
        self._limit = limit
        self._given_up = given_up
        self._timers: dict[Abortable, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def add(self, item: Abortable, seconds: float, late: Callable[[], None] | None = None) -> None:
        """Keep it for so long; then ``late`` is called, or it is given up."""
        if len(self._timers) >= self._limit:
            crowded = EstablishmentError(
                f"{self._limit} handshakes were in progress, and this was the oldest",
                Reason.ESTABLISHMENT_FAILED,
            )
            self._give_up(next(iter(self._timers)), crowded)
        loop = asyncio.get_running_loop()
        if late is None:
            self._timers[item] = loop.call_later(seconds, self._too_late, item, seconds)
        else:
            self._timers[item] = loop.call_later(seconds, late)

    def forget(self, item: Abortable) -> None:
        """It is in progress no longer. Idempotent."""
        timer = self._timers.pop(item, None)
        if timer is not None:
            timer.cancel()

    def give_up_all(self, spared: Callable[[Any], object] = lambda item: False) -> None:
        """End everything, since the Listener has stopped, but for what is ``spared``."""
        for item in list(self._timers):
            if not spared(item):
                self._give_up(item, EstablishmentError("the listener has stopped", Reason.LOCAL_ABORT))

    def _too_late(self, item: Abortable, seconds: float) -> None:
        self._give_up(item, EstablishmentError(f"the handshake took more than {seconds:g} s", Reason.TIMEOUT))

    def _give_up(self, item: Abortable, why: EstablishmentError) -> None:
        self.forget(item)
        if self._given_up is not None:
            self._given_up(item, why)
        item.abort()


def tell_loop(error: BaseException) -> None:
    """If it was a callback of the program that raised: no Connection is there to tell it, but the loop is."""
    if isinstance(error, CallbackFailed) and error.__cause__ is not None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "the trust verification callback of a Listener raised", "exception": error.__cause__}
        )
