"""The work on aioquic's engine, driven by the fewest lines that do: what NEATPy's driver is measured beside."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import pull_quic_header

from benchmarks.growth import Ask, Open, growth
from benchmarks.work import AT_ONCE, LARGE, QUIC_PACKET, SMALL, identity_path

_UDP, _SEGMENT, _GRO = 17, 103, 104
_SEGMENTS, _AT_ONCE_BYTES = 64, 65507
STREAMS = 4096
_BACKLOG = 256 * 1024


class Driver:
    """One socket and the connections on it, by peer; a server's grow by themselves."""

    def __init__(self, sock: socket.socket, configuration: QuicConfiguration) -> None:
        self.sock = sock
        self.configuration = configuration
        self.loop = asyncio.get_running_loop()
        self.peers: dict[Any, Peer] = {}
        self.streams = 0
        """How many a peer may have open, or 0 for the engine's own limit."""
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        sock.setsockopt(_UDP, _GRO, 1)
        sock.setblocking(False)
        self.on_event: Callable[[Peer, events.QuicEvent], None] = lambda peer, event: None
        self.loop.add_reader(sock, self._read)

    def _read(self) -> None:
        touched: dict[Peer, None] = {}
        for _ in range(64):
            try:
                data, control, _, address = self.sock.recvmsg(65536, 64)
            except BlockingIOError:
                break
            size = next(
                (struct.unpack("=i", value)[0] for _, kind, value in control if kind == _GRO), len(data)
            )
            peer = self.peers.get(address) or self._new(data, address)
            now = time.monotonic()
            for start in range(0, len(data), size):
                peer.quic.receive_datagram(data[start : start + size], address, now)
            touched[peer] = None
        for peer in touched:
            while (event := peer.quic.next_event()) is not None:
                self.on_event(peer, event)
            peer.transmit()

    def _new(self, data: bytes, address: Any) -> Peer:
        header = pull_quic_header(Buffer(data=data), host_cid_length=8)
        quic = QuicConnection(
            configuration=self.configuration, original_destination_connection_id=header.destination_cid
        )
        if self.streams:
            quic._local_max_streams_bidi.value = quic._local_max_streams_bidi.sent = self.streams
        peer = self.peers[address] = Peer(self, quic)
        return peer


class Peer:
    """One connection."""

    def __init__(self, driver: Driver, quic: QuicConnection) -> None:
        self.driver = driver
        self.quic = quic
        self.timer: asyncio.TimerHandle | None = None
        self.scheduled = False

    def soon(self) -> None:
        """Transmit once in this turn."""
        if not self.scheduled:
            self.scheduled = True
            self.driver.loop.call_soon(self.transmit)

    def transmit(self) -> None:
        self.scheduled = False
        run: list[bytes] = []
        address: Any = None
        for data, address in self.quic.datagrams_to_send(time.monotonic()):
            fits = len(run) < _SEGMENTS and sum(map(len, run)) + len(data) <= _AT_ONCE_BYTES
            if run and not (fits and len(data) <= len(run[0]) and len(run[-1]) == len(run[0])):
                self._send(run, address)
                run = []
            run.append(data)
        if run:
            self._send(run, address)
        at = self.quic.get_timer()
        if self.timer is not None:
            self.timer.cancel()
        if at is not None:
            self.timer = self.driver.loop.call_later(max(0.0, at - time.monotonic()), self._wake)

    def _send(self, run: list[bytes], address: Any) -> None:
        control = [(_UDP, _SEGMENT, struct.pack("=H", len(run[0])))] if len(run) > 1 else []
        try:
            self.driver.sock.sendmsg(run, control, 0, address)
        except BlockingIOError:
            return

    def _wake(self) -> None:
        self.quic.handle_timer(time.monotonic())
        while (event := self.quic.next_event()) is not None:
            self.driver.on_event(self, event)
        self.transmit()


