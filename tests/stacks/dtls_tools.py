"""What the DTLS tests share: Connections by the public API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api import loopback
from api.loopback import HOST, port_of, turns
from api.relay import Relay as Relay
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
