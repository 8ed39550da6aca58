"""Partial sends and batches (RFC 9622 sections 9.2.3 and 9.2.4)."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from api.loopback import (
    BOTH_LOOPS,
    PlainServer,
    blocked,
    framed,
    going_to,
    length_framed,
    listening_on,
    pair,
    port_of,
    to_plain_peer,
)
from neatpy import (
    Expired,
    MessageContext,
    Reason,
    SendError,
)

pytestmark = BOTH_LOOPS


async def test_parts_with_one_context_are_one_message() -> None:
    async with pair(framers=length_framed()) as (client, server):
        context = MessageContext()
        parts = [
            client.send(b"a", context, end_of_message=False),
            client.send(b"b", context, end_of_message=False),
        ]
        other = client.send(b"other")
        parts.append(client.send(b"c", context))
        assert await asyncio.gather(*parts) == [context] * 3
        await other
        assert [bytes(await server.receive()), bytes(await server.receive())] == [b"abc", b"other"]


async def test_a_part_without_a_context_is_an_error() -> None:
    async with pair(framers=length_framed()) as (client, server):
        with pytest.raises(SendError) as caught:
            await client.send(b"part of what?", end_of_message=False)
        assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES
        await client.send(b"fine")
        assert bytes(await server.receive()) == b"fine"


async def test_another_message_waits_until_the_parts_are_complete() -> None:
    async with to_plain_peer() as (connection, peer):
        context = MessageContext()
        connection.send(b"1", context, end_of_message=False)
        other = connection.send(b"4")
        assert await peer.receive(1) == b"1"
        assert not other.done()
        connection.send(b"2", context, end_of_message=False)
        assert await peer.receive(1) == b"2"
        assert not other.done()
        connection.send(b"3", context)
        assert await peer.receive(2) == b"34"
        await other


async def test_parts_of_two_messages_do_not_mix() -> None:
    async with pair(framers=length_framed()) as (client, server):
        one, two = MessageContext(), MessageContext()
        client.send(b"1", one, end_of_message=False)
        client.send(b"2", two, end_of_message=False)
        client.send(b"2", two)
        client.send(b"1", one)
        assert [bytes(await server.receive()), bytes(await server.receive())] == [b"11", b"22"]


@pytest.mark.parametrize("framers", [False, True], ids=["raw", "framed"])
async def test_the_last_part_may_be_empty(framers: bool) -> None:
    async with to_plain_peer(framers=length_framed() if framers else ()) as (connection, peer):
        context = MessageContext()
        connection.send(b"part", context, end_of_message=False)
        last = connection.send(b"", context)
        after = connection.send(b"after")
        assert await peer.receive(4 + 8 * framers + 5) == (
            framed(b"part") + framed(b"after") if framers else b"partafter"
        )
        await asyncio.wait_for(asyncio.gather(last, after), 1)


async def test_parts_sent_before_ready_stay_together() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        context = MessageContext()
        connection.send(b"1", context, end_of_message=False)
        connection.send(b"3")
        connection.send(b"2", context)
        assert await (await server.accept()).receive(3) == b"123"
        connection.abort()


async def test_parts_of_a_framed_message_are_sent_while_the_framer_holds_them() -> None:
    async with pair(framers=length_framed()) as (client, server):
        context = MessageContext()
        first = client.send(b"held", context, end_of_message=False)
        assert await asyncio.wait_for(first, 1) is context
        assert server.statistics["bytes_received"] == 0
        await client.send(b" and gone", context)
        assert bytes(await server.receive()) == b"held and gone"


async def test_a_message_in_parts_expires_as_a_whole_and_lets_others_pass() -> None:
    async with to_plain_peer() as (connection, peer):
        waiting = blocked(connection)
        context = MessageContext(msg_lifetime=0.02)
        parts = [connection.send(b"too", context, end_of_message=False)]
        after = connection.send(b"the end")
        for part in parts:
            with pytest.raises(Expired):
                await part
        with pytest.raises(Expired):
            await connection.send(b"late", context)
        reading = asyncio.create_task(peer.receive_to_end())
        await asyncio.gather(*waiting, after)
        connection.close()
        data = await reading
        assert data.endswith(b"the end")
        assert b"too" not in data


async def test_close_sends_what_there_is_of_a_message_on_a_raw_stream_and_what_was_sent_after_it() -> None:
    async with to_plain_peer() as (connection, peer):
        connection.send(b"begun,", MessageContext(), end_of_message=False)
        after = connection.send(b"after")
        closing = connection.close()
        assert await peer.receive_to_end() == b"begun,after"
        await asyncio.wait_for(asyncio.gather(after, closing), 2)


async def test_close_answers_at_once_what_waits_for_the_end_of_a_message() -> None:
    async with pair(framers=length_framed()) as (client, server):
        client.send(b"whole")
        client.send(b"begun", MessageContext(), end_of_message=False)
        after = client.send(b"after")
        await asyncio.wait_for(client.close(), 2)
        with pytest.raises(SendError, match="had ended") as caught:
            await asyncio.wait_for(after, 1)
        assert caught.value.reason is Reason.CONNECTION_CLOSED
        assert [bytes(message) async for message in server] == [b"whole"]


async def test_close_before_ready_gives_up_a_message_that_never_ended_and_delivers_the_rest() -> None:
    async with listening_on(framers=length_framed()).listen() as listener:
        client = going_to(port_of(listener), framers=length_framed()).initiate()
        begun = client.send(b"begun", MessageContext(), end_of_message=False)
        after = client.send(b"after")
        closing = client.close()
        server = await asyncio.wait_for(listener.accept(), 2)
        assert [bytes(message) async for message in server] == [b"after"]
        await asyncio.wait_for(asyncio.gather(after, closing), 2)
        with pytest.raises(SendError, match="had ended"):
            await begun
        await server.close()


async def test_final_in_a_batch_half_closes_after_everything() -> None:
    async with to_plain_peer() as (connection, peer):
        with connection.batch():
            connection.send(b"final", final=True)
            # A Final Message is the last: what comes later is refused, and what came earlier leaves first.
            refused = connection.send(b"refused")
        assert isinstance(refused.exception(), SendError)
        assert await peer.receive_to_end() == b"final"


async def test_a_context_can_serve_another_message_after_its_last_part() -> None:
    async with pair(framers=length_framed()) as (client, server):
        context = MessageContext()
        for data in (b"ab", b"cd"):
            client.send(data[:1], context, end_of_message=False)
            client.send(data[1:], context)
        assert [bytes(await server.receive()), bytes(await server.receive())] == [b"ab", b"cd"]


# Batches


async def test_a_batch_leaves_together_at_its_end() -> None:
    async with to_plain_peer() as (connection, peer):
        with connection.batch():
            futures = [connection.send(b"%d" % number) for number in range(5)]
            assert not any(future.done() for future in futures)
        assert await peer.receive(5) == b"01234"
        await asyncio.gather(*futures)


async def test_a_batch_is_ordered_by_priority() -> None:
    async with to_plain_peer() as (connection, peer):
        with connection.batch():
            connection.send(b"2")
            connection.send(b"1", msg_priority=1)
        assert await peer.receive(2) == b"12"


async def test_a_batch_never_ended_ends_with_the_turn_of_the_loop() -> None:
    async with to_plain_peer() as (connection, peer):
        connection.start_batch()
        future = connection.send(b"held")
        assert not future.done()
        await asyncio.wait_for(future, 1)
        assert await peer.receive(4) == b"held"


async def test_awaiting_inside_a_batch_cannot_deadlock() -> None:
    async with to_plain_peer() as (connection, peer):
        with connection.batch():
            await asyncio.wait_for(connection.send(b"one"), 1)
            await asyncio.wait_for(connection.send(b"two"), 1)
        assert await peer.receive(6) == b"onetwo"
        await asyncio.wait_for(connection.send(b"three"), 1)


async def test_batches_nest() -> None:
    async with to_plain_peer() as (connection, peer):
        with connection.batch():
            with connection.batch():
                first = connection.send(b"1")
            assert not first.done()
            connection.send(b"2")
        assert await peer.receive(2) == b"12"


async def test_a_batch_ended_by_an_exception_is_sent() -> None:
    async with to_plain_peer() as (connection, peer):
        with suppress(ZeroDivisionError), connection.batch():
            connection.send(b"sent")
            raise ZeroDivisionError
        assert await peer.receive(4) == b"sent"


async def test_ending_a_batch_that_was_not_begun_is_harmless() -> None:
    async with to_plain_peer() as (connection, peer):
        connection.end_batch()
        await connection.send(b"x")
        assert await peer.receive(1) == b"x"
