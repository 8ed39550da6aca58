"""A protocol stack from another package, found by its entry point: streams inside the process.

It has what none of ours has together: streams beside streams, which either side opens, and Messages in the first
flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.loopback import BOTH_LOOPS, PLAIN, listening_on, port_of, until
from neatpy import (
    CloneError,
    Connection,
    ConnectionState,
    EstablishmentError,
    Listener,
    Preconnection,
    PropertyError,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    TransportProperties,
)
from neatpy.stacks.registry import registry

pytestmark = BOTH_LOOPS


@pytest.fixture(autouse=True)
def pigeon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution is installed that announces the stack."""
    distribution = tmp_path / "pigeon-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[neatpy.stacks]\npigeon = api.pigeon_stack\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.forget()
    yield
    monkeypatch.undo()
    registry.forget()


def wanted(**properties: object) -> TransportProperties:
    """Only the toy has all three."""
    return TransportProperties(
        multistreaming="require", preserve_msg_boundaries="require", zero_rtt_msg="require", **properties
    )


@asynccontextmanager
async def flown(**properties: object) -> AsyncIterator[tuple[Connection, Connection, Listener]]:
    """Client, server and the Listener that accepted."""
    async with listening_on(wanted(**properties)).listen() as listener:
        client = await Preconnection(
            remote=RemoteEndpoint("127.0.0.1", port_of(listener)),
            properties=wanted(**properties),
            security=PLAIN,
        ).initiate(timeout=5)
        server = await listener.accept()
        yield client, server, listener
        client.abort_group()
        server.abort_group()


async def test_an_entry_point_adds_a_stack_that_is_selected_by_its_features() -> None:
    async with flown() as (client, server, listener):
        assert client.stack == server.stack == "pigeon"
        assert listener.stacks == ("pigeon",)
        client.send(b"coo")
        client.send(b"coo again")
        assert [bytes(await server.receive()), bytes(await server.receive())] == [b"coo", b"coo again"]
        assert client.get_properties()["multistreaming"] is True


async def test_without_the_entry_point_the_stack_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    registry.forget()
    assert "pigeon" not in registry.stacks()


async def test_a_clone_is_a_stream_that_arrives_at_the_listener() -> None:
    async with flown() as (client, server, listener):
        clone = await client.clone()
        accepted = await asyncio.wait_for(listener.accept(), 1)
        assert client.grouped_connections == clone.grouped_connections == {client, clone}
        assert server.grouped_connections == accepted.grouped_connections == {server, accepted}
        clone.send(b"on the second stream")
        assert bytes(await accepted.receive()) == b"on the second stream"
        assert clone.remote_endpoint is not None
        assert client.remote_endpoint is not None
        assert clone.remote_endpoint.port == client.remote_endpoint.port


async def test_an_accepted_connection_can_be_cloned_towards_its_initiator() -> None:
    async with flown() as (client, server, _):
        arrived: list[tuple[Connection, Connection]] = []
        client.on_connection_received = lambda old, new: arrived.append((old, new))
        clone = await server.clone()
        await until(lambda: arrived)
        assert arrived[0][0] is client
        new = arrived[0][1]
        assert new.state is ConnectionState.ESTABLISHED
        assert client.grouped_connections == {client, new}
        clone.send(b"hello")
        assert bytes(await new.receive()) == b"hello"
        new.send(b"and back")
        assert bytes(await clone.receive()) == b"and back"


async def test_a_stream_that_nobody_wants_is_refused() -> None:
    async with flown() as (client, server, _):
        clone = await server.clone()
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(clone.receive(), 1)
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        assert client.grouped_connections == {client}
        server.send(b"the first stream lives")
        assert bytes(await client.receive()) == b"the first stream lives"


async def test_streams_are_refused_after_the_listener_has_stopped() -> None:
    async with flown() as (client, server, listener):
        await listener.stop()
        clone = await client.clone()
        with pytest.raises(ReceiveError):
            await asyncio.wait_for(clone.receive(), 1)
        client.send(b"accepted ones live on")
        assert bytes(await server.receive()) == b"accepted ones live on"


