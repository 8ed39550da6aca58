"""The work on aioquic by its own layer for asyncio."""

from __future__ import annotations

import asyncio
import ssl
from time import perf_counter
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve as serve_quic
from aioquic.quic.configuration import QuicConfiguration

from benchmarks.work import AT_ONCE, LARGE, SMALL, identity_path


async def serve(work: str) -> tuple[int, object]:
    configuration = QuicConfiguration(alpn_protocols=["neatpy"], is_client=False)
    configuration.load_cert_chain(identity_path(), identity_path())
    tasks: set[asyncio.Task[None]] = set()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future((_sink if work == "bulk" else _echo)(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server: Any = await serve_quic("127.0.0.1", 0, configuration=configuration, stream_handler=handle)
    return server._transport.get_extra_info("sockname")[1], server


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    async with connect("127.0.0.1", port, configuration=_client()) as quic:
        reader, writer = await quic.create_stream()
        count = 0
        start = perf_counter()
        end = start + seconds
        while perf_counter() < end:
            writer.write(SMALL)
            await reader.readexactly(len(SMALL))
            count += 1
        return count / (perf_counter() - start)


async def streams(port: int, seconds: float) -> float:
    async with connect("127.0.0.1", port, configuration=_client()) as quic:
        start = perf_counter()
        end = start + seconds

        async def ask() -> int:
            count = 0
            while perf_counter() < end:
                reader, writer = await quic.create_stream()
                writer.write(SMALL)
                writer.write_eof()
                await reader.readexactly(len(SMALL))
                count += 1
            return count

        return sum(await asyncio.gather(*(ask() for _ in range(AT_ONCE)))) / (perf_counter() - start)


async def bulk(port: int, framed: bool, size: int) -> float:
    async with connect("127.0.0.1", port, configuration=_client()) as quic:
        reader, writer = await quic.create_stream()
        start = perf_counter()
        for _ in range(size // len(LARGE)):
            writer.write(LARGE)
            await writer.drain()
        writer.write_eof()
        await reader.read()
        return size / (perf_counter() - start)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.write_eof()


async def _sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass
    writer.write(b"end")
    writer.write_eof()


def _client() -> QuicConfiguration:
    configuration = QuicConfiguration(alpn_protocols=["neatpy"], is_client=True)
    configuration.server_name = "localhost"
    configuration.verify_mode = ssl.CERT_REQUIRED
    configuration.load_verify_locations(identity_path())
    return configuration
