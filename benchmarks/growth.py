"""What an exchange costs on a stream of one connection, by how many other streams are open."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter

FEW = 100
_TIMES = 3
_EXCHANGES = 200
_BURSTS = 5

Ask = Callable[[], Awaitable[bool]]
"""Sends once on one stream and waits until it is back; whether it came back right."""
Open = Callable[[], Ask]
"""Opens a stream of one connection."""
Connect = Callable[[], AbstractAsyncContextManager[Open]]


async def growth(connect: Connect, count: int) -> dict[str, float]:
    """Compare a hundred streams with so many more, which all stay open.

    Gives the seconds for each stream to be opened and to echo (``opened``), for each echo where all that are open do it
    at once (``together``), and for one at a time (``single``); and how many echoes did not come back right. As many
    streams are opened in both cases, the few on connections one after the other, and their times are means, so that
    the collector of garbage has its share in both; the others are medians.
    """
    few, many = _Echoes(connect), _Echoes(connect)
    for _ in range(_TIMES):
        for _ in range(count // FEW):
            await few.measure(FEW)
        await many.measure(count)
    found: dict[str, float] = {"wrong": few.wrong + many.wrong}
    for name, echoes in (("few", few), ("many", many)):
        found[f"opened, {name}"] = statistics.mean(echoes.opened)
        found[f"together, {name}"] = statistics.median(echoes.together)
        found[f"single, {name}"] = statistics.median(echoes.single)
    return found


class _Echoes:
    """The seconds of echoes on connections with a certain number of streams."""

    def __init__(self, connect: Connect) -> None:
        self.opened: list[float] = []
        self.together: list[float] = []
        self.single: list[float] = []
        self.wrong = 0
        self._connect = connect

    async def measure(self, count: int) -> None:
        """Once, on a connection of its own."""
        async with self._connect() as open_stream:
            await self._one_by_one(open_stream())  # a new connection has things to do that are done once
            start = perf_counter()
            asks = [open_stream() for _ in range(count)]
            await self._all(asks)
            self.opened.append((perf_counter() - start) / count)
            for _ in range(_BURSTS):
                start = perf_counter()
                await self._all(asks)
                self.together.append((perf_counter() - start) / count)
            self.single.append(await self._one_by_one(asks[0]))

    async def _all(self, asks: list[Ask]) -> None:
        self.wrong += (await asyncio.gather(*(ask() for ask in asks))).count(False)

    async def _one_by_one(self, ask: Ask) -> float:
        start = perf_counter()
        for _ in range(_EXCHANGES):
            self.wrong += not await ask()
        return (perf_counter() - start) / _EXCHANGES
