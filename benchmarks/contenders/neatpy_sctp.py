"""The work on NEATPy over SCTP: Messages need no framing, and clones are streams of one association."""

from __future__ import annotations

import asyncio
import gc
import os
from time import perf_counter

from benchmarks.harness import resident_bytes
from benchmarks.work import END, LARGE, PACKET, SMALL
from neatpy import (
    Connection,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from neatpy.stacks._sctp import carriers

_WARM_UP_CLONES = 100

carriers.LARGEST_PACKET = PACKET


async def serve(work: str) -> tuple[int, object]:
    handler = {"echo-framed": _echo, "bulk-framed": _bulk, "clones": _echo}[work]
    listener = await Preconnection(
        local=LocalEndpoint(port=0, address="127.0.0.1", protocol="sctp"),
        properties=TransportProperties.reliable_message(),
        security=SecurityParameters.disabled(),
    ).listen()
    serving = asyncio.create_task(listener.serve(handler))
    port = listener.local_endpoints[0].port
    assert port is not None
    return port, serving


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    async with _to(port).initiate() as connection:
        count = 0
        start = perf_counter()
        end = start + seconds
        while perf_counter() < end:
            await connection.send(SMALL)
            await connection.receive()
            count += 1
        return count / (perf_counter() - start)


async def bulk(port: int, framed: bool, size: int) -> float:
    async with _to(port).initiate() as connection:
        start = perf_counter()
        for _ in range(size // len(LARGE)):
            await connection.send(LARGE)
        await connection.send(END)
        await connection.receive()
        return size / (perf_counter() - start)


async def clones(port: int, count: int, server_pid: int) -> dict[str, float]:
    """Let so many clones of one Connection each have a Message echoed, all open at once; then close them, and do it
    once more. Gives the bytes for each clone at both sides, the seconds, and how many were answered and left behind."""
    connection = await _to(port).initiate()
    await _close(connection, await _echoing_clones(connection, _WARM_UP_CLONES))
    gc.collect()
    before = resident_bytes(os.getpid()), resident_bytes(server_pid)
    start = perf_counter()
    opened = await _echoing_clones(connection, count)
    seconds = perf_counter() - start
    gc.collect()
    after = resident_bytes(os.getpid()), resident_bytes(server_pid)
    answered = len(opened)
    await _close(connection, opened)
    left = _streams(connection) - 1
    again = await _echoing_clones(connection, count)
    answered = min(answered, len(again))
    highest = _streams(connection)
    await _close(connection, again)
    return {
        "client": (after[0] - before[0]) / count,
        "server": (after[1] - before[1]) / count,
        "rate": count / seconds,
        "unanswered": float(count - answered),
        "left": left + _streams(connection) - 1,
        "streams": highest,
    }


async def _echoing_clones(connection: Connection, count: int) -> list[Connection]:
    opened = list(await asyncio.gather(*(_ready(connection.clone()) for _ in range(count))))

    async def ask(clone: Connection, number: int) -> bool:
        message = number.to_bytes(8, "big") * 8
        await clone.send(message)
        return bytes(await clone.receive()) == message

    answers = await asyncio.gather(*(ask(clone, number) for number, clone in enumerate(opened)))
    return [clone for clone, right in zip(opened, answers, strict=True) if right]


async def _ready(connection: Connection) -> Connection:
    return await connection


async def _close(connection: Connection, opened: list[Connection]) -> None:
    await asyncio.gather(*(clone.close() for clone in opened))
    end = perf_counter() + 5
    while _streams(connection) > 1 and perf_counter() < end:
        await asyncio.sleep(0.01)


def _streams(connection: Connection) -> float:
    return connection.statistics["streams"]


def _to(port: int) -> Preconnection:
    return Preconnection(
        remote=RemoteEndpoint("127.0.0.1", port, protocol="sctp"),
        properties=TransportProperties.reliable_message(),
        security=SecurityParameters.disabled(),
    )


async def _echo(connection: Connection) -> None:
    async for message in connection:
        await connection.send(message.data)


async def _bulk(connection: Connection) -> None:
    async for message in connection:
        if len(message) == len(END):
            connection.send(END)
