"""Connections that are streams of an SCTP association, as an application sees them."""

from __future__ import annotations

import array
import asyncio
import socket
from typing import Any

import pytest

from neatpy import (
    Connection,
    ConnectionError,
    ConnectionState,
    Expired,
    LocalEndpoint,
    MessageContext,
    MessageFramer,
    Preconnection,
    Preference,
    PropertyError,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    Scheduler,
    SendError,
    TransportProperties,
    available_stacks,
)
from neatpy.framers import LengthPrefixFramer
from neatpy.message import OVERHEAD
from neatpy.stacks._sctp.engine import ENGINE
from neatpy.stacks._sctp.library import obstacle
from neatpy.stacks._sctp.streams import HELD_BY_ONE
from neatpy.stacks._sharing import UNREAD_BY_ALL, read_ahead

from .loopback import BOTH_LOOPS, HOST, MIB, PLAIN, port_of, until, until_still
from .sctp_loopback import everything_is_given_back, going_to, listening, next_peer, pair, ready, receive

__all__ = ["everything_is_given_back"]
pytestmark = [
    BOTH_LOOPS,
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
    pytest.mark.usefixtures("everything_is_given_back"),
]


async def test_messages_of_any_size_keep_their_boundaries() -> None:
    async with pair() as (client, server):
        assert client.stack == server.stack == "sctp"
        for size in (1, 1400, 100_000, 3 * MIB):
            client.send(bytes([size % 251]) * size)
        for size in (1, 1400, 100_000, 3 * MIB):
            message = await receive(server)
            assert bytes(message) == bytes([size % 251]) * size
            assert message.end_of_message


async def test_many_messages_both_ways_arrive_in_order() -> None:
    async with pair() as (client, server):
        for number in range(2000):
            client.send(b"%d" % number)
            server.send(b"-%d" % number)
        for number in range(2000):
            assert bytes(await receive(server)) == b"%d" % number
            assert bytes(await receive(client)) == b"-%d" % number


async def test_each_part_is_answered_while_the_association_is_full() -> None:
    async with pair() as (client, server):
        context = MessageContext()
        sent = [client.send(bytes(12 * MIB), context, end_of_message=False)]
        sent += [client.send(b"B", context, end_of_message=False), client.send(b"C", context)]
        received = b""
        while not received.endswith(b"BC"):
            received += bytes(await asyncio.wait_for(server.receive(min_incomplete_length=1), 5))
        assert await asyncio.wait_for(asyncio.gather(*sent), 2) == [context] * 3


async def test_clones_are_streams_and_their_numbers_are_used_again() -> None:
    async with pair() as (client, server):
        opened: list[Connection] = []
        for _ in range(3):
            clone = await asyncio.wait_for(ready(client.clone()), 5)
            assert clone.local_endpoint == client.local_endpoint
            await clone.send(b"hello")
            await until(lambda: len(server.grouped_connections) == 2)
            peer = next(iter(server.grouped_connections - {server}))
            opened.append(peer)
            assert bytes(await receive(peer)) == b"hello"
            peer.send(b"back")
            assert bytes(await receive(clone)) == b"back"
            assert clone._path.flow.stream == 2  # type: ignore[union-attr]
            await asyncio.wait_for(clone.close(), 5)
            await asyncio.wait_for(peer.close(), 5)
            await until(lambda: len(server.grouped_connections) == 1)
        assert client.state is ConnectionState.ESTABLISHED
        client.send(b"still here")
        assert bytes(await receive(server)) == b"still here"


async def test_a_clone_has_the_framer_that_was_given_and_it_sees_the_clone() -> None:
    seen: list[Connection] = []

    class Seeing(LengthPrefixFramer):
        def start(self, connection: Connection, handle: MessageFramer) -> None:
            seen.append(connection)
            super().start(connection, handle)

    async with pair() as (client, server):
        clone = await asyncio.wait_for(ready(client.clone(Seeing())), 5)
        assert seen == [clone]
        clone.send(b"framed")
        other = await asyncio.wait_for(ready(clone.clone()), 5)
        assert seen == [clone, other]
        clones_peer = await next_peer(server)
        assert bytes(await receive(clones_peer)) == b"\0\0\0\x06framed"


