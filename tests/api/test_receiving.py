"""Receiving: whole Messages, parts, limits, the ends of streams, iteration (RFC 9622 section 9.3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.loopback import (
    BOTH_LOOPS,
    PlainServer,
    datagrams,
    drained,
    framed,
    going_to,
    length_framed,
    pair,
    stream,
    to_plain_peer,
    turns,
    until,
)
from neatpy import Connection, ConnectionError, ConnectionState, Direction, Message, Reason, ReceiveError  # noqa: A004

pytestmark = BOTH_LOOPS


async def test_without_a_minimum_only_a_whole_message_comes() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        receiving = connection.receive()
        whole = framed(b"whole")
        await peer.send(whole[:6])
        await until(lambda: connection.statistics["bytes_received"] >= 0)
        await turns()
        assert not receiving.done()
        await peer.send(whole[6:])
        message = await receiving
        assert (bytes(message), len(message), message.end_of_message) == (b"whole", 5, True)


async def test_over_an_unframed_stream_the_stream_is_the_message() -> None:
    async with to_plain_peer() as (connection, peer):
        receiving = connection.receive()
        await peer.send(b"all ")
        await until(lambda: connection.statistics["bytes_received"] == 4)
        assert not receiving.done()
        await peer.send(b"of it")
        peer.finish()
        message = await receiving
        assert bytes(message) == b"all of it"
        assert message.end_of_message


async def test_with_a_minimum_a_part_comes_as_soon_as_so_much_is_there() -> None:
    async with to_plain_peer() as (connection, peer):
        receiving = connection.receive(min_incomplete_length=4)
        await peer.send(b"abc")
        await until(lambda: connection.statistics["bytes_received"] == 3)
        assert not receiving.done()
        await peer.send(b"d")
        message = await receiving
        assert bytes(message) == b"abcd"
        assert not message.end_of_message


async def test_all_parts_have_the_same_context() -> None:
    async with to_plain_peer() as (connection, peer):
        await peer.send(b"abcdef")
        first = await connection.receive(min_incomplete_length=1, max_length=2)
        second = await connection.receive(min_incomplete_length=1, max_length=3)
        peer.finish()
        rest = await connection.receive()
        assert [bytes(first), bytes(second), bytes(rest)] == [b"ab", b"cde", b"f"]
        assert [first.end_of_message, second.end_of_message, rest.end_of_message] == [False, False, True]
        assert first.context is second.context is rest.context


async def test_a_message_above_the_maximum_comes_in_parts_even_without_a_minimum() -> None:
    async with pair(framers=length_framed()) as (client, server):
        client.send(b"abcdefgh")
        client.send(b"next")
        parts = [await server.receive(max_length=3) for _ in range(3)]
        assert [bytes(part) for part in parts] == [b"abc", b"def", b"gh"]
        assert [part.end_of_message for part in parts] == [False, False, True]
        assert len({id(part.context) for part in parts}) == 1
        following = await server.receive()
        assert bytes(following) == b"next"
        assert following.context is not parts[0].context


async def test_a_message_above_the_receive_limit_comes_in_parts() -> None:
    limited = stream(**{"_neatpy.receive_limit": 1000})
    async with to_plain_peer(limited) as (connection, peer):
        await peer.send(bytes(range(250)) * 10)
        peer.finish()
        parts: list[Message] = []
        while not parts or not parts[-1].end_of_message:
            parts.append(await asyncio.wait_for(connection.receive(), 2))
        assert all(len(part) <= 1000 for part in parts)
        assert b"".join(map(bytes, parts)) == bytes(range(250)) * 10
        assert len({id(part.context) for part in parts}) == 1


async def test_small_pieces_that_reach_the_receive_limit_do_not_get_stuck() -> None:
    limited = stream(**{"_neatpy.receive_limit": 1000})
    async with to_plain_peer(limited) as (connection, peer):
        receiving = connection.receive()
        for count in range(1, 9):
            await peer.send(bytes(100))
            await until(lambda count=count: connection.statistics["bytes_received"] == 100 * count)  # type: ignore[misc]
        await peer.send(bytes(400))
        assert len(await asyncio.wait_for(receiving, 2)) <= 1000


async def test_a_framed_message_above_the_receive_limit_comes_in_parts() -> None:
    limited = stream(**{"_neatpy.receive_limit": 1000})
    async with pair(limited, framers=length_framed()) as (client, server):
        client.send(bytes(3500))
        client.send(b"next")
        parts: list[Message] = []
        while not parts or not parts[-1].end_of_message:
            parts.append(await asyncio.wait_for(server.receive(), 2))
        assert sum(map(len, parts)) == 3500
        assert len(parts) >= 4
        assert bytes(await server.receive()) == b"next"


async def test_receives_are_answered_once_each_in_order() -> None:
    async with pair(framers=length_framed()) as (client, server):
        asked = [server.receive() for _ in range(3)]
        for data in (b"1", b"2", b"3"):
            client.send(data)
        assert [bytes(message) for message in await asyncio.gather(*asked)] == [b"1", b"2", b"3"]


async def test_the_end_after_a_whole_message_is_connection_closed() -> None:
    async with to_plain_peer() as (connection, peer):
        await peer.send(b"x")
        peer.finish()
        await connection.receive()
        with pytest.raises(ReceiveError) as caught:
            await connection.receive()
        assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_an_empty_stream_is_connection_closed_and_iteration_just_ends() -> None:
    async with to_plain_peer() as (connection, peer):
        waiting = connection.receive()
        peer.finish()
        with pytest.raises(ReceiveError) as caught:
            await waiting
        assert caught.value.reason is Reason.CONNECTION_CLOSED
        assert [message async for message in connection] == []


async def test_the_peers_fin_alone_is_not_closed() -> None:
    events: list[str] = []
    async with to_plain_peer() as (connection, peer):
        connection.on_closed = lambda _: events.append("closed")
        connection.on_connection_error = lambda *_: events.append("error")
        peer.finish()
        with pytest.raises(ReceiveError):
            await connection.receive()
        assert connection.state is ConnectionState.ESTABLISHED
        assert connection.can_send
        assert not connection.can_receive
        await connection.send(b"still sending")
        assert await peer.receive(13) == b"still sending"
        assert events == []


async def test_iteration_gives_each_message_and_ends_when_the_peer_is_done() -> None:
    async with pair(framers=length_framed()) as (client, server):
        for number in range(50):
            client.send(b"%d" % number)
        client.send(b"end", final=True)
        received = [bytes(message) async for message in server]
        assert received == [b"%d" % number for number in range(50)] + [b"end"]


async def test_iteration_raises_when_the_connection_broke() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        await peer.send(framed(b"first"))
        received: list[bytes] = []

        async def iterate() -> None:
            async for message in connection:
                received.append(bytes(message))
                peer.reset()

        with pytest.raises(ConnectionError) as caught:
            await iterate()
        assert received == [b"first"]
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_a_stream_cut_inside_a_framed_message_is_no_end_of_message() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        await peer.send(framed(b"whole") + framed(b"cut off")[:6])
        peer.finish()
        assert bytes(await connection.receive()) == b"whole"
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(connection.receive(), 2)
        assert caught.value.reason is not Reason.CONNECTION_CLOSED


async def test_cancelling_a_receive_withdraws_it_and_loses_nothing() -> None:
    async with pair(framers=length_framed()) as (client, server):
        withdrawn, kept = server.receive(), server.receive()
        withdrawn.cancel()
        client.send(b"one")
        client.send(b"two")
        assert bytes(await kept) == b"one"
        assert bytes(await server.receive()) == b"two"


async def test_wait_for_that_gives_up_loses_nothing() -> None:
    async with pair(framers=length_framed()) as (client, server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.receive(), 0.01)
        client.send(b"one")
        assert bytes(await server.receive()) == b"one"


async def test_a_task_cancelled_when_its_message_has_just_come_loses_nothing() -> None:
    async with pair(framers=length_framed()) as (client, server):
        future: asyncio.Future[Message] | None = None

        async def take() -> Message:
            nonlocal future
            future = server.receive()
            return await future

        task = asyncio.create_task(take())
        await turns(1)
        assert future is not None
        future.add_done_callback(lambda _: task.cancel())
        client.send(b"one")
        client.send(b"two")
        await asyncio.wait([task])
        taken = [] if task.cancelled() else [bytes(task.result())]
        while len(taken) < 2:
            taken.append(bytes(await asyncio.wait_for(server.receive(), 2)))
        assert taken == [b"one", b"two"]


async def test_a_task_cancelled_inside_iteration_loses_nothing() -> None:
    async with pair(framers=length_framed()) as (client, server):
        taken: list[bytes] = []

        async def iterate() -> None:
            async for message in server:
                taken.append(bytes(message))

        sent = 0
        for _ in range(20):
            task = asyncio.create_task(iterate())
            for _ in range(10):
                client.send(b"%d" % sent)
                sent += 1
            await turns(2)
            task.cancel()
            await asyncio.wait([task])
        client.send(b"end", final=True)
        await iterate()
        assert taken == [b"%d" % number for number in range(sent)] + [b"end"]


async def test_what_is_received_is_bytes() -> None:
    async with pair(framers=length_framed()) as (client, server):
        client.send(bytearray(b"data"))
        assert type((await server.receive()).data) is bytes


async def test_a_received_context_knows_where_its_message_came_from() -> None:
    async with pair(framers=length_framed()) as (client, server):
        client.send(b"x")
        context = (await server.receive()).context
        assert context.remote_endpoint is not None
        assert client.local_endpoint is not None
        assert context.remote_endpoint.port == client.local_endpoint.port
        assert context.local_endpoint is not None
        assert client.remote_endpoint is not None
        assert context.local_endpoint.port == client.remote_endpoint.port
        assert context.early_data is False


@pytest.mark.parametrize(
    ("minimum", "maximum", "error"),
    [
        (0, None, ValueError),
        (None, 0, ValueError),
        (-1, None, ValueError),
        (1.5, None, TypeError),
        (None, "9", TypeError),
    ],
)
async def test_lengths_are_whole_numbers_above_nothing(
    minimum: Any, maximum: Any, error: type[Exception]
) -> None:
    async with to_plain_peer() as (connection, _):
        with pytest.raises(error):
            connection.receive(minimum, maximum)


async def test_receives_before_ready_are_answered_afterwards() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        asked = connection.receive(min_incomplete_length=1)
        peer = await server.accept()
        await peer.send(b"x")
        assert bytes(await asked) == b"x"
        assert connection.state is ConnectionState.ESTABLISHED
        connection.abort()


async def test_a_datagram_above_the_maximum_comes_in_parts() -> None:
    async with pair(datagrams()) as (client, server):
        client.send(b"abcdef")
        first, second = await server.receive(max_length=4), await server.receive(max_length=4)
        assert (bytes(first), first.end_of_message) == (b"abcd", False)
        assert (bytes(second), second.end_of_message) == (b"ef", True)
        assert first.context is second.context


async def test_a_connection_that_only_sends_receives_nothing() -> None:
    async with to_plain_peer(stream(direction=Direction.UNIDIRECTIONAL_SEND)) as (connection, peer):
        assert not connection.can_receive
        await connection.send(b"x")
        assert await peer.receive(1) == b"x"


async def test_data_that_came_before_a_break_can_still_be_received() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        await peer.send(framed(b"one") + framed(b"two"))
        await until(lambda: connection.statistics["messages_received"] == 2)
        peer.reset()
        await until(lambda: connection.state is ConnectionState.CLOSED)
        assert [bytes(await connection.receive()) for _ in range(2)] == [b"one", b"two"]
        with pytest.raises(ReceiveError) as caught:
            await connection.receive()
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        await _no_more(connection)


async def test_part_of_a_message_that_broke_off_is_told_by_its_context() -> None:
    async with to_plain_peer() as (connection, peer):
        await peer.send(b"part")
        part = await connection.receive(min_incomplete_length=4)
        peer.reset()
        with pytest.raises(ReceiveError) as caught:
            await connection.receive()
        assert caught.value.context is part.context


async def test_a_thousand_messages_in_one_segment_all_come() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        await peer.send(b"".join(framed(b"%d" % number) for number in range(1000)))
        received = [int(bytes(await connection.receive())) for _ in range(1000)]
        assert received == list(range(1000))


async def _no_more(connection: Connection) -> None:
    with pytest.raises(ConnectionError):
        await drained(connection)


async def test_a_whole_stream_counts_as_one_message() -> None:
    async with pair() as (client, server):
        await client.send(b"all there is", final=True)
        assert bytes(await server.receive()) == b"all there is"
        assert server.statistics["messages_received"] == 1
        assert server.statistics["bytes_received"] == 12
