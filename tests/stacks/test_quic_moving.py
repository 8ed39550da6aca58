"""Clients of QUIC connections that go on from another place of their own."""

from __future__ import annotations

import asyncio
import errno

import pytest

pytest.importorskip("aioquic")

from quic_wire import talk

from api.conftest import complaints
from api.loopback import HOST, until
from api.quic_loopback import (
    TIME,
    everything_is_given_back,
    flow_of,
    open_sockets,
    pair,
    to_the_end,
    transport_of,
)
from neatpy import Connection, ConnectionState, LocalEndpoint
from neatpy.stacks._quic.carried import NO_ERROR

__all__ = ["complaints", "everything_is_given_back"]
pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("everything_is_given_back"),
]

SECOND, THIRD = "127.0.0.2", "127.0.0.3"
NOWHERE = "192.0.2.77"
"""No address of this host."""


def at(connection: Connection) -> str:
    assert connection.local_endpoint is not None
    return str(connection.local_endpoint.address)


def move(connection: Connection) -> None:
    connection.add_local(LocalEndpoint(address=SECOND))
    connection.remove_local(LocalEndpoint(address=HOST))


def lose_the_interface(connection: Connection) -> None:
    transport_of(connection).failed(OSError(errno.ENETUNREACH, "the interface is lost"))


async def test_a_place_that_cannot_be_used_is_passed_over_for_the_next() -> None:
    async with pair() as (client, server):
        move(client)
        client.add_local(LocalEndpoint(address=NOWHERE))
        client.add_local(LocalEndpoint(address=THIRD))
        lose_the_interface(client)
        assert at(client) == THIRD
        await talk(client, server)
        lose_the_interface(client)
        assert at(client) == SECOND
        await talk(client, server)


async def test_a_connection_stays_where_it_is_when_no_other_place_can_be_used() -> None:
    async with pair() as (client, server):
        move(client)
        client.add_local(LocalEndpoint(address=NOWHERE))
        lose_the_interface(client)
        assert at(client) == SECOND
        await talk(client, server)


async def test_moving_what_the_peer_has_closed_opens_no_socket() -> None:
    async with pair() as (client, server):
        await talk(client, server)
        server.send(b"bye", final=True)
        assert await to_the_end(client) == b"bye"
        transport_of(server).end(NO_ERROR)
        await until(lambda: flow_of(client)._gone)
        assert client.state is ConnectionState.ESTABLISHED, "nothing of it was lost"
        before = open_sockets()
        move(client)
        assert open_sockets() <= before
        await asyncio.wait_for(client.close(), TIME)