async def test_three_hundred_clones_are_all_answered() -> None:
    async with listening() as listener:

        async def echo(connection: Connection) -> None:
            async for message in connection:
                await connection.send(message.data)

        serving = asyncio.ensure_future(listener.serve(echo, grace=0))
        client = await going_to(port_of(listener)).initiate()
        clones = [client.clone() for _ in range(300)]
        for number, clone in enumerate(clones):
            clone.send(b"%d" % number)
        assert [bytes(await receive(clone)) for clone in clones] == [b"%d" % number for number in range(300)]
        assert len({clone._path.flow.stream for clone in clones}) == 300  # type: ignore[union-attr]
        await asyncio.wait_for(client.close_group(), 10)
        listener.stop()
        await serving


async def test_a_stream_that_the_listener_opens_reaches_the_initiator() -> None:
    async with pair() as (client, server):
        received: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        client.on_connection_received = lambda _, new: received.set_result(new)
        clone = await server.clone()
        clone.send(b"from the server")
        new = await asyncio.wait_for(received, 5)
        assert new in client.grouped_connections
        assert new._path.flow.stream == 1  # type: ignore[union-attr]
        assert bytes(await receive(new)) == b"from the server"


async def test_a_stream_that_nobody_wants_is_refused_and_the_others_live_on() -> None:
    async with pair() as (client, server):
        clone = await server.clone()
        clone.send(b"unwanted")
        with pytest.raises(ReceiveError):
            await receive(clone)
        server.send(b"wanted")
        assert bytes(await receive(client)) == b"wanted"


async def test_unordered_messages_arrive_and_say_so() -> None:
    async with pair() as (client, server):
        client.send(b"any order", msg_ordered=False)
        message = await receive(server)
        assert message.context.msg_ordered is False


async def test_the_payload_protocol_identifier_goes_along() -> None:
    async with pair() as (client, server):
        context = MessageContext()
        context.set("_neatpy.payload_protocol_id", 51)
        client.send(b"x", context)
        assert (await receive(server)).context.get("_neatpy.payload_protocol_id") == 51


async def test_a_message_with_a_lifetime_is_sent_once_and_told_once() -> None:
    async with pair() as (client, server):
        assert (await asyncio.wait_for(client.send(b"quick", msg_lifetime=5), 5)) is not None
        assert bytes(await receive(server)) == b"quick"


async def test_what_waits_beyond_its_lifetime_expires() -> None:
    async with pair() as (client, server):
        waiting = [client.send(b"x" * MIB) for _ in range(20)]
        late = client.send(b"late", msg_lifetime=0.05)
        with pytest.raises(Expired):
            await asyncio.wait_for(late, 5)
        for _ in range(20):
            assert len(await receive(server)) == MIB
        await asyncio.gather(*waiting)


async def test_a_peer_that_does_not_receive_slows_the_sender_down() -> None:
    async with pair() as (client, server):
        sent = [client.send(b"x" * 64 * 1024) for _ in range(1000)]
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(sent[-1]), 0.5)
        done = sum(future.done() for future in sent)
        assert done < 200
        for _ in range(1000):
            assert len(await receive(server)) == 64 * 1024
        await asyncio.wait_for(sent[-1], 5)


