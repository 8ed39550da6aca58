"""close and abort, here and at the peer (RFC 9622 section 10)."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from api.loopback import (
    BOTH_LOOPS,
    HOST,
    MIB,
    PlainServer,
    blocked,
    datagrams,
    drained,
    going_to,
    length_framed,
    listening_on,
    pair,
    port_of,
    to_plain_peer,
    turns,
    until,
)
from neatpy import (
    Connection,
    ConnectionError,  # noqa: A004
    ConnectionState,
    Reason,
    ReceiveError,
    SecurityParameters,
    SendError,
)
from neatpy.stacks import _stream
from pki import Authority

pytestmark = BOTH_LOOPS


async def test_close_right_after_send_delivers() -> None:
    async with to_plain_peer() as (connection, peer):
        connection.send(b"last words")
        await connection.close()
        assert connection.state is ConnectionState.CLOSED
        assert await peer.receive_to_end() == b"last words"


async def test_close_is_effective_without_being_awaited() -> None:
    async with to_plain_peer() as (connection, peer):
        connection.send(b"x")
        connection.close()
        assert connection.state is ConnectionState.CLOSING
        assert await peer.receive_to_end() == b"x"
        await until(lambda: connection.state is ConnectionState.CLOSED)


async def test_a_connection_that_has_ended_is_freed_without_the_garbage_collector() -> None:
    async def ended() -> weakref.ref[Connection]:
        async with to_plain_peer() as (connection, _):
            await connection.close()
            return weakref.ref(connection)

    gc.disable()
    try:
        freed = await ended()
        await until(lambda: freed() is None)
    finally:
        gc.enable()


async def test_close_delivers_ten_megabytes_to_a_slow_reader() -> None:
    async with to_plain_peer(receive_buffer=64 * 1024) as (connection, peer):
        data = bytes(range(256)) * (10 * MIB // 256)
        sent = connection.send(data)
        closed = connection.close()
        received = 0
        for turn in range(20):
            received += len(await peer.receive(1000 * (turn + 1)))
            await asyncio.sleep(0.001)
        assert not closed.done()
        rest = await peer.receive_to_end()
        assert received + len(rest) == len(data)
        assert rest == data[received:]
        await sent
        await closed


async def test_close_over_tls_delivers_everything() -> None:
    authority = Authority()
    security = SecurityParameters(server_certificate=authority.issue(HOST))
    trusting = SecurityParameters(trusted_certificates=authority.root)
    async with listening_on(security=security).listen() as listener:
        connection = await going_to(port_of(listener), security=trusting).initiate(timeout=5)
        server = await listener.accept()
        connection.send(bytes(2 * MIB))
        closed = connection.close()
        assert len(await server.receive()) == 2 * MIB
        await closed
        await server.close()


async def test_close_does_not_wait_for_the_peer_to_close() -> None:
    async with to_plain_peer() as (connection, peer):
        connection.send(b"x")
        await asyncio.wait_for(connection.close(), 1)
        assert await peer.receive_to_end() == b"x"


async def test_close_does_not_reset_a_peer_that_is_still_sending() -> None:
    async with to_plain_peer() as (connection, peer):
        await peer.send(bytes(100_000))
        connection.send(b"answer")
        await connection.close()
        for _ in range(10):
            await peer.send(bytes(100_000))
        assert await peer.receive_to_end() == b"answer"
        await peer.send(b"more")
        await turns()
        await peer.send(b"and more")


async def test_close_of_a_connection_that_was_not_reading_does_not_reset_its_peer() -> None:
    async with to_plain_peer() as (connection, peer):
        sending = asyncio.create_task(peer.send(bytes(16 * MIB)))
        await until(lambda: connection.statistics["bytes_received"] >= 4 * MIB)
        connection.send(b"enough")
        closed = connection.close()
        await sending
        assert await peer.receive_to_end() == b"enough"
        await closed
        peer.close()
        await turns(200)  # all of it is read and thrown away


async def test_close_to_a_peer_that_never_reads_ends_with_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stream, "LINGER", 0.1)
    monkeypatch.setattr("neatpy.connection.LINGER", 0.1)
    errors: list[Any] = []
    async with to_plain_peer(receive_buffer=4096) as (connection, _):
        waiting = blocked(connection)
        connection.on_connection_error = lambda _, error: errors.append(error)
        connection.on_closed = lambda _: errors.append("closed")
        with pytest.raises(ConnectionError) as caught:
            await asyncio.wait_for(connection.close(), 3)
        assert caught.value.reason is Reason.TIMEOUT
        assert connection.state is ConnectionState.CLOSED
        with pytest.raises(SendError) as send_error:
            await waiting[-1]
        assert send_error.value.reason is Reason.TIMEOUT
        await turns()
        assert errors == [caught.value]


async def test_close_with_what_only_the_kernel_holds_ends_with_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_stream, "LINGER", 0.1)
    async with to_plain_peer(receive_buffer=4096) as (connection, _):
        await connection.send(bytes(200_000))
        with pytest.raises(ConnectionError) as caught:
            await asyncio.wait_for(connection.close(), 3)
        assert caught.value.reason is Reason.TIMEOUT


async def test_close_gives_one_shared_future() -> None:
    async with to_plain_peer() as (connection, _):
        closed = connection.close()
        assert connection.close() is closed
        await closed
        assert connection.close() is closed


async def test_closing_what_is_over_is_done_at_once() -> None:
    async with to_plain_peer() as (connection, _):
        connection.abort()
        await connection.close()
        connection.abort()
        assert connection.state is ConnectionState.CLOSED


async def test_a_wait_for_close_that_gives_up_spoils_it_for_nobody() -> None:
    async with to_plain_peer(receive_buffer=4096) as (connection, peer):
        blocked(connection)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.close(), 0.01)
        reading = asyncio.create_task(peer.receive_to_end())
        await asyncio.wait_for(connection.close(), 5)
        await reading
        assert connection.state is ConnectionState.CLOSED


async def test_after_close_sends_are_refused_and_receives_end() -> None:
    async with to_plain_peer() as (connection, peer):
        waiting = connection.receive()
        await peer.send(b"too late to be received")
        connection.close()
        with pytest.raises(ReceiveError) as caught:
            await waiting
        assert caught.value.reason is Reason.CONNECTION_CLOSED
        with pytest.raises(SendError) as refused:
            await connection.send(b"x")
        assert refused.value.reason is Reason.CONNECTION_CLOSED
        with pytest.raises(ReceiveError):
            await connection.receive(min_incomplete_length=1)
        assert [message async for message in connection] == []
        assert not connection.can_send
        assert not connection.can_receive
        await peer.receive_to_end()


async def test_close_discards_what_was_not_received() -> None:
    async with pair(framers=length_framed()) as (client, server):
        client.send(b"unread")
        await until(lambda: server.statistics["messages_received"] == 1)
        server.close()
        with pytest.raises(ReceiveError):
            await server.receive()


async def test_a_final_message_and_then_close() -> None:
    async with to_plain_peer() as (connection, peer):
        connection.send(b"final", final=True)
        await connection.close()
        assert await peer.receive_to_end() == b"final"


async def test_close_in_a_batch_delivers_the_batch() -> None:
    async with to_plain_peer() as (connection, peer):
        with connection.batch():
            connection.send(b"1")
            connection.send(b"2")
            closed = connection.close()
        assert await peer.receive_to_end() == b"12"
        await closed


async def test_both_may_close_at_once() -> None:
    async with pair() as (client, server):
        client.send(b"a")
        server.send(b"b")
        await asyncio.gather(client.close(), server.close())
        assert client.state is server.state is ConnectionState.CLOSED


async def test_closing_udp_is_quick() -> None:
    async with pair(datagrams()) as (client, server):
        client.send(b"bye")
        await asyncio.wait_for(client.close(), 1)
        assert bytes(await server.receive()) == b"bye"
        await asyncio.wait_for(server.close(), 1)


# Abort


async def test_abort_resets_and_waiting_actions_end_with_local_abort() -> None:
    async with to_plain_peer() as (connection, peer):
        errors: list[Any] = []
        connection.on_connection_error = lambda _, error: errors.append(error)
        connection.on_closed = lambda _: errors.append("closed")
        waiting, receiving = blocked(connection), connection.receive()
        connection.abort()
        assert connection.state is ConnectionState.CLOSED
        assert all(future.done() for future in waiting)
        with pytest.raises(SendError) as send_error:
            await waiting[-1]
        with pytest.raises(ReceiveError) as receive_error:
            await receiving
        assert send_error.value.reason is receive_error.value.reason is Reason.LOCAL_ABORT
        with pytest.raises(ConnectionResetError):
            await peer.receive_to_end()
        await turns()
        assert [error.reason for error in errors] == [Reason.LOCAL_ABORT]


async def test_an_abort_ends_iteration_with_an_error() -> None:
    async with to_plain_peer() as (connection, _):
        asyncio.get_running_loop().call_soon(connection.abort)
        with pytest.raises(ConnectionError) as caught:
            await drained(connection)
        assert caught.value.reason is Reason.LOCAL_ABORT


async def test_the_peers_abort_is_connection_aborted() -> None:
    async with to_plain_peer() as (connection, peer):
        errors: list[Any] = []
        connection.on_connection_error = lambda _, error: errors.append(error)
        receiving = connection.receive()
        peer.reset()
        with pytest.raises(ReceiveError) as caught:
            await receiving
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        with pytest.raises(SendError) as refused:
            await connection.send(b"x")
        assert refused.value.reason is Reason.CONNECTION_ABORTED
        await until(lambda: errors)
        assert [error.reason for error in errors] == [Reason.CONNECTION_ABORTED]
        assert isinstance(errors[0], OSError)  # the builtin ConnectionError, as callers of sockets expect


async def test_the_peers_abort_ends_sends_that_wait() -> None:
    async with to_plain_peer() as (connection, peer):
        waiting = blocked(connection)
        peer.reset()
        with pytest.raises(SendError) as caught:
            await asyncio.wait_for(waiting[-1], 2)
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        assert all(future.done() for future in waiting)


async def test_the_peers_abort_ends_sends_that_wait_below_framers() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        waiting = blocked(connection)
        peer.reset()
        await until(lambda: connection.state is ConnectionState.CLOSED)
        assert all(future.done() for future in waiting)
        assert isinstance(waiting[0].exception(), SendError)


async def test_an_abort_ends_sends_that_wait_in_tls() -> None:
    authority = Authority()
    security = SecurityParameters(server_certificate=authority.issue(HOST))
    trusting = SecurityParameters(trusted_certificates=authority.root)
    async with listening_on(security=security).listen() as listener:
        connection = await going_to(port_of(listener), security=trusting).initiate(timeout=5)
        server = await listener.accept()
        waiting = blocked(connection)
        connection.abort()
        assert all(future.done() for future in waiting)
        last = waiting[-1].exception()
        assert isinstance(last, SendError)
        assert last.reason is Reason.LOCAL_ABORT
        server.abort()


async def test_the_peers_abort_ends_sends_that_wait_in_tls() -> None:
    authority = Authority()
    security = SecurityParameters(server_certificate=authority.issue(HOST))
    trusting = SecurityParameters(trusted_certificates=authority.root)
    async with listening_on(security=security).listen() as listener:
        connection = await going_to(port_of(listener), security=trusting).initiate(timeout=5)
        server = await listener.accept()
        waiting = blocked(connection)
        server.abort()
        await until(lambda: connection.state is ConnectionState.CLOSED)
        assert all(future.done() for future in waiting)
        last = waiting[-1].exception()
        assert isinstance(last, SendError)
        assert last.reason is Reason.CONNECTION_ABORTED


async def test_an_abort_while_closing_ends_it() -> None:
    async with to_plain_peer() as (connection, peer):
        blocked(connection)
        closed = connection.close()
        connection.abort()
        with pytest.raises(ConnectionError) as caught:
            await closed
        assert caught.value.reason is Reason.LOCAL_ABORT
        with pytest.raises(ConnectionResetError):
            await peer.receive_to_end()


async def test_an_abort_over_tls_is_seen_by_the_peer() -> None:
    authority = Authority()
    security = SecurityParameters(server_certificate=authority.issue(HOST))
    trusting = SecurityParameters(trusted_certificates=authority.root)
    async with listening_on(security=security).listen() as listener:
        connection = await going_to(port_of(listener), security=trusting).initiate(timeout=5)
        server = await listener.accept()
        connection.abort()
        with pytest.raises(ReceiveError) as caught:
            await server.receive()
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_a_close_that_nobody_awaits_never_complains() -> None:
    with PlainServer() as server:
        connection = await going_to(server.port).initiate()
        peer = await server.accept()
        blocked(connection)
        connection.close()
        peer.reset()
        await until(lambda: connection.state is ConnectionState.CLOSED)


async def test_a_send_after_the_end_says_once_that_the_connection_is_closed() -> None:
    async with to_plain_peer() as (connection, _):
        await connection.close()
        with pytest.raises(SendError) as caught:
            await connection.send(b"x")
        assert str(caught.value) == "the connection is closed"
        assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_a_loop_that_ends_right_after_closed_leaves_no_socket_open() -> None:
    with PlainServer() as server:

        async def program() -> None:
            connection = await going_to(server.port).initiate()
            await connection.close()  # the peer has not closed: the socket lingers

        def run_and_collect() -> None:
            asyncio.run(program())
            gc.collect()  # an unclosed socket would complain here, and warnings are errors

        await asyncio.to_thread(run_and_collect)
        assert await (await server.accept()).receive_to_end() == b""
