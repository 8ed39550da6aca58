"""The TCP Flow on a socket of our own: resets at every moment, and what becomes of data that came before them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from api.loopback import PlainServer, going_to, pair, stream, until
from neatpy import Connection, ConnectionError, Message, MessageContext, Reason, ReceiveError, SendError
from neatpy.stacks._stream import StreamFlow
from neatpy.system.streams import open_streams

both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
RESET = struct.pack("ii", 1, 0)


@contextlib.asynccontextmanager
async def to_a_socket() -> AsyncIterator[tuple[Connection, socket.socket]]:
    """A Connection, and the peer as a blocking socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = await going_to(server.getsockname()[1]).initiate()
        peer, _ = server.accept()
        with peer:
            yield connection, peer
    connection.abort()


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def flow_of(connection: Connection) -> StreamFlow:
    flow = connection._path.flow
    assert isinstance(flow, StreamFlow)
    return flow


async def failure_of(connection: Connection) -> ConnectionError:
    failed: asyncio.Future[ConnectionError] = asyncio.get_running_loop().create_future()
    connection.on_connection_error = lambda _, error: failed.set_result(error)
    return await asyncio.wait_for(failed, 5)


@both_loops
async def test_everything_that_came_before_a_reset_is_received() -> None:
    async with to_a_socket() as (connection, peer):
        await connection.send(b"never read, so that closing resets")
        peer.sendall(b"x" * 40_000)
        peer.close()
        got = 0
        while got < 40_000:
            got += len(await connection.receive(min_incomplete_length=1))
        with pytest.raises(ReceiveError) as caught:
            await connection.receive(min_incomplete_length=1)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


@both_loops
async def test_a_connection_that_is_not_read_learns_of_a_reset() -> None:
    async with to_a_socket() as (connection, peer):
        flow_of(connection).pause_receiving()
        failing = asyncio.ensure_future(failure_of(connection))
        await asyncio.sleep(0)
        reset(peer)
        flow_of(connection).resume_receiving()
        assert (await failing).reason is Reason.CONNECTION_ABORTED


@both_loops
async def test_a_reset_after_the_peer_has_finished_is_noticed_while_idle() -> None:
    async with to_a_socket() as (connection, peer):
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(ReceiveError):
            await connection.receive()
        failing = asyncio.ensure_future(failure_of(connection))
        await asyncio.sleep(0)
        reset(peer)
        assert (await failing).reason is Reason.CONNECTION_ABORTED


@both_loops
async def test_a_reset_that_a_send_runs_into_is_no_end_of_the_stream() -> None:
    async with to_a_socket() as (connection, peer):
        reset(peer)
        sent = connection.send(b"", final=True)
        with pytest.raises(ReceiveError) as caught:
            await connection.receive(min_incomplete_length=1)
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        with contextlib.suppress(SendError):
            await sent


@both_loops
async def test_a_busy_connection_is_read_by_the_loop_itself_and_goes_on_as_before() -> None:
    async with to_a_socket() as (connection, peer):
        for number in range(20):
            peer.sendall(b"%d" % number)
            assert bytes(await connection.receive(min_incomplete_length=1)) == b"%d" % number
        assert not flow_of(connection)._quiet_reads
        flow_of(connection).pause_receiving()
        peer.sendall(b"later")
        flow_of(connection).resume_receiving()
        assert bytes(await connection.receive(min_incomplete_length=5)) == b"later"


@both_loops
async def test_one_that_closes_another_in_the_same_turn_does_not_disturb_a_third() -> None:
    """The number of a closed socket is given to the next one at once."""
    with PlainServer() as server:
        pairs = []
        for _ in range(2):
            connection = await going_to(server.port).initiate()
            pairs.append((connection, await server.accept()))
        (first, its_peer), (second, other_peer) = pairs
        opened: list[Connection] = []

        async def close_the_other() -> None:
            await first.receive(min_incomplete_length=1)
            second.abort()
            opened.append(await going_to(server.port).initiate())

        closing = asyncio.ensure_future(close_the_other())
        await asyncio.sleep(0)
        await its_peer.send(b"x")
        await other_peer.send(b"y")
        await closing
        third = opened[0]
        peer = await server.accept()
        await peer.send(b"hello")
        assert bytes(await third.receive(min_incomplete_length=5)) == b"hello"
        for connection in (first, third):
            connection.abort()


@both_loops
async def test_open_sockets_are_kept_and_closed_ones_forgotten() -> None:
    streams = open_streams.of(asyncio.get_running_loop())
    before = len(streams)
    async with to_a_socket() as (connection, peer):
        flow = flow_of(connection)
        del connection
        gc.collect()
        assert len(streams) == before + 1
        peer.close()
        flow.close()
        del flow
        await until(lambda: len(streams) == before)


@both_loops
async def test_a_closed_connection_whose_peer_never_finishes_lingers_quietly() -> None:
    streams = open_streams.of(asyncio.get_running_loop())
    before = len(streams)
    async with to_a_socket() as (connection, peer):
        await connection.send(b"all")
        await connection.close()
        assert len(streams) == before + 1
        assert peer.recv(10) == b"all"
        assert peer.recv(10) == b""


class TestAnswersToSends:
    async def test_each_that_is_kept_is_one_of_its_own(self) -> None:
        async with to_a_socket() as (connection, _):
            kept = [connection.send(b"x") for _ in range(10)]
            assert len(set(map(id, kept))) == 10
            contexts = [await future for future in kept]
            assert len(set(map(id, contexts))) == 10

    async def test_a_context_that_was_changed_is_not_used_again(self) -> None:
        async with to_a_socket() as (connection, _):
            context = await connection.send(b"x")
            context.msg_priority = 7
            del context
            assert (await connection.send(b"x")).msg_priority == MessageContext().msg_priority

    async def test_a_context_that_is_kept_is_not_used_again(self) -> None:
        async with to_a_socket() as (connection, _):
            kept = await connection.send(b"x")
            assert await connection.send(b"x") is not kept


@both_loops
async def test_cancelling_a_receive_at_any_moment_loses_nothing() -> None:
    async with to_a_socket() as (connection, peer):
        got: list[bytes] = []

        async def take() -> None:
            message: Message = await connection.receive(min_incomplete_length=1)
            got.append(bytes(message))

        sent = b""
        for number in range(200):
            task = asyncio.ensure_future(take())
            for _ in range(number % 4):
                await asyncio.sleep(0)
            chunk = b"%03d" % number
            peer.sendall(chunk)
            sent += chunk
            for _ in range(number % 5):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        while len(b"".join(got)) < len(sent):
            await asyncio.wait_for(take(), 5)
        assert b"".join(got) == sent


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_sockets_of_a_loop_that_ends_amid_a_close_are_closed_without_a_word(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    found: list[socket.socket] = []

    async def leave(port: int) -> None:
        connection = await going_to(port).initiate()
        connection.send(bytes(64 * 1024))
        connection.close()
        found.append(flow_of(connection).socket)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.listen()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(leave(server.getsockname()[1]))
        gc.collect()
        assert found[0].fileno() == -1


@pytest.mark.parametrize("rate", [2.0**70, 1e300])
async def test_a_rate_beyond_what_the_kernel_counts_is_as_good_as_none(rate: float) -> None:
    async with pair(stream(max_send_rate=rate)) as (client, server):
        client.set_property("max_send_rate", rate)
        await client.send(b"quick")
        assert bytes(await server.receive(min_incomplete_length=5)) == b"quick"
