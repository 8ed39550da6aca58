"""Preconnections to peers on loopback, and what tests ask of the errors that come of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from api.loopback import HOST, stream, turns
from interop.identities import NAME
from neatpy import (
    Connection,
    ConnectionState,
    EstablishmentError,
    Framer,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
)

VERSIONS = ["tls_1_2", "tls_1_3"]
versions = pytest.mark.parametrize("version", VERSIONS)
families = pytest.mark.parametrize("host", [HOST, "::1"], ids=["v4", "v6"])
OPENSSL_VERSION = {"tls_1_2": "-tls1_2", "tls_1_3": "-tls1_3"}


def securely_to(
    port: int, security: SecurityParameters, *, name: str | None = NAME, framers: Iterable[Framer] = ()
) -> Preconnection:
    """To a port of 127.0.0.1 by TLS, verifying this name (None: the address)."""
    remote = RemoteEndpoint(name, port, address=HOST) if name else RemoteEndpoint(HOST, port)
    return Preconnection(remote=remote, properties=stream(), security=security, framers=framers)


def securely_on(
    security: SecurityParameters, *, host: str = HOST, port: int = 0, framers: Iterable[Framer] = ()
) -> Preconnection:
    """A Listener's on loopback by TLS."""
    return Preconnection(
        local=LocalEndpoint(port, address=host), properties=stream(), security=security, framers=framers
    )


@asynccontextmanager
async def connected(preconnection: Preconnection) -> AsyncIterator[Connection]:
    """A Connection, aborted at the end of the block."""
    connection = preconnection.initiate(timeout=5)
    try:
        yield await connection
    finally:
        connection.abort()
        await turns()


async def refusal(preconnection: Preconnection, *, within: float = 1.0) -> EstablishmentError:
    """How establishing fails, which it does well before its timeout."""
    connection = preconnection.initiate(timeout=10)
    began = time.monotonic()
    with pytest.raises(EstablishmentError) as caught:
        await connection
    assert time.monotonic() - began < within
    assert connection.state is ConnectionState.CLOSED
    await turns()
    return caught.value


async def received(connection: Connection, count: int) -> bytes:
    """Exactly so many bytes of a stream."""
    async with asyncio.timeout(5):
        return (await connection.receive(min_incomplete_length=count, max_length=count)).data
