"""Goodbye to the peers of a loop that ends: the kernel, which does that for TCP, knows nothing of what runs over UDP.

asyncio closes the asynchronous generators of a loop that ends, however it was run. One of these waits here for it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Parting(Protocol):
    """What has a peer."""

    def say_goodbye(self) -> None:
        """End the connection, with a word to the peer."""


class Farewells:
    """The connections of each loop."""

    __slots__ = ("_by_loop",)

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[WeakSet[Parting], AsyncGenerator[None, None]]
        ] = WeakKeyDictionary()

    def add(self, loop: asyncio.AbstractEventLoop, connection: Parting) -> None:
        """Have this one say goodbye if it is still there when the loop, which is running, ends."""
        known = self._by_loop.get(loop)
        if known is None:
            connections: WeakSet[Parting] = WeakSet()
            waiting = _until_the_end(connections)
            with suppress(StopIteration):
                waiting.__anext__().send(None)  # as far as its yield, where the loop knows it
            known = self._by_loop[loop] = connections, waiting
        known[0].add(connection)

    def discard(self, loop: asyncio.AbstractEventLoop, connection: Parting) -> None:
        """This one has ended."""
        known = self._by_loop.get(loop)
        if known is not None:
            known[0].discard(connection)


farewells = Farewells()


async def _until_the_end(connections: WeakSet[Parting]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        for connection in list(connections):
            try:
                connection.say_goodbye()
            except Exception as error:  # the others have peers too
                what = {"message": f"{connection!r} could not say goodbye", "exception": error}
                asyncio.get_running_loop().call_exception_handler(what)
