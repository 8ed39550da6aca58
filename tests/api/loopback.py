"""Real peers on loopback for the tests of the public API: Listeners, connected pairs, and plain sockets.

Everything a context manager here opens is gone when it ends, whatever the test did.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from neatpy import (
    Connection,
    Framer,
    Listener,
    LocalEndpoint,
    Message,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from neatpy.framers import LengthPrefixFramer
from neatpy.stacks.registry import stacks

HOST = "127.0.0.1"
BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
PLAIN = SecurityParameters.disabled()
MIB = 1024 * 1024


async def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Let the loop run until this holds; fail after a while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.001)


async def until_still(measure: Callable[[], object], seconds: float = 0.1) -> None:
    """Let the loop run until this has not changed for so long."""
    deadline = time.monotonic() + 20
    last, since = measure(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, "it went on and on"
        await asyncio.sleep(0.005)
        now = measure()
        if now != last:
            last, since = now, time.monotonic()


async def turns(count: int = 5) -> None:
    """Let the loop turn a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


def stream(**properties: Any) -> TransportProperties:
    """A reliable stream of bytes, without boundaries or other streams beside it: tcp, or tls/tcp with security."""
    wanted = TransportProperties.reliable_inorder_stream()
    wanted.prohibit("preserve_msg_boundaries").prohibit("multistreaming")
    for name, value in properties.items():
        wanted.set(name, value)
    return wanted


def datagrams(**properties: Any) -> TransportProperties:
    """Unreliable datagrams and nothing more: udp, or dtls/udp with security."""
    wanted = TransportProperties.unreliable_datagram().prohibit("congestion_control")
    for name, value in properties.items():
        wanted.set(name, value)
    return wanted


def messages(**properties: Any) -> TransportProperties:
    """Reliable Messages: sctp, where this host has it, without security."""
    wanted = TransportProperties.reliable_message()
    for name, value in properties.items():
        wanted.set(name, value)
    return wanted


def available(*names: str) -> tuple[str, ...]:
    """Those of these stacks that this host can run."""
    return tuple(name for name in names if stacks()[name].available().available)


def length_framed() -> list[Framer]:
    """Framers for whole Messages over a stream."""
    return [LengthPrefixFramer()]


def framed(data: bytes) -> bytes:
    """What ``length_framed`` makes of a Message."""
    return struct.pack(">I", len(data)) + data


def listening_on(
    properties: TransportProperties | None = None,
    *,
    port: int = 0,
    address: str = HOST,
    framers: Iterable[Framer] = (),
    security: SecurityParameters = PLAIN,
) -> Preconnection:
    """A Preconnection that listens on loopback."""
    return Preconnection(
        local=LocalEndpoint(port, address=address),
        properties=properties or stream(),
        security=security,
        framers=framers,
    )


def going_to(
    port: int,
    properties: TransportProperties | None = None,
    *,
    framers: Iterable[Framer] = (),
    security: SecurityParameters = PLAIN,
    host: str = HOST,
) -> Preconnection:
    """A Preconnection to a port of loopback."""
    return Preconnection(
        remote=RemoteEndpoint(host, port),
        properties=properties or stream(),
        security=security,
        framers=framers,
    )


def port_of(listener: Listener) -> int:
    """The port that a Listener got."""
    port = listener.local_endpoints[0].port
    assert port
    return port


def is_free_for_udp(port: int) -> bool:
    """Whether a UDP socket can be bound to this port of loopback."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


@asynccontextmanager
async def pair(
    properties: TransportProperties | None = None,
    *,
    server_properties: TransportProperties | None = None,
    framers: Iterable[Framer] = (),
) -> AsyncIterator[tuple[Connection, Connection]]:
    """An initiated Connection and the one that a Listener accepted."""
    framers = list(framers)
    async with listening_on(server_properties or properties, framers=framers).listen() as listener:
        client = going_to(port_of(listener), properties, framers=framers).initiate(timeout=5)
        try:
            await client
            if client.stack == "udp":
                client.send(b"here I am")
            server = await asyncio.wait_for(listener.accept(), 5)
            try:
                if client.stack == "udp":
                    await server.receive()
                yield client, server
            finally:
                server.abort()
        finally:
            client.abort()


class PlainPeer:
    """The other side as a plain socket, which does nothing by itself."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    async def receive(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        async with asyncio.timeout(5):
            while len(data) < count:
                more = await _loop().sock_recv(self.sock, min(count - len(data), 1 << 18))
                assert more, f"it ended after {data!r}"
                data += more
        return data

    async def receive_to_end(self) -> bytes:
        """Everything up to the end of the stream. Raises ConnectionResetError."""
        data: list[bytes] = []
        async with asyncio.timeout(10):
            while more := await _loop().sock_recv(self.sock, 1 << 18):
                data.append(more)
        return b"".join(data)

    async def send(self, data: bytes) -> None:
        """All of it."""
        async with asyncio.timeout(5):
            await _loop().sock_sendall(self.sock, data)

    def send_what_fits(self, data: bytes) -> int:
        """As much as the kernel takes now."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def finish(self) -> None:
        """No more will come from here."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Abort."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """End as ordinary programs do."""
        self.sock.close()


class PlainServer:
    """A listening plain socket."""

    def __init__(self, receive_buffer: int | None = None) -> None:
        self._sock = socket.socket()
        if receive_buffer is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._sock.setblocking(False)
        self._sock.bind((HOST, 0))
        self._sock.listen()
        self.port: int = self._sock.getsockname()[1]
        self._accepted: list[PlainPeer] = []

    async def accept(self) -> PlainPeer:
        """The next connection."""
        async with asyncio.timeout(5):
            sock, _ = await _loop().sock_accept(self._sock)
        peer = PlainPeer(sock)
        self._accepted.append(peer)
        return peer

    def __enter__(self) -> PlainServer:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._accepted:
            peer.close()
        self._sock.close()


@asynccontextmanager
async def to_plain_peer(
    properties: TransportProperties | None = None,
    *,
    framers: Iterable[Framer] = (),
    receive_buffer: int | None = None,
) -> AsyncIterator[tuple[Connection, PlainPeer]]:
    """An initiated Connection to a plain socket."""
    with PlainServer(receive_buffer) as server:
        connection = going_to(server.port, properties, framers=framers).initiate(timeout=5)
        try:
            peer = await server.accept()
            await connection
            yield connection, peer
        finally:
            connection.abort()
            await turns(2)


def plain_client(port: int, family: int = socket.AF_INET) -> PlainPeer:
    """A plain socket connected to a Listener."""
    sock = socket.socket(family)
    try:
        sock.connect(("::1" if family == socket.AF_INET6 else HOST, port))
    except BaseException:
        sock.close()
        raise
    return PlainPeer(sock)


async def drained(connection: Connection) -> list[Message]:
    """Every Message up to the end; raises as iteration does."""
    return [message async for message in connection]


def blocked(connection: Connection) -> list[asyncio.Future[Any]]:
    """Send until the kernel takes no more; the futures of what waits in the Connection."""
    filler = bytes(64 * 1024)
    for _ in range(4096):
        future = connection.send(filler)
        if not future.done():
            waiting = [future, *(connection.send(filler) for _ in range(64))]
            if not waiting[-1].done():
                return waiting
    raise AssertionError("the kernel took 256 MiB")


def resident() -> int:
    """Bytes of memory that this process occupies."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