async def test_what_many_streams_hold_that_nobody_receives_from_is_bounded() -> None:
    async with listening() as listener:
        client = await ready(going_to(port_of(listener)).initiate())
        server = await listener.accept()
        clones = [await ready(client.clone()) for _ in range(30)]
        for clone in clones:
            clone.send(b"x")
        peers = [await asyncio.wait_for(listener.accept(), 5) for _ in clones]
        assert [bytes(await receive(peer)) for peer in peers] == [b"x"] * 30
        for clone in clones:
            for _ in range(40):
                clone.send(bytes(64 * 1024))
        streams = server._path.flow._streams  # type: ignore[union-attr]
        await until(lambda: streams.association._paused)
        await until_still(lambda: streams._held)
        assert UNREAD_BY_ALL <= streams._held < UNREAD_BY_ALL + MIB
        assert sum(peer.statistics["bytes_received"] for peer in peers) <= 30 * 2 * read_ahead(30)

        async def all_of(peer: Connection) -> int:
            return sum([len(await receive(peer)) for _ in range(40)])

        assert await asyncio.gather(*map(all_of, peers)) == [40 * 64 * 1024] * 30
        client.abort_group()
        server.abort_group()


async def test_the_parts_of_a_message_are_one_message() -> None:
    async with pair() as (client, server):
        context = MessageContext()
        for part in (b"one ", b"two ", b"three"):
            client.send(part, context, end_of_message=False)
        client.send(b"", context)
        assert bytes(await receive(server)) == b"one two three"


async def test_a_part_comes_as_soon_as_the_next_is_sent() -> None:
    async with pair() as (client, server):
        story = MessageContext()
        client.send(b"once ", story, end_of_message=False)
        for word in (b"upon ", b"a ", b"time"):
            arrives = server.receive(min_incomplete_length=1)
            client.send(word, story, end_of_message=word == b"time")
            part = await asyncio.wait_for(arrives, 5)
        assert (bytes(part), part.end_of_message) == (b"a time", True)


async def test_an_empty_message_is_a_send_error() -> None:
    async with pair() as (client, _):
        with pytest.raises(SendError) as caught:
            await client.send(b"")
        assert caught.value.reason is Reason.PROTOCOL_FAILED


async def test_after_final_the_peer_sees_the_end_and_can_still_send() -> None:
    async with pair() as (client, server):
        await client.send(b"last", final=True)
        assert bytes(await receive(server)) == b"last"
        with pytest.raises(ReceiveError) as caught:
            await receive(server)
        assert caught.value.reason is Reason.CONNECTION_CLOSED
        server.send(b"answer")
        assert bytes(await receive(client)) == b"answer"


async def test_a_closed_udp_port_leaves_the_race_to_tcp_at_once() -> None:
    with socket.create_server((HOST, 0)) as tcp_only:
        there = RemoteEndpoint(HOST, tcp_only.getsockname()[1])
        connection = Preconnection(
            remote=there, properties=TransportProperties.reliable_inorder_stream(), security=PLAIN
        ).initiate(timeout=5)
        async with connection:
            assert connection.stack == "tcp"


async def test_a_silent_udp_port_leaves_the_race_to_tcp_after_the_stagger() -> None:
    with socket.create_server((HOST, 0)) as server, socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(server.getsockname())
        there = RemoteEndpoint(HOST, server.getsockname()[1])
        connection = Preconnection(
            remote=there, properties=TransportProperties.reliable_inorder_stream(), security=PLAIN
        ).initiate(timeout=5)
        async with connection:
            assert connection.stack == "tcp"


async def test_priorities_and_schedulers_act_on_streams() -> None:
    async with pair(multistreaming=Preference.REQUIRE) as (client, _):
        clone = await client.clone(conn_priority=10)
        for scheduler in Scheduler:
            client.set_property("conn_scheduler", scheduler)
        clone.set_property("conn_priority", 1)
        properties = clone.get_properties()
        assert properties["conn_priority"] == 1
        assert not {"conn_priority", "conn_scheduler"} & set(properties["without_effect"])


async def test_aborting_the_group_ends_every_stream() -> None:
    async with pair() as (client, server):
        clones = [await client.clone() for _ in range(5)]
        for clone in clones:
            await clone.send(b"x")
        await until(lambda: len(server.grouped_connections) == 6)
        failed: list[ConnectionError] = []
        for one in server.grouped_connections:
            one.on_connection_error = lambda _, error: failed.append(error)
        client.abort_group()
        await until(lambda: len(failed) == 6)
        assert {error.reason for error in failed} == {Reason.CONNECTION_ABORTED}


