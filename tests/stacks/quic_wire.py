"""What the tests of QUIC on real sockets share: a relay between the ends of a Connection, and clients made by hand."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from api.loopback import HOST, port_of, until
from api.quic_loopback import connected, exactly, going_to, listening
from api.relay import Relay
from neatpy import Connection, Listener
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


def foreign() -> QuicConnection:
    """A client of aioquic's own, which verifies nothing."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["neatpy"], server_name="localhost")
    configuration.verify_mode = ssl.CERT_NONE
    return QuicConnection(configuration=configuration)


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
