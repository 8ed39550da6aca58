"""What the DTLS tests share: Connections by the public API, and a relay that loses and invents datagrams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api import loopback
from api.loopback import HOST, port_of, turns
from neatpy import (
    Connection,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Preconnection,
    Preference,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from pki import Authority

AUTHORITY = Authority()
IDENTITY = AUTHORITY.issue("localhost", HOST)
CLIENT = AUTHORITY.issue("client.example", common_name="the client")
TIME = 10.0


def datagrams(**properties: Any) -> TransportProperties:
    """Unreliable datagrams without streams beside them: dtls/udp, or udp without security."""
    return loopback.datagrams(multistreaming=Preference.PROHIBIT, **properties)


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
    name: str = "localhost",
) -> Preconnection:
    """To a UDP port of loopback, verifying this name."""
    return Preconnection(
        remote=RemoteEndpoint(name, port, address=HOST),
        properties=properties or datagrams(),
        security=security or trusting(),
    )


@asynccontextmanager
async def listening(
    security: SecurityParameters | None = None, properties: TransportProperties | None = None
) -> AsyncIterator[Listener]:
    """A Listener on loopback."""
    preconnection = Preconnection(
        local=LocalEndpoint(0, address=HOST),
        properties=properties or datagrams(),
        security=security or offering(),
    )
    async with preconnection.listen() as listener:
        yield listener


@asynccontextmanager
async def connected(
    preconnection: Preconnection, listener: Listener
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Both ends of a Connection, aborted at the end of the block."""
    client = preconnection.initiate(timeout=TIME)
    try:
        await client
        server = await asyncio.wait_for(listener.accept(), TIME)
        try:
            yield client, server
        finally:
            server.abort()
    finally:
        client.abort()
        await turns()


@asynccontextmanager
async def pair(
    client_security: SecurityParameters | None = None,
    server_security: SecurityParameters | None = None,
    properties: TransportProperties | None = None,
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Both ends of a Connection over loopback."""
    async with (
        listening(server_security, properties) as listener,
        connected(going_to(port_of(listener), client_security, properties), listener) as both,
    ):
        yield both


async def refusal(preconnection: Preconnection) -> EstablishmentError:
    """How establishing fails."""
    connection = preconnection.initiate(timeout=TIME)
    with pytest.raises(EstablishmentError) as caught:
        await connection
    await turns()
    return caught.value


def dtls_of(listener: Listener) -> Any:
    """What DTLS keeps of the Listener's port."""
    assert listener._binding is not None
    listening: Any = listener._binding.places[0].listener
    return listening.shared


Decide = Callable[[bytes, bool, int], Iterable[bytes]]


def forward(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
    """What comes goes on."""
    return (datagram,)


class Relay:
    """Between one client and a server: asks, for each datagram, which datagrams go on in its place."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.seen: dict[bool, list[bytes]] = {True: [], False: []}
        self.client: tuple[str, int] | None = None
        self._front: asyncio.DatagramTransport
        self._back: asyncio.DatagramTransport

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int, decide: Decide = forward) -> AsyncIterator[Relay]:
        """A relay to this port."""
        relay = cls(decide)
        loop = asyncio.get_running_loop()
        relay._front, _ = await loop.create_datagram_endpoint(
            lambda: _Side(relay, True), local_addr=(HOST, 0)
        )
        relay._back, _ = await loop.create_datagram_endpoint(
            lambda: _Side(relay, False), remote_addr=(HOST, port)
        )
        try:
            yield relay
        finally:
            relay.stop()
            await turns()

    @property
    def port(self) -> int:
        port: int = self._front.get_extra_info("sockname")[1]
        return port

    def stop(self) -> None:
        """The port is closed from now on."""
        self._front.close()
        self._back.close()

    def came(self, datagram: bytes, from_client: bool) -> None:
        seen = self.seen[from_client]
        seen.append(datagram)
        for each in self.decide(datagram, from_client, len(seen) - 1):
            self.inject(each, from_client)

    def inject(self, datagram: bytes, from_client: bool) -> None:
        """Send a datagram as if it came from one side."""
        if from_client:
            self._back.sendto(datagram)
        elif self.client is not None:
            self._front.sendto(datagram, self.client)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, relay: Relay, front: bool) -> None:
        self._relay = relay
        self._front = front

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._front:
            self._relay.client = address
        self._relay.came(data, self._front)
