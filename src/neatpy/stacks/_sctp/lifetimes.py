"""Messages with a lifetime: what of them becomes known after they were handed to the association.

It tells of what it gives up, and of nothing else: a Message was sent when everything was, or when it is long past its
time and nothing was heard of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from neatpy.stacks._sctp.flow import SctpFlow

_LONGER = 2.0
"""Seconds after the end of its lifetime at which a Message counts as sent if nothing was heard of it."""


class Lifetimes:
    """The Messages with a lifetime that are under way on one association."""

    __slots__ = ("_loop", "_number", "_watched", "asked")

    asked: bool
    """Whether the association was asked to tell when it is dry, which it tells once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.asked = False
        self._number = 0
        self._watched: dict[int, tuple[SctpFlow, object, asyncio.TimerHandle]] = {}

    def watch(self, flow: SctpFlow, token: object, lifetime: float) -> int:
        """A number, never 0, by which the association is to tell of this Message."""
        self._number = number = self._number % 0xFFFFFFFF + 1
        timer = self._loop.call_later(lifetime + _LONGER, self._sent, number)
        self._watched[number] = (flow, token, timer)
        return number

    def expired(self, number: int) -> None:
        """The association has given up a piece of the Message."""
        watched = self._watched.pop(number, None)
        if watched is not None:
            flow, token, timer = watched
            timer.cancel()
            if not flow.over:
                flow.observer.expired(token)

    def dry(self) -> None:
        """The peer has acknowledged everything."""
        self.asked = False
        for number in list(self._watched):
            self._sent(number)

    def _sent(self, number: int) -> None:
        flow, token, timer = self._watched.pop(number)
        timer.cancel()
        if not flow.over:
            flow.observer.sent(token)

    def forget(self) -> None:
        """The association is over."""
        for _, _, timer in self._watched.values():
            timer.cancel()
        self._watched.clear()
