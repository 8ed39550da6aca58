"""Streams of QUIC connections that do not come as expected: of the other kind, after their end, without any data, or
when nobody wants them. None of them becomes a Connection that should not be, and none ends one that should stay."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("aioquic")

from aioquic.quic.connection import QuicConnection
from quic_wire import foreign, payload, pumped, stranger, talk

from api.conftest import complaints
from api.loopback import HOST, MIB, port_of, turns, until
from api.quic_loopback import (
    TIME,
    connected,
    everything_is_given_back,
    exactly,
    flow_of,
    going_to,
    listening,
    pair,
    peer_of,
    streams,
    to_the_end,
    transport_of,
)
from neatpy import Connection, ConnectionState, Direction, Listener, ReceiveError, SendError

__all__ = ["complaints", "everything_is_given_back"]
pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("everything_is_given_back"),
]


@asynccontextmanager
async def meeting_a_foreign_client() -> AsyncIterator[tuple[Listener, QuicConnection, socket.socket]]:
    """A Listener, and a client of aioquic's own that has not sent anything yet."""
    async with listening() as listener, stranger(listener) as sock:
        client = foreign()
        client.connect((HOST, 0), time.monotonic())
        yield listener, client, sock
        client.close()
        await pumped(client, sock, lambda: True)


async def accepted(listener: Listener, client: QuicConnection, sock: socket.socket) -> Connection:
    """What the Listener makes of this client."""
    accepting = asyncio.ensure_future(listener.accept())
    await pumped(client, sock, accepting.done)
    return await accepting


# Streams of the other kind


async def test_a_client_that_only_sends_is_one_connection_at_an_ordinary_listener() -> None:
    one_way = streams(direction=Direction.UNIDIRECTIONAL_SEND)
    async with listening() as listener:
        arrived: list[Connection] = []
        listener.on_connection_received = lambda _, connection: arrived.append(connection)
        client = await going_to(port_of(listener), properties=one_way).initiate(timeout=TIME)
        await client.send(b"one way")
        await until(lambda: arrived)
        (server,) = arrived
        assert await exactly(server, 7) == b"one way"
        assert flow_of(server).stream == 2
        with pytest.raises(SendError, match="only the peer sends"):
            await server.send(b"back")
        await client.close()
        assert await to_the_end(server) == b""
        assert arrived == [server]
        server.abort()


async def test_a_client_that_begins_with_a_unidirectional_stream_is_one_connection() -> None:
    async with meeting_a_foreign_client() as (listener, client, sock):
        client.send_stream_data(2, b"one way")  # together with the end of the handshake
        server = await accepted(listener, client, sock)
        assert await exactly(server, 7) == b"one way"
        assert server.grouped_connections == {server}
        server.abort()


async def test_a_client_that_opens_a_unidirectional_stream_first_and_late_is_one_connection() -> None:
    async with meeting_a_foreign_client() as (listener, client, sock):
        server = await accepted(listener, client, sock)
        greeting = server.send(b"welcome")  # on a stream that the client will never open
        client.send_stream_data(2, b"one way")
        reading = asyncio.ensure_future(exactly(server, 7))
        await pumped(client, sock, reading.done)
        assert await reading == b"one way"
        assert server.grouped_connections == {server}
        with pytest.raises(SendError, match="only the peer sends"):
            await greeting
        server.abort()


async def test_a_client_with_a_stream_of_either_kind_is_two_connections_in_one_group() -> None:
    async with meeting_a_foreign_client() as (listener, client, sock):
        client.send_stream_data(2, b"one way")
        first = await accepted(listener, client, sock)
        client.send_stream_data(0, b"both ways")
        second = await accepted(listener, client, sock)
        assert first.grouped_connections == second.grouped_connections == {first, second}
        assert await exactly(first, 7) == b"one way"
        assert await exactly(second, 9) == b"both ways"
        answered = second.send(b"answer")
        await pumped(client, sock, answered.done)
        first.abort_group()


# Streams after their end


async def test_what_is_in_flight_on_an_aborted_stream_makes_no_new_connection() -> None:
    async with listening() as listener, connected(going_to(port_of(listener)), listener) as (client, server):
        clone = await client.clone()
        peer = await peer_of(clone, server)
        await listener.accept()
        broken: list[BaseException] = []
        clone.on_connection_error = lambda _, error: broken.append(error)
        for _ in range(40):
            clone.send(payload(100_000))
        receiver = transport_of(peer).engine._table[4].receiver
        await until(lambda: receiver.highest_offset > 50_000)
        strays: list[Connection] = []
        listener.on_connection_received = lambda _, connection: strays.append(connection)
        peer.abort()
        await until(lambda: broken)
        await talk(client, server)  # what was in flight has come by now
        assert strays == []
        assert server.grouped_connections == {server}


# Streams that nobody wants


async def test_a_stream_for_a_client_that_is_just_closing_leaves_the_connection_alone() -> None:
    async with pair() as (client, server):
        client.send(b"request")
        assert await exactly(server, 7) == b"request"
        await asyncio.wait_for(client.close(), TIME)
        broken: list[BaseException] = []
        server.on_connection_error = lambda _, error: broken.append(error)
        answer = server.send(payload(2 * MIB))
        clone = await server.clone()
        clone.send(b"by the way")
        with pytest.raises(ReceiveError):
            await asyncio.wait_for(clone.receive(), TIME)
        await asyncio.wait_for(answer, TIME)
        await turns(20)
        assert server.state is ConnectionState.ESTABLISHED
        assert broken == []


# Streams without any data


async def test_streams_that_are_reset_before_their_first_byte_are_forgotten() -> None:
    async with meeting_a_foreign_client() as (listener, client, sock):
        client.send_stream_data(0, b"x")
        server = await accepted(listener, client, sock)
        for stream in range(4, 404, 4):
            client.reset_stream(stream, 1)
        engine = transport_of(server).engine
        await pumped(client, sock, lambda: engine._local_max_streams_bidi.used == 101)
        await pumped(client, sock, lambda: len(engine._table) == 1)
        assert server.grouped_connections == {server}
        server.abort()
