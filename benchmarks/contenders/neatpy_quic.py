"""The work on NEATPy over QUIC, by its public API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import perf_counter

from benchmarks.growth import Ask, Open, growth
from benchmarks.work import AT_ONCE, LARGE, SMALL, identity
from neatpy import (
    Certificate,
    Connection,
    LocalEndpoint,
    Preconnection,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
)


async def serve(work: str) -> tuple[int, object]:
    listener = await Preconnection(
        local=LocalEndpoint(0, address="127.0.0.1", protocol="quic"),
        security=SecurityParameters(server_certificate=Certificate.from_pem(identity())),
    ).listen()
    serving = asyncio.create_task(listener.serve(_bulk if work == "bulk" else _echo))
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
            await connection.receive(min_incomplete_length=len(SMALL))
            count += 1
        return count / (perf_counter() - start)


async def streams(port: int, seconds: float) -> float:
    """Each request on a stream of its own, so many at once; requests per second."""
    async with _to(port).initiate() as connection:
        start = perf_counter()
        end = start + seconds

        async def ask() -> int:
            count = 0
            while perf_counter() < end:
                clone = connection.clone()
                await clone.send(SMALL, final=True)
                await clone.receive(min_incomplete_length=len(SMALL))
                clone.close()
                count += 1
            return count

        counts = await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        return sum(counts) / (perf_counter() - start)


async def clones(port: int, count: int, server_pid: int) -> dict[str, float]:
    """What an exchange on a clone costs where few are open and where so many are, in seconds."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Open]:
        async with _to(port).initiate() as connection:
            yield partial(_asking, connection)
            await connection.close_group()

    return await growth(connect, count)


async def bulk(port: int, framed: bool, size: int) -> float:
    async with _to(port).initiate() as connection:
        start = perf_counter()
        for _ in range(size // len(LARGE)):
            await connection.send(LARGE)
        await connection.send(b"", final=True)
        await connection.receive()
        return size / (perf_counter() - start)


def _asking(connection: Connection) -> Ask:
    clone = connection.clone()
    question = id(clone).to_bytes(8) * (len(SMALL) // 8)

    async def ask() -> bool:
        await clone.send(question)
        answer = await clone.receive(min_incomplete_length=len(SMALL), max_length=len(SMALL))
        return bytes(answer) == question

    return ask


def _to(port: int) -> Preconnection:
    certificate = Certificate.from_pem(identity()).without_private_key()
    return Preconnection(
        remote=RemoteEndpoint("localhost", port, address="127.0.0.1", protocol="quic"),
        security=SecurityParameters(trusted_certificates=certificate),
    )


async def _echo(connection: Connection) -> None:
    with suppress(ReceiveError):  # the client has finished
        while True:
            message = await connection.receive(min_incomplete_length=1)
            await connection.send(message.data, final=message.end_of_message)
            if message.end_of_message:
                return


async def _bulk(connection: Connection) -> None:
    while not (await connection.receive(min_incomplete_length=len(LARGE))).end_of_message:
        pass
    await connection.send(b"end", final=True)