async def test_the_group_connection_limit_bounds_the_streams_a_peer_opens() -> None:
    async with flown(group_conn_limit=1) as (client, server, listener):
        first = await client.clone()
        second = await client.clone()
        accepted = [await asyncio.wait_for(listener.accept(), 1)]
        with pytest.raises(ReceiveError):
            await asyncio.wait_for(second.receive(), 1)
        first.send(b"x")
        assert bytes(await accepted[0].receive()) == b"x"
        assert len(server.grouped_connections) == 2


async def test_a_stack_that_refuses_another_stream_is_a_clone_error() -> None:
    from api import pigeon_stack

    async with flown() as (client, _server, _):
        errors: list[tuple[Connection, CloneError]] = []
        client.on_clone_error = lambda who, error: errors.append((who, error))
        client.set_property("group_conn_limit", 7)
        pigeon_stack.refuse_streams(client.stack, True)
        try:
            with pytest.raises(CloneError) as caught:
                await client.clone()
        finally:
            pigeon_stack.refuse_streams(client.stack, False)
        assert caught.value.reason is Reason.PROTOCOL_FAILED
        await until(lambda: errors)
        assert errors == [(client, caught.value)]
        assert client.state is ConnectionState.ESTABLISHED
        assert client.grouped_connections == {client}


async def test_close_group_closes_every_stream() -> None:
    async with flown() as (client, _server, _):
        clones = [await client.clone() for _ in range(3)]
        await client.close_group()
        assert all(one.state is ConnectionState.CLOSED for one in (client, *clones))


async def test_abort_group_aborts_every_stream() -> None:
    async with flown() as (client, server, listener):
        clone = await client.clone()
        accepted = await listener.accept()
        clone.abort_group()
        assert client.state is clone.state is ConnectionState.CLOSED
        for one in (server, accepted):
            with pytest.raises(ReceiveError) as caught:
                await one.receive()
            assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_connection_properties_are_entangled_over_streams_and_one_that_cannot_follow_leaves() -> None:
    async with flown() as (client, _server, _):
        clone = await client.clone()
        client.set_property("conn_timeout", 12)
        assert clone.get_properties()["conn_timeout"] == 12
        clone.set_property("conn_priority", 3)
        assert client.get_properties()["conn_priority"] == 100
        with pytest.raises(PropertyError):
            client.set_property("conn_timeout", 13)  # the toy's unlucky number
        assert client.get_properties()["conn_timeout"] == 12


async def test_a_clone_while_establishing_follows_its_parent() -> None:
    async with listening_on(wanted()).listen() as listener:
        parent = Preconnection(
            remote=RemoteEndpoint("127.0.0.1", port_of(listener)), properties=wanted(), security=PLAIN
        ).initiate()
        clone = parent.clone()
        clone.send(b"from the clone")
        assert clone.state is ConnectionState.ESTABLISHING
        await clone
        assert parent.state is ConnectionState.ESTABLISHED
        accepted = [await listener.accept(), await listener.accept()]
        assert bytes(await accepted[1].receive()) == b"from the clone"
        parent.abort_group()


async def test_a_stream_ends_alone() -> None:
    async with flown() as (client, server, listener):
        clone = await client.clone()
        accepted = await listener.accept()
        clone.send(b"end", final=True)
        assert [bytes(message) async for message in accepted] == [b"end"]
        await clone.close()
        assert client.grouped_connections == {client}
        client.send(b"on")
        assert bytes(await server.receive()) == b"on"


async def test_whatever_a_stack_raises_when_it_is_to_listen_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def listen(*_: object) -> object:
        raise LookupError("no loft")

    monkeypatch.setattr(type(registry.stacks()["pigeon"]), "listen", listen)
    listener = listening_on(wanted()).listen()
    with pytest.raises(EstablishmentError, match="no loft") as caught:
        await asyncio.wait_for(_listening(listener), 5)
    assert isinstance(caught.value.__cause__, LookupError)


async def _listening(listener: Listener) -> Listener:
    return await listener
