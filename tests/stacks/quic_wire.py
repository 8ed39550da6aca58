"""What the tests of QUIC on real sockets share: a relay between the ends of a Connection, and clients
and a server made by hand."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from api.loopback import HOST, port_of, until
from api.quic_loopback import IDENTITY, connected, exactly, going_to, listening
from api.relay import Relay
from neatpy import Certificate, Connection, Listener
from neatpy.stacks._quic import port as quic_port


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@asynccontextmanager
async def through_a_relay() -> AsyncIterator[tuple[Connection, Connection, Relay]]:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        yield client, server, relay


async def talk(client: Connection, server: Connection, size: int = 1000) -> None:
    """Exchange some bytes both ways at once."""
    client.send(payload(size))
    server.send(payload(size + 1))
    there, back = await asyncio.gather(exactly(server, size), exactly(client, size + 1))
    assert there == payload(size)
    assert back == payload(size + 1)


def engine_room(listener: Listener) -> quic_port.QuicListener:
    """What QUIC keeps of the Listener's port."""
    assert listener._binding is not None
    (found,) = (
        place.listener
        for place in listener._binding.places
        if isinstance(place.listener, quic_port.QuicListener)
    )
    return found


# Clients made by hand


def foreign(certificate: Certificate | None = None) -> QuicConnection:
    """A client of aioquic's own, which verifies nothing and shows this certificate if it is asked for one."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["neatpy"], server_name="localhost")
    configuration.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        _show(configuration, certificate)
    return QuicConnection(configuration=configuration)


def _show(configuration: QuicConfiguration, certificate: Certificate) -> None:
    configuration.certificate = x509.load_pem_x509_certificate(certificate.certificate_chain)
    configuration.private_key = load_pem_private_key(certificate.private_key, None)


def initial() -> bytes:
    """What a client sends first."""
    client = foreign()
    client.connect((HOST, 0), time.monotonic())
    ((datagram, _),) = client.datagrams_to_send(time.monotonic())
    return datagram


@asynccontextmanager
async def stranger(listener: Listener) -> AsyncIterator[socket.socket]:
    """A plain UDP socket that speaks to the Listener's port."""
    with strangers(listener, 1) as (sock,):
        yield sock


@contextmanager
def strangers(listener: Listener, count: int) -> Iterator[list[socket.socket]]:
    """Several of them."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(count)]
        for sock in found:
            sock.connect((HOST, port_of(listener)))
            sock.setblocking(False)
        yield found


def answers(sock: socket.socket) -> list[bytes]:
    """What has come."""
    found = []
    while True:
        try:
            found.append(sock.recv(65536))
        except BlockingIOError:
            return found


async def some(sock: socket.socket) -> list[bytes]:
    """What comes first."""
    found: list[bytes] = []

    def came() -> bool:
        found.extend(answers(sock))
        return bool(found)

    await until(came)
    return found


async def pumped(client: QuicConnection, sock: socket.socket, condition: Callable[[], object]) -> None:
    """Let a client of aioquic's own speak by this socket until this holds."""

    def step() -> object:
        now = time.monotonic()
        for datagram in answers(sock):
            client.receive_datagram(datagram, (HOST, 0), now)
        due = client.get_timer()
        if due is not None and due <= now:
            client.handle_timer(now)
        for datagram, _ in client.datagrams_to_send(now):
            sock.send(datagram)
        return condition()

    await until(step)


# A server made by hand


class ForeignServer(asyncio.DatagramProtocol):
    """A server of aioquic's own for one connection, which echoes, and which can lose it."""

    def __init__(self) -> None:
        self.heard = 0
        self.lost = False
        self.first_words = b""
        """To be sent on a stream of its own, together with its part of the handshake."""
        self._quic: QuicConnection
        self._has_begun = False
        self._client: tuple[str, int]
        self._transport: asyncio.DatagramTransport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    @property
    def port(self) -> int:
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.heard += 1
        if self.lost:
            return
        if not self._has_begun:
            self._begin(data, address)
        self._quic.receive_datagram(data, address, time.monotonic())
        words, self.first_words = self.first_words, b""
        if words:
            self._quic.send_stream_data(self._quic.get_next_available_stream_id(), words)
        self._act()

    def _begin(self, first: bytes, client: tuple[str, int]) -> None:
        self._has_begun = True
        self._client = client
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["neatpy"])
        _show(configuration, IDENTITY)
        self._quic = QuicConnection(
            configuration=configuration, original_destination_connection_id=first[6 : 6 + first[5]]
        )

    def _act(self) -> None:
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)
        now = time.monotonic()
        for datagram, address in self._quic.datagrams_to_send(now):
            self._transport.sendto(datagram, address)
        due = self._quic.get_timer()
        self.stop()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._wake)

    def _wake(self) -> None:
        self._quic.handle_timer(time.monotonic())
        self._act()

    def reset(self) -> None:
        """Lose the connection, and tell the client so."""
        self.lost = True
        self.stop()
        token = self._quic._host_cids[0].stateless_reset_token
        self._transport.sendto(b"\x42" + bytes(30) + token, self._client)

    def stop(self) -> None:
        """Do nothing by itself any more."""
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """End it."""
        self.stop()
        self._transport.close()


@pytest.fixture
async def foreign_server() -> AsyncIterator[ForeignServer]:
    """A server of aioquic's own that listens."""
    loop = asyncio.get_running_loop()
    _, server = await loop.create_datagram_endpoint(ForeignServer, local_addr=(HOST, 0))
    yield server
    server.close()
