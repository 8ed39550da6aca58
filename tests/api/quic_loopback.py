"""QUIC on loopback by the public API: identities, Listeners, connected pairs, and a look at what carries them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.loopback import HOST, port_of, turns, until
from neatpy import (
    Connection,
    EstablishmentError,
    Framer,
    Listener,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
    trace,
)
from neatpy.stacks._quic.connection import QuicTransport
from neatpy.stacks._quic.flow import QuicFlow
from pki import Authority

AUTHORITY = Authority()
IDENTITY = AUTHORITY.issue("localhost", HOST, "::1")
CLIENT = AUTHORITY.issue("client.example", common_name="the client")
TIME = 10.0


def streams(**properties: Any) -> TransportProperties:
    """A reliable stream beside others, which is what quic gives."""
    wanted = TransportProperties.reliable_inorder_stream().require("multistreaming")
    for name, value in properties.items():
        wanted.set(name, value)
    return wanted


def trusting(**parameters: Any) -> SecurityParameters:
    """A client's parameters that trust the test's authority."""
    return SecurityParameters(**{"trusted_certificates": AUTHORITY.root, **parameters})


def offering(**parameters: Any) -> SecurityParameters:
    """A Listener's parameters with the test's certificate."""
    return SecurityParameters(**{"server_certificate": IDENTITY, **parameters})


def going_to(
    port: int,
    security: SecurityParameters | None = None,
    properties: TransportProperties | None = None,
    *,
    name: str | None = "localhost",
    framers: Iterable[Framer] = (),
    stack: str | None = "quic",
) -> Preconnection:
    """To a port of loopback, verifying this name (None: the address), on this stack (None: on any)."""
    remote = RemoteEndpoint(name, port, address=HOST) if name else RemoteEndpoint(HOST, port)
    if stack is not None:
        remote.with_protocol(stack)
    return Preconnection(
        remote=remote, properties=properties or streams(), security=security or trusting(), framers=framers
    )


@asynccontextmanager
async def listening(
    security: SecurityParameters | None = None,
    properties: TransportProperties | None = None,
    *,
    framers: Iterable[Framer] = (),
    stack: str | None = "quic",
) -> AsyncIterator[Listener]:
    """A Listener on loopback, on this stack (None: on all that are eligible)."""
    preconnection = Preconnection(
        local=LocalEndpoint(0, address=HOST, protocol=stack),
        properties=properties or streams(),
        security=security or offering(),
        framers=framers,
    )
    async with preconnection.listen() as listener:
        yield listener


@asynccontextmanager
async def connected(
    preconnection: Preconnection, listener: Listener
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Both ends of a Connection, whose groups are aborted at the end of the block."""
    client = preconnection.initiate(timeout=TIME)
    try:
        await client
        server = await asyncio.wait_for(listener.accept(), TIME)
        try:
            yield client, server
        finally:
            server.abort_group()
    finally:
        client.abort_group()
        await turns()


@asynccontextmanager
async def pair(
    properties: TransportProperties | None = None,
    *,
    server_properties: TransportProperties | None = None,
    client_security: SecurityParameters | None = None,
    server_security: SecurityParameters | None = None,
    framers: Iterable[Framer] = (),
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Both ends of a Connection over loopback."""
    framers = list(framers)
    async with (
        listening(server_security, server_properties or properties, framers=framers) as listener,
        connected(
            going_to(port_of(listener), client_security, properties, framers=framers), listener
        ) as both,
    ):
        yield both


async def refusal(preconnection: Preconnection) -> EstablishmentError:
    """How establishing fails."""
    connection = preconnection.initiate(timeout=TIME)
    with pytest.raises(EstablishmentError) as caught:
        await connection
    await turns()
    return caught.value


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def exactly(connection: Connection, count: int) -> bytes:
    """So many bytes of a stream."""
    async with asyncio.timeout(TIME):
        parts: list[bytes] = []
        while count:
            message = await connection.receive(min_incomplete_length=1, max_length=count)
            parts.append(message.data)
            count -= len(message)
        return b"".join(parts)


async def to_the_end(connection: Connection) -> bytes:
    """Everything up to the end of a stream."""
    async with asyncio.timeout(TIME):
        return b"".join([message.data async for message in connection])


async def peer_of(clone: Connection, server: Connection, first: bytes = b"x") -> Connection:
    """The other side of a clone, which its first byte makes visible there."""
    known = server.grouped_connections
    clone.send(first)
    await until(lambda: len(server.grouped_connections) == len(known) + 1)
    (peer,) = server.grouped_connections - known
    assert await exactly(peer, len(first)) == first
    return peer


def flow_of(connection: Connection) -> QuicFlow:
    """The stream that carries a Connection."""
    flow: Any = connection._path.flow
    while not isinstance(flow, QuicFlow):
        flow = flow._lower
    return flow


def transport_of(connection: Connection) -> QuicTransport:
    """The QUIC connection that carries a Connection."""
    return flow_of(connection)._transport


def open_sockets() -> int:
    """How many sockets this process has."""
    directory = "/proc/self/fd"
    if not os.path.isdir(directory):
        return 0
    found = 0
    for name in os.listdir(directory):
        try:
            found += os.readlink(f"{directory}/{name}").startswith("socket:")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


@pytest.fixture
def told() -> Iterator[list[BaseException]]:
    """What Listeners tell of the handshakes that they refuse."""
    found: list[BaseException] = []

    def note(event: trace.Event) -> None:
        if isinstance(event, trace.CandidateFailed) and isinstance(event.subject, Listener):
            found.append(event.details["error"])

    unsubscribe = trace.subscribe(note)
    try:
        yield found
    finally:
        unsubscribe()


@pytest.fixture
async def everything_is_given_back(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """No socket stays, though connections that were closed answer for a moment."""
    monkeypatch.setattr("neatpy.stacks._quic.connection.ANSWERING", 0.02)
    before = open_sockets()
    yield
    await until(lambda: open_sockets() <= before)
