"""Connection Groups over transport connections of their own (RFC 9622 section 7.4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.loopback import (
    BOTH_LOOPS,
    PlainServer,
    datagrams,
    framed,
    going_to,
    length_framed,
    listening_on,
    pair,
    port_of,
    stream,
    to_plain_peer,
    turns,
    until,
)
from neatpy import (
    CloneError,
    Connection,
    ConnectionState,
    EstablishmentError,
    PropertyError,
    Reason,
    SendError,
)
from neatpy.framers import LengthPrefixFramer

pytestmark = BOTH_LOOPS


async def test_a_connection_alone_is_a_group_of_one() -> None:
    async with to_plain_peer() as (connection, _):
        assert connection.grouped_connections == frozenset({connection})


async def test_a_clone_over_tcp_has_a_transport_connection_of_its_own() -> None:
    with PlainServer() as server:
        connection = await going_to(server.port).initiate()
        first = await server.accept()
        clone = connection.clone()
        assert clone.state is ConnectionState.ESTABLISHING
        await clone
        second = await server.accept()
        assert connection.grouped_connections == clone.grouped_connections == frozenset({connection, clone})
        connection.send(b"1")
        clone.send(b"2")
        assert (await first.receive(1), await second.receive(1)) == (b"1", b"2")
        connection.abort_group()


async def test_a_clone_has_the_framers_of_its_parent_or_the_one_given() -> None:
    with PlainServer() as server:
        connection = await going_to(server.port, framers=length_framed()).initiate()
        await server.accept()
        same, other = connection.clone(), connection.clone(LengthPrefixFramer(1))
        await same
        await other
        peers = [await server.accept(), await server.accept()]
        same.send(b"x")
        other.send(b"x")
        received = {await peers[0].receive(2), await peers[1].receive(2)}
        assert received == {framed(b"x")[:2], b"\1x"}
        connection.abort_group()


async def test_a_clone_wants_a_framer() -> None:
    no_framer: Any = object()
    async with to_plain_peer() as (connection, _):
        with pytest.raises(TypeError, match="a framer is an object of a subclass of Framer"):
            connection.clone(no_framer)
        assert connection.grouped_connections == {connection}


async def test_connection_properties_are_entangled_but_conn_priority_is_not() -> None:
    async with pair() as (connection, _):
        connection.set_property("conn_timeout", 20)
        clone = await connection.clone(conn_priority=7)
        assert clone.get_properties()["conn_timeout"] == 20
        assert clone.get_properties()["conn_priority"] == 7
        assert connection.get_properties()["conn_priority"] == 100
        clone.set_property("conn_timeout", 30)
        assert connection.get_properties()["conn_timeout"] == 30
        connection.set_property("conn_priority", 3)
        assert clone.get_properties()["conn_priority"] == 7
        connection.abort_group()


async def test_message_defaults_are_each_connections_own() -> None:
    async with pair() as (connection, _):
        clone = await connection.clone()
        connection.set_property("msg_priority", 5)
        assert clone.get_properties()["msg_priority"] == 100
        connection.abort_group()


@pytest.mark.parametrize("wrong", [{"reliability": "require"}, {"nonsense": 1}, {"conn_timeout": "soon"}])
async def test_clone_refuses_what_is_no_connection_property(wrong: dict[str, Any]) -> None:
    async with pair() as (connection, _):
        with pytest.raises((PropertyError, TypeError)):
            connection.clone(**wrong)
        assert connection.grouped_connections == {connection}


async def test_a_clone_while_establishing_waits_for_its_parent() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        clone = connection.clone()
        clone.send(b"second")
        await clone
        assert connection.state is ConnectionState.ESTABLISHED
        await server.accept()
        assert await (await server.accept()).receive(6) == b"second"
        connection.abort_group()


async def test_a_clone_of_what_cannot_be_established_is_a_clone_error(refused_port: int) -> None:
    connection = going_to(refused_port).initiate()
    errors: list[tuple[Connection, Exception]] = []
    connection.on_clone_error = lambda who, error: errors.append((who, error))
    connection.on_establishment_error = lambda who, error: errors.append((who, error))
    clone = connection.clone()
    sent = clone.send(b"x")
    with pytest.raises(CloneError) as caught:
        await clone
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    with pytest.raises(SendError):
        await sent
    await turns()
    assert errors[0] == (connection, caught.value)
    assert [type(error) for _, error in errors] == [CloneError, EstablishmentError]


async def test_an_accepted_tcp_connection_cannot_be_cloned() -> None:
    async with pair() as (_, server):
        errors: list[object] = []
        server.on_clone_error = lambda who, error: errors.append((who, error))
        with pytest.raises(CloneError) as caught:
            await server.clone()
        assert caught.value.reason is Reason.NOT_CLONEABLE
        await until(lambda: errors)
        assert errors == [(server, caught.value)]
        assert server.grouped_connections == {server}
        assert server.state is ConnectionState.ESTABLISHED


async def test_an_accepted_tcp_connection_cannot_be_cloned_while_its_peer_can() -> None:
    async with listening_on().listen() as listener:
        client = await going_to(port_of(listener)).initiate()
        await listener.accept()
        clone = await client.clone()
        second = await listener.accept()
        assert second.grouped_connections == {second}  # nothing on the wire says that they belong together
        with pytest.raises(CloneError):
            await second.clone()
        second.abort()
        client.abort_group()
        assert clone.state is ConnectionState.CLOSED


@pytest.mark.parametrize(
    ("end", "reason"), [("abort", Reason.LOCAL_ABORT), ("close", Reason.CONNECTION_CLOSED)]
)
async def test_a_clone_that_is_ended_before_it_is_ready_is_a_clone_error(end: str, reason: Reason) -> None:
    async with to_plain_peer() as (connection, _):
        clone = connection.clone()
        heard: list[object] = []
        connection.on_clone_error = lambda who, error: heard.append((who, error))
        clone.on_establishment_error = lambda who, error: heard.append((who, error))
        getattr(clone, end)()
        with pytest.raises(CloneError) as caught:
            await clone
        await turns()
        assert caught.value.reason is reason
        assert heard == [(connection, caught.value), (clone, caught.value)]
        assert connection.grouped_connections == frozenset({connection})


async def test_a_connection_with_clones_that_fails_has_an_establishment_error() -> None:
    connection = going_to(9).initiate()
    clone = connection.clone()
    connection.abort()
    with pytest.raises(EstablishmentError):
        await connection
    with pytest.raises(CloneError):
        await clone


async def test_a_clone_of_a_closed_connection_is_a_clone_error() -> None:
    async with to_plain_peer() as (connection, _):
        await connection.close()
        with pytest.raises(CloneError) as caught:
            await connection.clone()
        assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_a_clone_that_is_refused_leaves_its_parent_standing() -> None:
    async with listening_on().listen() as listener:
        connection = await going_to(port_of(listener)).initiate()
        server = await listener.accept()
        await listener.stop()
        with pytest.raises(CloneError) as caught:
            await connection.clone()
        assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
        assert connection.grouped_connections == {connection}
        connection.send(b"fine")
        assert bytes(await server.receive(min_incomplete_length=4)) == b"fine"
        connection.abort()
        server.abort()


async def test_close_group_delivers_for_all_and_ends_all() -> None:
    with PlainServer() as server:
        connection = await going_to(server.port).initiate()
        clones = [await connection.clone() for _ in range(3)]
        peers = [await server.accept() for _ in range(4)]
        for member in (connection, *clones):
            member.send(b"bye")
        closed = clones[0].close_group()
        assert [await peer.receive_to_end() for peer in peers] == [b"bye"] * 4
        await closed
        assert all(one.state is ConnectionState.CLOSED for one in (connection, *clones))


async def test_close_group_is_effective_without_being_awaited_also_while_establishing() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        clone = connection.clone()
        connection.close_group()
        await until(lambda: connection.state is clone.state is ConnectionState.CLOSED)


async def test_abort_group_resets_all() -> None:
    with PlainServer() as server:
        connection = await going_to(server.port).initiate()
        clone = await connection.clone()
        peers = [await server.accept(), await server.accept()]
        clone.abort_group()
        assert connection.state is clone.state is ConnectionState.CLOSED
        for peer in peers:
            with pytest.raises(ConnectionResetError):
                await peer.receive_to_end()


async def test_closing_one_leaves_the_others() -> None:
    with PlainServer() as server:
        connection = await going_to(server.port).initiate()
        clone = await connection.clone()
        await connection.close()
        assert clone.grouped_connections == {clone}
        assert clone.state is ConnectionState.ESTABLISHED
        clone.abort()
        await turns()


async def test_a_clone_of_udp_is_another_flow_to_the_same_peer() -> None:
    async with pair(datagrams()) as (client, server):
        clone = await client.clone()
        assert clone.local_endpoint is not None
        assert client.local_endpoint is not None
        assert clone.local_endpoint.port != client.local_endpoint.port
        assert _peer(clone) == _peer(client)
        server.abort()
        client.abort_group()


async def test_cloning_many_at_once() -> None:
    with PlainServer() as server:
        connection = going_to(server.port, stream()).initiate()
        clones = [connection.clone() for _ in range(20)]
        for clone in clones:
            await asyncio.wait_for(_ready(clone), 2)
        assert len(connection.grouped_connections) == 21
        connection.abort_group()


async def _ready(connection: Connection) -> None:
    await connection


def _peer(connection: Connection) -> object:
    assert connection.remote_endpoint is not None
    return connection.remote_endpoint.port
