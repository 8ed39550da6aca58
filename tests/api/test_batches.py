"""Batches of plain Messages leave in one piece; each Message still gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.loopback import BOTH_LOOPS, blocked, length_framed, pair, stream
from neatpy import Connection, MessageContext, Reason, ReceiveError, SendError
from neatpy.framers import LengthPrefixFramer

pytestmark = BOTH_LOOPS


async def test_every_message_of_a_batch_arrives_whole_and_in_order() -> None:
    async with pair(framers=length_framed()) as (client, server):
        with client.batch():
            sent = [client.send(b"%d" % number) for number in range(1000)]
        assert [bytes(await server.receive()) for _ in range(1000)] == [
            b"%d" % number for number in range(1000)
        ]
        contexts = await asyncio.gather(*sent)
        assert len({id(context) for context in contexts}) == 1000
        assert client.statistics["messages_sent"] == 1000


async def test_one_message_that_cannot_be_sent_does_not_harm_the_others() -> None:
    async with pair(framers=[LengthPrefixFramer(1)]) as (client, server):
        with client.batch():
            fits, too_large, fits_too = client.send(b"a"), client.send(b"x" * 300), client.send(b"b")
        await fits
        await fits_too
        with pytest.raises(SendError) as caught:
            await too_large
        assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
        assert [bytes(await server.receive()) for _ in range(2)] == [b"a", b"b"]


async def test_a_message_with_properties_makes_the_batch_a_sorted_one() -> None:
    async with pair(framers=length_framed()) as (client, server):
        with client.batch():
            client.send(b"first")
            client.send(b"second", MessageContext())
            client.send(b"urgent", msg_priority=1)
            client.send(b"third")
        got = [bytes(await server.receive()) for _ in range(4)]
        assert got == [b"urgent", b"first", b"second", b"third"]


async def test_a_batch_behind_a_blocked_peer_waits_and_is_not_lost() -> None:
    async with pair(framers=length_framed()) as (client, server):
        waiting = blocked(client)
        with client.batch():
            batch = [client.send(b"late %d" % number) for number in range(10)]
        assert not any(future.done() for future in batch)
        received = [message async for message in _until(server, b"late 9")]
        assert received[-10:] == [b"late %d" % number for number in range(10)]
        await asyncio.gather(*waiting, *batch)


async def test_a_batch_larger_than_any_buffer_arrives() -> None:
    async with pair(stream()) as (client, server):
        with client.batch():
            sent = [client.send(bytes([number]) * 100_000) for number in range(100)]
        got = bytearray()
        while len(got) < 10_000_000:
            got += (await server.receive(min_incomplete_length=1)).data
        assert bytes(got) == b"".join(bytes([number]) * 100_000 for number in range(100))
        await asyncio.gather(*sent)


async def test_a_batch_that_is_aborted_answers_every_send() -> None:
    async with pair(framers=length_framed()) as (client, _):
        blocked(client)
        with client.batch():
            batch = [client.send(b"never") for _ in range(10)]
        client.abort()
        for future in batch:
            with pytest.raises(SendError) as caught:
                await future
            assert caught.value.reason is Reason.LOCAL_ABORT


async def _until(connection: Connection, last: bytes) -> AsyncIterator[bytes]:
    async for message in connection:
        yield bytes(message)
        if bytes(message) == last:
            return


@pytest.mark.parametrize("framers", [[], length_framed()], ids=["raw", "framed"])
async def test_a_batch_of_a_connection_that_ends_is_answered(framers: list[LengthPrefixFramer]) -> None:
    async with pair(framers=framers) as (client, _):
        with client.batch():
            inside = client.send(b"one"), client.send(b"two")
            client.abort()
        for sent in inside:
            with pytest.raises(SendError) as caught:
                await sent
            assert caught.value.reason is Reason.LOCAL_ABORT


async def test_a_batch_that_is_open_when_the_peer_aborts_is_answered() -> None:
    async with pair() as (client, server):
        gone = client.receive()
        waiting: list[asyncio.Future[MessageContext]] = []

        def send_in_a_batch(_: object) -> None:
            client.start_batch()
            waiting.append(client.send(b"too late"))

        gone.add_done_callback(send_in_a_batch)
        server.abort()
        with pytest.raises(ReceiveError):
            await gone
        with pytest.raises(SendError) as caught:
            await waiting[0]
        assert caught.value.reason is Reason.CONNECTION_ABORTED