async def serve(work: str) -> tuple[int, object]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    configuration = _configuration(is_client=False)
    configuration.load_cert_chain(identity_path(), identity_path())
    driver = Driver(sock, configuration)

    def on_event(peer: Peer, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamDataReceived):
            if work != "bulk":
                peer.quic.send_stream_data(event.stream_id, event.data, event.end_stream)
            elif event.end_stream:
                peer.quic.send_stream_data(event.stream_id, b"end", True)

    driver.on_event = on_event
    if work == "clones":
        driver.streams = STREAMS
    return sock.getsockname()[1], driver


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    peer, waiting = await _connected(port)
    stream = peer.quic.get_next_available_stream_id()
    count = 0
    start = perf_counter()
    end = start + seconds
    while perf_counter() < end:
        await _ask(peer, waiting, stream, False)
        count += 1
    return count / (perf_counter() - start)


async def streams(port: int, seconds: float) -> float:
    peer, waiting = await _connected(port)
    start = perf_counter()
    end = start + seconds

    async def ask() -> int:
        count = 0
        while perf_counter() < end:
            await _ask(peer, waiting, peer.quic.get_next_available_stream_id(), True)
            count += 1
        return count

    return sum(await asyncio.gather(*(ask() for _ in range(AT_ONCE)))) / (perf_counter() - start)


async def clones(port: int, count: int, server_pid: int) -> dict[str, float]:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Open]:
        yield partial(_asking, *await _connected(port))

    return await growth(connect, count)


def _asking(peer: Peer, waiting: dict[int, asyncio.Future[None]]) -> Ask:
    stream: int | None = None

    async def ask() -> bool:
        nonlocal stream
        if stream is None:
            stream = peer.quic.get_next_available_stream_id()
        await _ask(peer, waiting, stream, False)
        return True

    return ask


async def bulk(port: int, framed: bool, size: int) -> float:
    peer, waiting = await _connected(port)
    quic = peer.quic
    stream = quic.get_next_available_stream_id()
    start = perf_counter()
    answer = waiting[stream] = asyncio.get_running_loop().create_future()
    left = size // len(LARGE)
    while left:
        sender: Any = quic._streams[stream].sender if stream in quic._streams else None
        while left and (sender is None or sender._buffer_stop - sender.highest_offset < _BACKLOG):
            quic.send_stream_data(stream, LARGE, left == 1)
            sender = quic._streams[stream].sender
            left -= 1
        peer.transmit()
        await asyncio.sleep(0)
    await answer
    return size / (perf_counter() - start)


async def _ask(peer: Peer, waiting: dict[int, asyncio.Future[None]], stream: int, end: bool) -> None:
    answer = waiting[stream] = peer.driver.loop.create_future()
    peer.quic.send_stream_data(stream, SMALL, end)
    peer.soon()
    await answer


async def _connected(port: int) -> tuple[Peer, dict[int, asyncio.Future[None]]]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    address = ("127.0.0.1", port)
    configuration = _configuration(is_client=True)
    configuration.server_name = "localhost"
    configuration.verify_mode = ssl.CERT_REQUIRED
    configuration.load_verify_locations(identity_path())
    driver = Driver(sock, configuration)
    peer = driver.peers[address] = Peer(driver, QuicConnection(configuration=configuration))
    waiting: dict[int, asyncio.Future[None]] = {}
    ready = driver.loop.create_future()

    def on_event(peer: Peer, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamDataReceived):
            answer = waiting.pop(event.stream_id, None)
            if answer is not None:
                answer.set_result(None)
        elif isinstance(event, events.HandshakeCompleted):
            ready.set_result(None)

    driver.on_event = on_event
    peer.quic.connect(address, time.monotonic())
    peer.transmit()
    await ready
    return peer, waiting


def _configuration(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=["neatpy"],
        congestion_control_algorithm="cubic",
        is_client=is_client,
        max_data=8 << 20,
        max_stream_data=1 << 20,
        max_datagram_size=QUIC_PACKET,
    )
