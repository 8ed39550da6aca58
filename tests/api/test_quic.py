"""Connections that are streams of a QUIC connection, as an application sees them: data both ways, and their ends."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from api.loopback import BOTH_LOOPS, MIB, length_framed, port_of, until, until_still
from api.quic_loopback import (
    TIME,
    connected,
    everything_is_given_back,
    exactly,
    flow_of,
    going_to,
    listening,
    open_sockets,
    pair,
    payload,
    peer_of,
    streams,
    to_the_end,
    transport_of,
)
from api.relay import Relay
from neatpy import (
    Connection,
    ConnectionError,
    ConnectionState,
    Direction,
    Expired,
    Reason,
    ReceiveError,
    SendError,
    TransportServicesError,
)
from neatpy.stacks._quic import flow as quic_flow
from neatpy.stacks._quic.paths import OwnPath
from neatpy.system.datagram_socket import _ForgettableSocket

pytest.importorskip("aioquic")
__all__ = ["everything_is_given_back"]
pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("everything_is_given_back")]
SIZES = (1, 2, 63, 64, 1200, 16_384, 65_537, 1_000_000, 5 * MIB)


def failure_of(connection: Connection) -> asyncio.Future[ConnectionError]:
    """How it breaks, from now on."""
    failed: asyncio.Future[ConnectionError] = asyncio.get_running_loop().create_future()
    connection.on_connection_error = lambda _, error: failed.set_result(error)
    return asyncio.ensure_future(asyncio.wait_for(failed, TIME))


async def whole(connection: Connection) -> bytes:
    """The next Message, even if it is so large that it comes in parts."""
    parts: list[bytes] = []
    while True:
        message = await asyncio.wait_for(connection.receive(), TIME)
        parts.append(message.data)
        if message.end_of_message:
            return b"".join(parts)


# Data


async def test_framed_messages_of_any_size_arrive_whole_both_ways() -> None:
    async with pair(framers=length_framed()) as (client, server):
        assert client.stack == server.stack == "quic"
        for sender, receiver in ((client, server), (server, client)):
            for size in SIZES:
                sender.send(payload(size))
            for size in SIZES:
                received = hashlib.sha256(await whole(receiver))
                assert received.digest() == hashlib.sha256(payload(size)).digest()


async def test_a_raw_stream_carries_bytes_both_ways_at_once() -> None:
    async with pair() as (client, server):
        sent = {client: payload(3 * MIB), server: payload(3 * MIB + 1)}
        for connection, data in sent.items():
            for start in range(0, len(data), 100_000):
                connection.send(data[start : start + 100_000])
        there, back = await asyncio.gather(
            exactly(server, len(sent[client])), exactly(client, len(sent[server]))
        )
        assert there == sent[client]
        assert back == sent[server]


async def test_many_small_messages_arrive_in_order() -> None:
    async with pair(framers=length_framed()) as (client, server):
        for number in range(2000):
            client.send(b"%d" % number)
            server.send(b"-%d" % number)
        for number in range(2000):
            assert bytes(await server.receive()) == b"%d" % number
            assert bytes(await client.receive()) == b"-%d" % number


async def test_requests_and_responses_alternate() -> None:
    async with pair() as (client, server):
        for number in range(100):
            await client.send(b"%064d" % number)
            assert await exactly(server, 64) == b"%064d" % number
            await server.send(b"%032d" % number)
            assert await exactly(client, 32) == b"%032d" % number


async def test_the_server_may_speak_first() -> None:
    async with listening() as listener:
        listener.on_connection_received = lambda _, connection: connection.send(b"welcome")
        client = await going_to(port_of(listener)).initiate(timeout=TIME)
        assert await exactly(client, 7) == b"welcome"
        client.abort()


async def test_what_is_sent_before_ready_arrives_first() -> None:
    async with listening() as listener:
        client = going_to(port_of(listener)).initiate(timeout=TIME)
        client.send(b"early ")
        await client
        client.send(b"late")
        server = await listener.accept()
        assert await exactly(server, 10) == b"early late"
        client.abort()
        server.abort()


async def test_buffers_may_be_changed_after_send_has_returned() -> None:
    async with pair() as (client, server):
        buffer = bytearray(payload(MIB))
        client.send(buffer)
        buffer[:] = bytes(len(buffer))
        assert await exactly(server, MIB) == payload(MIB)


async def test_a_message_beyond_its_lifetime_expires_and_the_others_arrive() -> None:
    async with pair(framers=length_framed()) as (client, server):
        pausing = asyncio.Event()
        waiting = [client.send(bytes(MIB)) for _ in range(8)]
        late = client.send(b"late", msg_lifetime=0.05)
        with pytest.raises(Expired):
            await asyncio.wait_for(late, TIME)
        pausing.set()
        for _ in waiting:
            assert len(await server.receive()) == MIB
        await asyncio.gather(*waiting)
        client.send(b"after")
        assert bytes(await server.receive()) == b"after"


# Final and close


async def test_after_final_the_peer_sees_the_end_and_can_still_send() -> None:
    async with pair() as (client, server):
        await client.send(b"question", final=True)
        assert await to_the_end(server) == b"question"
        server.send(b"first ")
        await server.send(b"answer", final=True)
        assert await to_the_end(client) == b"first answer"
        with pytest.raises(SendError):
            await client.send(b"more")
        await asyncio.wait_for(client.close(), TIME)
        await asyncio.wait_for(server.close(), TIME)


async def test_the_server_may_finish_first() -> None:
    async with pair() as (client, server):
        await server.send(b"", final=True)
        assert await to_the_end(client) == b""
        await client.send(payload(MIB), final=True)
        assert await to_the_end(server) == payload(MIB)


async def test_an_end_without_any_data_is_seen() -> None:
    async with pair() as (client, server):
        client.send(b"", final=True)
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(server.receive(), TIME)
        assert caught.value.reason is Reason.CONNECTION_CLOSED


@pytest.mark.parametrize("side", ["client", "server"])
async def test_close_delivers_everything_and_both_sides_are_closed(side: str) -> None:
    async with pair() as (client, server):
        ours, theirs = (client, server) if side == "client" else (server, client)
        closed: list[Connection] = []
        theirs.on_closed = closed.append
        ours.send(payload(2 * MIB))
        reading = asyncio.ensure_future(to_the_end(theirs))
        await asyncio.wait_for(ours.close(), TIME)
        assert await reading == payload(2 * MIB)
        await asyncio.wait_for(theirs.close(), TIME)
        await until(lambda: closed == [theirs])


async def test_close_waits_for_what_a_slow_peer_has_yet_to_read() -> None:
    async with pair() as (client, server):
        client.send(payload(3 * MIB))
        closing = asyncio.ensure_future(client.close())
        assert await exactly(server, MIB) == payload(3 * MIB)[:MIB]
        assert not closing.done()
        assert await to_the_end(server) == payload(3 * MIB)[MIB:]
        await asyncio.wait_for(closing, TIME)


async def test_close_does_not_disturb_a_peer_that_goes_on_sending() -> None:
    async with pair() as (client, server):
        server.send(payload(MIB))
        await exactly(client, 1)
        errors: list[TransportServicesError] = []
        server.on_connection_error = lambda _, error: errors.append(error)
        await asyncio.wait_for(client.close(), TIME)
        for _ in range(20):
            await asyncio.wait_for(server.send(payload(100_000)), TIME)
        await asyncio.wait_for(server.close(), TIME)
        assert not errors


async def test_a_peer_that_never_stops_sending_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_flow, "PEER_LINGER", 0.05)
    async with pair() as (client, server):
        clone = await client.clone()
        peer = await peer_of(clone, server)
        await asyncio.wait_for(clone.close(), TIME)

        async def pour() -> None:
            while True:
                await peer.send(bytes(10_000))

        with pytest.raises(SendError) as caught:
            await asyncio.wait_for(pour(), TIME)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_close_gives_up_on_a_peer_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_flow, "LINGER", 0.1)
    monkeypatch.setattr("neatpy.connection.LINGER", 0.1)
    async with pair() as (client, _):
        client.send(bytes(12 * MIB))
        with pytest.raises(ConnectionError) as caught:
            await asyncio.wait_for(client.close(), TIME)
        assert caught.value.reason is Reason.TIMEOUT


async def test_closing_both_sides_at_once_ends_both_well() -> None:
    async with pair() as (client, server):
        client.send(b"bye")
        server.send(b"bye")
        await asyncio.wait_for(asyncio.gather(client.close(), server.close()), TIME)


async def test_leaving_a_block_closes_and_the_peer_has_it_all() -> None:
    async with listening() as listener:
        async with going_to(port_of(listener)).initiate(timeout=TIME) as client:
            client.send(b"all of it")
            server = await listener.accept()
        assert client.state is ConnectionState.CLOSED
        assert await to_the_end(server) == b"all of it"
        await asyncio.wait_for(server.close(), TIME)


async def test_a_closed_connection_whose_peer_never_finishes_lingers_quietly_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quic_flow, "PEER_LINGER", 0.2)
    async with pair() as (client, server):
        client.send(b"all")
        assert await exactly(server, 3) == b"all"
        transport = transport_of(client)
        path = transport.path
        assert isinstance(path, OwnPath)
        await asyncio.wait_for(client.close(), TIME)
        assert not transport.over
        # A loop that ends now forgets the socket: nobody is told to have left it open.
        assert isinstance(path._socket.socket, _ForgettableSocket)
        await until(lambda: transport.over)


# Aborts


@pytest.mark.parametrize("side", ["client", "server"])
async def test_an_abort_is_seen_as_an_abort(side: str) -> None:
    async with pair() as (client, server):
        ours, theirs = (client, server) if side == "client" else (server, client)
        failing = failure_of(theirs)
        waiting = theirs.receive()
        ours.abort()
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(waiting, TIME)
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        assert (await failing).reason is Reason.CONNECTION_ABORTED


async def test_an_abort_in_the_middle_of_a_transfer_is_seen_by_the_sender() -> None:
    async with pair() as (client, server):
        failing = failure_of(client)
        sent = [client.send(bytes(MIB)) for _ in range(20)]
        await exactly(server, MIB)
        server.abort()
        assert (await failing).reason is Reason.CONNECTION_ABORTED
        results = await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), TIME)
        assert isinstance(results[-1], SendError)


async def test_the_abort_of_one_stream_leaves_the_others_alone() -> None:
    async with pair() as (client, server):
        clone = await client.clone()
        peer = await peer_of(clone, server)
        failing = failure_of(peer)
        clone.abort()
        assert (await failing).reason is Reason.CONNECTION_ABORTED
        client.send(b"still here")
        assert await exactly(server, 10) == b"still here"


async def test_waiting_sends_and_receives_end_with_our_own_abort() -> None:
    async with pair() as (client, _):
        waiting = client.receive()
        blocked = [client.send(bytes(MIB)) for _ in range(20)]
        client.abort()
        with pytest.raises(ReceiveError) as caught:
            await waiting
        assert caught.value.reason is Reason.LOCAL_ABORT
        with pytest.raises(SendError) as failed:
            await blocked[-1]
        assert failed.value.reason is Reason.LOCAL_ABORT


# Backpressure


async def test_a_peer_that_does_not_receive_stops_the_sender() -> None:
    async with pair() as (client, server):
        sent = [client.send(bytes(64 * 1024)) for _ in range(320)]
        await until_still(lambda: sum(future.done() for future in sent), 0.3)
        done = sum(future.done() for future in sent) * 64 * 1024
        assert done <= 3 * MIB, "of 20 MiB, no more than both sides' windows leaves the Connection"
        await exactly(server, 320 * 64 * 1024)
        await asyncio.wait_for(asyncio.gather(*sent), TIME)


async def test_a_client_that_does_not_receive_stops_the_server() -> None:
    async with pair() as (client, server):
        sent = [server.send(bytes(64 * 1024)) for _ in range(320)]
        await until_still(lambda: sum(future.done() for future in sent), 0.3)
        assert sum(future.done() for future in sent) * 64 * 1024 <= 3 * MIB
        await exactly(client, 320 * 64 * 1024)
        await asyncio.wait_for(asyncio.gather(*sent), TIME)


async def test_who_waits_for_credit_is_found_behind_a_nat_that_has_forgotten_it() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        sent = client.send(payload(4 * MIB))
        await until(lambda: transport_of(client).engine.held_up)
        await until_still(lambda: len(relay.seen[True]))
        await relay.rebind()
        assert await exactly(server, 4 * MIB) == payload(4 * MIB)
        await asyncio.wait_for(sent, TIME)


async def test_a_stalled_stream_does_not_stop_another() -> None:
    async with pair() as (client, server):
        clone = await client.clone()
        peer = await peer_of(clone, server)
        client.send(bytes(16 * MIB))
        await until_still(lambda: transport_of(server).engine._table.connection._granted, 0.1)
        clone.send(payload(8 * MIB))
        assert await exactly(peer, 8 * MIB) == payload(8 * MIB)
        assert await exactly(server, 16 * MIB) == bytes(16 * MIB)


async def test_what_one_stream_may_hold_is_a_part_of_what_all_may() -> None:
    async with pair() as (client, server):
        stalled = [await client.clone() for _ in range(3)]
        peers = [await peer_of(clone, server) for clone in stalled]
        for peer in peers:
            flow_of(peer).pause_receiving()
        for clone in stalled:
            clone.send(bytes(3 * MIB))
        await until_still(lambda: client.statistics["bytes_in_flight"], 0.2)
        client.send(payload(3 * MIB))
        assert await exactly(server, 3 * MIB) == payload(3 * MIB)
        for peer in peers:
            flow_of(peer).resume_receiving()
            assert len(await exactly(peer, 3 * MIB)) == 3 * MIB


# Unidirectional Connections


async def test_a_client_that_only_sends() -> None:
    async with pair(
        streams(direction=Direction.UNIDIRECTIONAL_SEND),
        server_properties=streams(direction=Direction.UNIDIRECTIONAL_RECEIVE),
    ) as (client, server):
        assert client.can_send
        assert not client.can_receive
        assert not server.can_send
        client.send(payload(MIB))
        assert await exactly(server, MIB) == payload(MIB)
        await asyncio.wait_for(client.close(), TIME)
        assert await to_the_end(server) == b""
        await asyncio.wait_for(server.close(), TIME)


async def test_a_client_that_only_receives() -> None:
    async with pair(
        streams(direction=Direction.UNIDIRECTIONAL_RECEIVE),
        server_properties=streams(direction=Direction.UNIDIRECTIONAL_SEND),
    ) as (client, server):
        assert not client.can_send
        server.send(payload(MIB))
        assert await exactly(client, MIB) == payload(MIB)
        await asyncio.wait_for(server.close(), TIME)
        assert await to_the_end(client) == b""
        await asyncio.wait_for(client.close(), TIME)


async def test_a_receiver_that_closes_stops_the_sender_of_a_unidirectional_connection() -> None:
    async with pair(
        streams(direction=Direction.UNIDIRECTIONAL_SEND),
        server_properties=streams(direction=Direction.UNIDIRECTIONAL_RECEIVE),
    ) as (client, server):
        client.send(b"x")
        await exactly(server, 1)
        await asyncio.wait_for(server.close(), TIME)

        async def pour() -> None:
            while True:
                await client.send(bytes(10_000))

        with pytest.raises(SendError) as caught:
            await asyncio.wait_for(pour(), TIME)
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        assert not client.can_send


# Time


async def test_a_silent_peer_is_given_up_after_conn_timeout() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port, properties=streams(conn_timeout=0.6)), listener) as (client, server),
    ):
        client.send(b"x")
        assert await exactly(server, 1) == b"x"
        relay.decide = lambda *_: ()
        began = asyncio.get_running_loop().time()
        assert (await failure_of(client)).reason is Reason.TIMEOUT
        assert asyncio.get_running_loop().time() - began < 5
        server.abort()


async def test_a_silent_peer_is_given_up_while_data_waits() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port, properties=streams(conn_timeout=0.6)), listener) as (client, server),
    ):
        relay.decide = lambda *_: ()
        sent = [client.send(bytes(MIB)) for _ in range(20)]
        assert (await failure_of(client)).reason is Reason.TIMEOUT
        with pytest.raises(SendError):
            await sent[-1]
        server.abort()


async def test_an_idle_connection_outlives_conn_timeout() -> None:
    async with pair(streams(conn_timeout=0.4)) as (client, server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.receive(), 1.2)
        server.send(b"still here")
        assert await exactly(client, 10) == b"still here"


async def test_conn_timeout_may_be_changed_while_connected() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        client.set_property("conn_timeout", 0.5)
        relay.decide = lambda *_: ()
        assert (await failure_of(client)).reason is Reason.TIMEOUT
        server.abort()


async def test_a_handshake_that_nobody_answers_ends_with_the_timeout_of_initiate() -> None:
    async with listening() as listener, Relay.to(port_of(listener), lambda *_: ()) as relay:
        connection = going_to(relay.port).initiate(timeout=0.3)
        with pytest.raises(TransportServicesError) as caught:
            await connection
        assert caught.value.reason is Reason.TIMEOUT


# What is left


async def test_nothing_is_left_of_connections_that_have_ended() -> None:
    before = open_sockets()
    async with listening() as listener:
        for _ in range(5):
            async with going_to(port_of(listener)).initiate(timeout=TIME) as client:
                client.send(b"x")
                server = await listener.accept()
                clone = await client.clone()
                clone.send(b"y")
                await listener.accept()
                clone.abort()
            assert await to_the_end(server) == b"x"
            await asyncio.wait_for(server.close(), TIME)
        cancelled = asyncio.ensure_future(_await(going_to(port_of(listener)).initiate()))
        await asyncio.sleep(0)
        cancelled.cancel()
    await until(lambda: open_sockets() == before)
    await until(lambda: not _timers())


async def _await(connection: Connection) -> Connection:
    async with connection:
        return connection


def _timers() -> list[Any]:
    """Timers of this library that asyncio's own loop has still to call."""
    scheduled: list[Any] = getattr(asyncio.get_running_loop(), "_scheduled", [])
    return [
        handle for handle in scheduled if not handle.cancelled() and "neatpy.stacks._quic" in repr(handle)
    ]
