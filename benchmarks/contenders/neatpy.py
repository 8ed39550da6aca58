"""The work on NEATPy, over plain TCP as all the others."""

from __future__ import annotations

import asyncio
from time import perf_counter

from benchmarks.work import BATCH, END, LARGE, SMALL
from neatpy import (
    Connection,
    LocalEndpoint,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from neatpy.framers import LengthPrefixFramer


async def serve(work: str) -> tuple[int, object]:
    handler = {
        "echo": _echo,
        "echo-framed": _echo_framed,
        "sink-framed": _sink_framed,
        "bulk": _bulk,
        "bulk-framed": _bulk_framed,
        "idle": _idle,
    }[work]
    preconnection = Preconnection(
        local=LocalEndpoint(port=0, address="127.0.0.1", protocol="tcp"),
        properties=TransportProperties.reliable_inorder_stream(),
        security=SecurityParameters.disabled(),
        framers=_framers(work.endswith("-framed")),
    )
    listener = await preconnection.listen()
    serving = asyncio.create_task(listener.serve(handler))
    port = listener.local_endpoints[0].port
    assert port is not None
    return port, serving


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    async with _to(port, framed).initiate() as connection:
        minimum = None if framed else len(SMALL)
        count = 0
        start = perf_counter()
        end = start + seconds
        while perf_counter() < end:
            await connection.send(SMALL)
            await connection.receive(min_incomplete_length=minimum)
            count += 1
        return count / (perf_counter() - start)


async def one_way(port: int, seconds: float) -> float:
    async with _to(port, True).initiate() as connection:
        count = 0
        start = perf_counter()
        end = start + seconds
        while perf_counter() < end:
            with connection.batch():
                for _ in range(BATCH - 1):
                    connection.send(SMALL)
                last = connection.send(SMALL)
            await last
            count += BATCH
        connection.send(END)
        await connection.receive()
        return count / (perf_counter() - start)


async def bulk(port: int, framed: bool, size: int) -> float:
    async with _to(port, framed).initiate() as connection:
        start = perf_counter()
        for _ in range(size // len(LARGE) - 1):
            await connection.send(LARGE)
        await connection.send(LARGE, final=True)
        await connection.receive()
        return size / (perf_counter() - start)


async def connects(port: int, seconds: float) -> float:
    preconnection = _to(port, False)
    count = 0
    start = perf_counter()
    end = start + seconds
    while perf_counter() < end:
        async with preconnection.initiate() as connection:
            await connection.send(SMALL)
            await connection.receive(min_incomplete_length=len(SMALL))
        count += 1
    return count / (perf_counter() - start)


async def open_idle(port: int, count: int) -> list[object]:
    preconnection = _to(port, False)
    return [await preconnection.initiate() for _ in range(count)]


def _to(port: int, framed: bool) -> Preconnection:
    return Preconnection(
        remote=RemoteEndpoint("127.0.0.1", port, protocol="tcp"),
        properties=TransportProperties.reliable_inorder_stream(),
        security=SecurityParameters.disabled(),
        framers=_framers(framed),
    )


def _framers(framed: bool) -> tuple[LengthPrefixFramer, ...]:
    return (LengthPrefixFramer(),) if framed else ()


async def _echo(connection: Connection) -> None:
    try:
        while True:
            message = await connection.receive(min_incomplete_length=1)
            await connection.send(message.data)
    except ReceiveError as error:
        if error.reason is not Reason.CONNECTION_CLOSED:
            raise


async def _echo_framed(connection: Connection) -> None:
    async for message in connection:
        await connection.send(message.data)


async def _sink_framed(connection: Connection) -> None:
    async for message in connection:
        if len(message) == len(END):
            connection.send(END)


async def _bulk(connection: Connection) -> None:
    end_of_message = False
    while not end_of_message:
        end_of_message = (await connection.receive(min_incomplete_length=1)).end_of_message
    connection.send(END, final=True)


async def _bulk_framed(connection: Connection) -> None:
    async for _ in connection:
        pass
    connection.send(END, final=True)


async def _idle(connection: Connection) -> None:
    async for _ in connection:
        pass
