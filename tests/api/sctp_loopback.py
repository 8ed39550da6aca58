"""SCTP on loopback by the public API: Listeners, connected pairs, and a look at what carries them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.loopback import HOST, PLAIN, messages, until
from neatpy import Connection, Framer, Listener, LocalEndpoint, Message, Preconnection, RemoteEndpoint
from neatpy.stacks._sctp.engine import ENGINE


@pytest.fixture
async def everything_is_given_back() -> AsyncIterator[None]:
    """No association and no path stays, though those that were closed answer for a moment."""
    yield
    await until(lambda: ENGINE.counts() == (0, 0))


@asynccontextmanager
async def listening(framers: Iterable[Framer] = (), **properties: Any) -> AsyncIterator[Listener]:
    """A Listener for sctp alone."""
    here = LocalEndpoint(0, address=HOST, protocol="sctp")
    async with Preconnection(
        local=here, properties=messages(**properties), security=PLAIN, framers=framers
    ).listen() as listener:
        yield listener


def going_to(port: int, framers: Iterable[Framer] = (), **properties: Any) -> Preconnection:
    """A Preconnection to it."""
    there = RemoteEndpoint(HOST, port, protocol="sctp")
    return Preconnection(remote=there, properties=messages(**properties), security=PLAIN, framers=framers)


@asynccontextmanager
async def pair(
    framers: Iterable[Framer] = (), **properties: Any
) -> AsyncIterator[tuple[Connection, Connection]]:
    """A client with these properties and its server."""
    async with listening(framers) as listener:
        port = listener.local_endpoints[0].port
        assert port
        client = await asyncio.wait_for(ready(going_to(port, framers, **properties).initiate()), 5)
        server = await asyncio.wait_for(listener.accept(), 5)
        try:
            yield client, server
        finally:
            client.abort_group()
            server.abort_group()


async def ready(connection: Connection) -> Connection:
    """This Connection when it is Ready."""
    return await connection


async def receive(connection: Connection) -> Message:
    """The next Message, which comes soon."""
    return await asyncio.wait_for(connection.receive(), 10)


async def read_all(connection: Connection, take: Callable[[Message], object] = bool) -> None:
    """Receive to the end, and give it to somebody."""
    async for message in connection:
        take(message)


async def next_peer(server: Connection) -> Connection:
    """The Connection that the peer of this one has opened beside it."""
    await until(lambda: len(server.grouped_connections) > 1)
    return next(iter(server.grouped_connections - {server}))


def streams_of(connection: Connection) -> Any:
    """The streams of a Connection's association."""
    return connection._path.flow._streams  # type: ignore[union-attr]