async def test_statistics_tell_of_the_association() -> None:
    async with pair() as (client, server):
        client.send(b"x")
        await receive(server)
        assert client.statistics["streams"] == 1
        assert client.statistics["path_mtu"] > 1000


async def test_a_second_loop_finds_the_stack_unavailable_for_as_long_as_the_first_uses_it() -> None:
    async def look() -> tuple[bool, str]:
        found = next(stack for stack in available_stacks() if stack.name == "sctp")
        return found.available, found.reason

    async with listening():
        available, reason = await asyncio.to_thread(asyncio.run, look())
        assert not available
        assert "another event loop" in reason
        assert await look() == (True, "")
    await until(lambda: ENGINE.counts() == (0, 0))
    assert await asyncio.to_thread(asyncio.run, look()) == (True, "")


async def test_a_connection_has_one_path_and_says_why() -> None:
    async with pair() as (client, _):
        for change in (client.add_remote, client.remove_remote):
            with pytest.raises(PropertyError, match="AF_CONN"):
                change(RemoteEndpoint("127.0.0.2", 5000, protocol="sctp"))
        for change_local in (client.add_local, client.remove_local):
            with pytest.raises(PropertyError, match="one path"):
                change_local(LocalEndpoint(address="127.0.0.2"))


async def test_many_large_messages_at_once_on_many_streams_all_arrive() -> None:
    async with listening() as listener:
        client = await asyncio.wait_for(ready(going_to(port_of(listener)).initiate()), 5)
        clones = await asyncio.gather(*(ready(client.clone()) for _ in range(150)))
        for number, clone in enumerate(clones):
            clone.send(number.to_bytes(2, "big") * 100_000)
        first = await asyncio.wait_for(listener.accept(), 5)
        got = set()
        for _ in clones:
            server = await asyncio.wait_for(listener.accept(), 20)
            message = bytes(await receive(server))
            number = int.from_bytes(message[:2], "big")
            assert message == number.to_bytes(2, "big") * 100_000
            got.add(number)
        assert got == set(range(150))
        client.abort_group()
        first.abort_group()


async def test_a_lifetime_or_keep_alive_beyond_what_the_library_counts_is_as_good_as_endless() -> None:
    async with pair() as (client, server):
        client.set_property("keep_alive_timeout", 1e9)
        await client.send(b"lasting", msg_lifetime=1e9)
        assert bytes(await receive(server)) == b"lasting"


async def test_wider_items_count_as_their_bytes() -> None:
    async with pair() as (client, server):
        numbers = array.array("I", [1, 2])
        await client.send(numbers)  # type: ignore[arg-type]
        assert bytes(await receive(server)) == numbers.tobytes()


async def test_what_is_held_while_the_receiver_pauses_goes_before_what_comes_when_it_goes_on() -> None:
    async with pair() as (_, server):
        flow: Any = server._path.flow
        flow.pause_receiving()
        flow.take(b"held", False, 0, True)
        flow.resume_receiving()
        flow.take(b"new", False, 0, True)  # before the loop has had a turn
        assert [bytes(await receive(server)) for _ in range(2)] == [b"held", b"new"]


async def test_tiny_messages_that_are_held_are_bounded_too() -> None:
    async with pair() as (_, server):
        flow: Any = server._path.flow
        flow.pause_receiving()
        few = HELD_BY_ONE // (OVERHEAD + 1)
        for _ in range(few + 1):
            flow.take(b"x", False, 0, True)
        assert flow._streams.association._paused
        flow.resume_receiving()
        assert [bytes(await receive(server)) for _ in range(few + 1)] == [b"x"] * (few + 1)
        assert not flow._streams.association._paused
        assert flow._held_size == flow._streams._held == 0
