"""The work on asyncio's streams as their documentation has it: ``drain`` after each write, and ``readexactly`` where
Messages are framed."""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from time import perf_counter

from benchmarks.work import BATCH, END, LARGE, LENGTH, SMALL

READ_SIZE = 256 * 1024


async def serve(work: str) -> tuple[int, object]:
    handler = {
        "echo": _echo,
        "echo-framed": _echo_framed,
        "sink-framed": _sink_framed,
        "bulk": _bulk,
        "bulk-framed": _bulk_framed,
        "idle": _idle,
    }[work]
    server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=1024)
    return server.sockets[0].getsockname()[1], server


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    message = LENGTH.pack(len(SMALL)) + SMALL
    count = 0
    start = perf_counter()
    end = start + seconds
    while perf_counter() < end:
        if framed:
            writer.write(message)
            await writer.drain()
            await _read_framed(reader)
        else:
            writer.write(SMALL)
            await writer.drain()
            await reader.readexactly(len(SMALL))
        count += 1
    rate = count / (perf_counter() - start)
    await _close(writer)
    return rate


async def one_way(port: int, seconds: float) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    start = perf_counter()
    end = start + seconds
    while perf_counter() < end:
        for _ in range(BATCH):
            writer.write(LENGTH.pack(len(SMALL)) + SMALL)
        await writer.drain()
        count += BATCH
    writer.write(LENGTH.pack(len(END)) + END)
    await _read_framed(reader)
    rate = count / (perf_counter() - start)
    await _close(writer)
    return rate


async def bulk(port: int, framed: bool, size: int) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = perf_counter()
    for _ in range(size // len(LARGE)):
        if framed:
            writer.writelines((LENGTH.pack(len(LARGE)), LARGE))
        else:
            writer.write(LARGE)
        await writer.drain()
    writer.write_eof()
    await (_read_framed(reader) if framed else reader.readexactly(len(END)))
    rate = size / (perf_counter() - start)
    await _close(writer)
    return rate


async def connects(port: int, seconds: float) -> float:
    count = 0
    start = perf_counter()
    end = start + seconds
    while perf_counter() < end:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SMALL)
        await writer.drain()
        await reader.readexactly(len(SMALL))
        await _close(writer)
        count += 1
    return count / (perf_counter() - start)


async def open_idle(port: int, count: int) -> list[object]:
    return [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]


async def _echo(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(READ_SIZE):
        writer.write(data)
        await writer.drain()
    await _close(writer)


async def _echo_framed(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while True:
            message = await _read_framed(reader)
            writer.write(LENGTH.pack(len(message)) + message)
            await writer.drain()
    except IncompleteReadError:
        await _close(writer)


async def _sink_framed(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while True:
            message = await _read_framed(reader)
            if len(message) == len(END):
                writer.write(LENGTH.pack(len(END)) + END)
    except IncompleteReadError:
        await _close(writer)


async def _bulk(reader: StreamReader, writer: StreamWriter) -> None:
    while await reader.read(READ_SIZE):
        pass
    writer.write(END)
    await _close(writer)


async def _bulk_framed(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while True:
            await _read_framed(reader)
    except IncompleteReadError:
        writer.write(LENGTH.pack(len(END)) + END)
        await _close(writer)


async def _idle(reader: StreamReader, writer: StreamWriter) -> None:
    await reader.read(1)


async def _read_framed(reader: StreamReader) -> bytes:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return await reader.readexactly(length)


async def _close(writer: StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()
