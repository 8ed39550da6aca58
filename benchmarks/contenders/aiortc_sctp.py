"""The work on the SCTP of aiortc, which is pure Python: without DTLS and data channels, straight on a UDP socket.

It has no public interface without them, so that this takes methods of its that are not public. By itself it puts 1,200
bytes of data into a packet whatever the path takes; here its packets are as large as the others'.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Any, cast

from aiortc import rtcsctptransport
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from benchmarks.work import END, LARGE, PACKET, SMALL

_QUEUED = 64
_SCTP_PORT = 5000
_UDP_BUFFER = 4 << 20
_HEADERS = 28

rtcsctptransport.USERDATA_MAX_LENGTH = PACKET - _HEADERS


async def serve(work: str) -> tuple[int, object]:
    made = await _Udp.made({"echo-framed": _echo, "bulk-framed": _answer_end}[work], None)
    return made.transport.get_extra_info("sockname")[1], made


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    count = 0

    async def received(association: _Association, message: bytes) -> None:
        nonlocal count
        count += 1
        now = perf_counter()
        if now < end:
            await association.send(SMALL)
        elif not done.done():
            done.set_result(count / (now - start))

    made = await _Udp.made(received, port)
    await made.association.established()
    start = perf_counter()
    end = start + seconds
    await made.association.send(SMALL)
    rate = await done
    await made.association.stop()
    return rate


async def bulk(port: int, framed: bool, size: int) -> float:
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def received(association: _Association, message: bytes) -> None:
        answered.set_result(None)

    made = await _Udp.made(received, port)
    await made.association.established()
    start = perf_counter()
    for _ in range(size // len(LARGE)):
        await made.association.room()
        await made.association.send(LARGE)
    await made.association.send(END)
    await answered
    rate = size / (perf_counter() - start)
    await made.association.stop()
    return rate


async def _echo(association: _Association, message: bytes) -> None:
    await association.send(message)


async def _answer_end(association: _Association, message: bytes) -> None:
    if len(message) == len(END):
        await association.send(END)


class _Association(RTCSctpTransport):
    """One that hands Messages over as they are, and says when it has room."""

    def __init__(self, below: _Udp, received: Callable[..., Any]) -> None:
        super().__init__(cast(Any, below), _SCTP_PORT)
        self._received = received
        self._changed = asyncio.Event()

    async def send(self, message: bytes) -> None:
        await self._send(0, 0, message)

    async def room(self) -> None:
        while len(self._outbound_queue) > _QUEUED:
            self._changed.clear()
            await self._changed.wait()

    async def established(self) -> None:
        while self._association_state is not self.State.ESTABLISHED:
            self._changed.clear()
            await self._changed.wait()

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        await self._received(self, data)

    async def _data_channel_flush(self) -> None:
        self._changed.set()


class _Udp(asyncio.DatagramProtocol):
    """What the association takes for DTLS. Its server answers whoever speaks last, with a new association for each."""

    state = "connected"

    def __init__(self, received: Callable[..., Any], connected: bool) -> None:
        self._role = "client" if connected else "server"
        self._connected = connected
        self._received = received
        self._peer: tuple[str, int] | None = None
        self._packets: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()
        self.association = _Association(self, received)
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def made(cls, received: Callable[..., Any], port: int | None) -> _Udp:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _UDP_BUFFER)
        if port is None:
            sock.bind(("127.0.0.1", 0))
        else:
            sock.connect(("127.0.0.1", port))
        made = cls(received, port is not None)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, sock=sock)
        made._task = asyncio.ensure_future(made._work())
        if port is not None:
            await made.association.start(RTCSctpCapabilities(maxMessageSize=1 << 20), _SCTP_PORT)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self._packets.put_nowait((data, source))

    async def _work(self) -> None:
        while True:
            packet, source = await self._packets.get()
            if not self._connected and source != self._peer:
                self._peer = source
                self.association = _Association(self, self._received)
                self.association._remote_port = _SCTP_PORT
            await self.association._handle_data(packet)

    async def _send_data(self, packet: bytes) -> None:
        self.transport.sendto(packet, None if self._connected else self._peer)

    def _register_data_receiver(self, receiver: object) -> None:
        """Packets go to the association as they come."""

    def _unregister_data_receiver(self, receiver: object) -> None:
        """There is nothing to undo."""
