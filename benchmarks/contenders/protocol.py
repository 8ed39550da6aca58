"""The work on ``asyncio.Protocol``: callbacks and the transport, the fastest that asyncio and uvloop offer."""

from __future__ import annotations

import asyncio
from asyncio import Future
from time import perf_counter

from benchmarks.work import BATCH, END, LARGE, LENGTH, SMALL


async def serve(work: str) -> tuple[int, object]:
    factory = {
        "echo": _Echo,
        "echo-framed": _EchoFramed,
        "sink-framed": _SinkFramed,
        "bulk": _Bulk,
        "bulk-framed": _BulkFramed,
        "idle": _Base,
    }[work]
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, backlog=1024)
    return server.sockets[0].getsockname()[1], server


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    kind = _RoundTripsFramed if framed else _RoundTrips
    _, client = await loop.create_connection(lambda: kind(seconds), "127.0.0.1", port)
    rate = await client.done
    client.transport.close()
    await client.lost
    return rate


async def one_way(port: int, seconds: float) -> float:
    _, client = await asyncio.get_running_loop().create_connection(_Sender, "127.0.0.1", port)
    count = 0
    start = perf_counter()
    end = start + seconds
    while perf_counter() < end:
        for _ in range(BATCH):
            client.transport.write(LENGTH.pack(len(SMALL)) + SMALL)
        if client.paused is not None:
            await client.paused
        count += BATCH
    client.transport.write(LENGTH.pack(len(END)) + END)
    await client.answered
    rate = count / (perf_counter() - start)
    client.transport.close()
    await client.lost
    return rate


async def bulk(port: int, framed: bool, size: int) -> float:
    _, client = await asyncio.get_running_loop().create_connection(_Sender, "127.0.0.1", port)
    start = perf_counter()
    for _ in range(size // len(LARGE)):
        if framed:
            client.transport.writelines((LENGTH.pack(len(LARGE)), LARGE))
        else:
            client.transport.write(LARGE)
        if client.paused is not None:
            await client.paused
    client.transport.write_eof()
    await client.answered
    rate = size / (perf_counter() - start)
    client.transport.close()
    await client.lost
    return rate


async def connects(port: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    count = 0
    start = perf_counter()
    end = start + seconds
    while perf_counter() < end:
        _, client = await loop.create_connection(_Sender, "127.0.0.1", port)
        client.transport.write(SMALL)
        await client.answered
        client.transport.close()
        await client.lost
        count += 1
    return count / (perf_counter() - start)


async def open_idle(port: int, count: int) -> list[object]:
    loop = asyncio.get_running_loop()
    return [await loop.create_connection(_Base, "127.0.0.1", port) for _ in range(count)]


class _Base(asyncio.Protocol):
    __slots__ = ("transport",)
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's is a Transport


class _Echo(_Base):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class _Deframing(_Base):
    """Cuts what arrives into Messages.

    The rest is one bytearray that lives as long as the connection: gluing ``bytes`` together instead halves the
    throughput of large Messages, as each new block of that size is mapped and unmapped by the allocator.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def messages(self, data: bytes) -> list[bytes]:
        rest = self._rest
        rest += data
        messages = []
        start, available = 0, len(rest)
        with memoryview(rest) as view:
            while start + LENGTH.size <= available:
                (length,) = LENGTH.unpack_from(view, start)
                end = start + LENGTH.size + length
                if end > available:
                    break
                messages.append(bytes(view[start + LENGTH.size : end]))
                start = end
        del rest[:start]
        return messages


class _EchoFramed(_Deframing):
    def data_received(self, data: bytes) -> None:
        for message in self.messages(data):
            self.transport.write(LENGTH.pack(len(message)) + message)


class _SinkFramed(_Deframing):
    def data_received(self, data: bytes) -> None:
        for message in self.messages(data):
            if len(message) == len(END):
                self.transport.write(LENGTH.pack(len(END)) + END)


class _Bulk(_Base):
    def eof_received(self) -> None:
        self.transport.write(END)


class _BulkFramed(_Deframing):
    def data_received(self, data: bytes) -> None:
        self.messages(data)

    def eof_received(self) -> None:
        self.transport.write(LENGTH.pack(len(END)) + END)


class _Client(_Base):
    __slots__ = ("lost",)

    def __init__(self) -> None:
        self.lost: Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)


class _Sender(_Client):
    """Sends from a coroutine that waits while the transport's buffer is full, and for one answer."""

    __slots__ = ("answered", "paused")

    def __init__(self) -> None:
        super().__init__()
        self.answered: Future[None] = asyncio.get_running_loop().create_future()
        self.paused: Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(None)

    def pause_writing(self) -> None:
        self.paused = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        assert self.paused is not None
        self.paused.set_result(None)
        self.paused = None


class _RoundTrips(_Client):
    __slots__ = ("_count", "_seconds", "_start", "done")

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.done: Future[float] = asyncio.get_running_loop().create_future()
        self._seconds = seconds
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start = perf_counter()
        self.transport.write(SMALL)

    def data_received(self, data: bytes) -> None:
        assert len(data) == len(SMALL)
        self._count += 1
        elapsed = perf_counter() - self._start
        if elapsed < self._seconds:
            self.transport.write(SMALL)
        else:
            self.done.set_result(self._count / elapsed)


class _RoundTripsFramed(_Deframing):
    __slots__ = ("_count", "_seconds", "_start", "done", "lost")

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.done: Future[float] = asyncio.get_running_loop().create_future()
        self.lost: Future[None] = asyncio.get_running_loop().create_future()
        self._seconds = seconds
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start = perf_counter()
        self.transport.write(LENGTH.pack(len(SMALL)) + SMALL)

    def data_received(self, data: bytes) -> None:
        for _ in self.messages(data):
            self._count += 1
            elapsed = perf_counter() - self._start
            if elapsed < self._seconds:
                self.transport.write(LENGTH.pack(len(SMALL)) + SMALL)
            else:
                self.done.set_result(self._count / elapsed)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)
