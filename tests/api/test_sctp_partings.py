"""How an SCTP association ends: by close, by abort, amid what the peer says, and with the loop."""

from __future__ import annotations

import asyncio
import time

import pytest

from neatpy import (
    CloneError,
    Connection,
    ConnectionError,
    ConnectionState,
    Message,
    MessageContext,
    Reason,
    ReceiveError,
    SendError,
)
from neatpy.stacks._sctp.library import obstacle
from neatpy.stacks._sharing import read_ahead

from .another_process import program
from .loopback import BOTH_LOOPS, MIB, length_framed, port_of, until
from .sctp_loopback import (
    everything_is_given_back,
    going_to,
    listening,
    next_peer,
    pair,
    read_all,
    ready,
    receive,
    streams_of,
)

__all__ = ["everything_is_given_back"]
pytestmark = [
    BOTH_LOOPS,
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
    pytest.mark.usefixtures("everything_is_given_back"),
]


def told_of(connection: Connection) -> list[object]:
    """What ends this Connection, as soon as something does."""
    ends: list[object] = []
    connection.on_closed = ends.append
    connection.on_connection_error = lambda _, error: ends.append(error)
    return ends


# Closing


async def test_close_delivers_everything_and_both_sides_are_closed() -> None:
    async with pair() as (client, server):
        closed: list[Connection] = []
        server.on_closed = closed.append
        for _ in range(50):
            client.send(b"x" * 20_000)
        await asyncio.wait_for(client.close(), 10)
        got = [bytes(message) async for message in server]
        assert got == [b"x" * 20_000] * 50
        await until(lambda: closed == [server])


async def test_close_while_the_peer_is_still_sending_is_quick_and_resets_nobody() -> None:
    async with pair() as (client, server):
        ended: list[object] = []
        server.on_closed = ended.append
        server.on_connection_error = lambda _, error: ended.append(error)
        sent = [server.send(bytes(MIB)) for _ in range(5)]
        await until(lambda: client.statistics["bytes_received"])
        client.send(b"bye")
        await asyncio.wait_for(client.close(), 2)
        assert bytes(await receive(server)) == b"bye"
        await asyncio.wait_for(asyncio.gather(*sent), 5)
        await until(lambda: ended)
        assert ended == [server], "whoever is listened to until the end ends well"


async def test_close_is_quick_when_a_peer_never_ends_what_it_began() -> None:
    async with pair() as (client, server):
        server.send(b"never ended", MessageContext(), end_of_message=False)
        server.send(b"x" * MIB, MessageContext(), end_of_message=False)
        client.send(b"bye")
        await asyncio.wait_for(client.close(), 2)
        assert bytes(await receive(server)) == b"bye"


async def test_close_mixes_nothing_into_a_message_that_never_ended() -> None:
    async with pair() as (client, server):
        context = MessageContext()
        client.send(bytes(12 * MIB), context, end_of_message=False)
        client.send(b"B", context, end_of_message=False)
        waiting = [client.send(b"C", context, end_of_message=False), client.send(b"whole")]
        closing = client.close()
        received: list[Message] = []
        with pytest.raises(ConnectionError, match="not ended"):
            await read_all(server, received.append)
        assert received
        assert not any(message.end_of_message for message in received)
        assert not any(b"".join(bytes(message) for message in received))
        await asyncio.wait_for(closing, 5)
        for refused in waiting:
            with pytest.raises(SendError, match="had ended"):
                await refused


@pytest.mark.parametrize("parts", [1, 2])
async def test_a_message_that_has_no_end_when_its_sender_closes_is_no_message(parts: int) -> None:
    async with pair() as (client, server):
        client.send(b"whole")
        context = MessageContext()
        for _ in range(parts):
            client.send(b"part", context, end_of_message=False)
        closing = client.close()
        assert bytes(await receive(server)) == b"whole"
        with pytest.raises(ReceiveError, match="not ended") as raised:
            await receive(server)
        assert raised.value.reason is Reason.CONNECTION_ABORTED
        await asyncio.wait_for(closing, 5)


async def test_closing_a_stream_amid_a_message_hinders_no_other_and_its_number_is_not_used_again() -> None:
    async with pair() as (client, server):
        clone = await ready(client.clone())
        context = MessageContext()
        for _ in range(2):
            clone.send(bytes(MIB), context, end_of_message=False)
        peer = await next_peer(server)
        assert not (await asyncio.wait_for(peer.receive(min_incomplete_length=1), 5)).end_of_message
        await asyncio.wait_for(clone.close(), 5)
        await peer.close()
        await until(lambda: not streams_of(client)._resetting)
        again = await ready(client.clone())
        again.send(b"another")
        assert bytes(await receive(await next_peer(server))) == b"another"
        client.send(b"bye")
        again.close()
        closing = client.close()
        assert bytes(await receive(server)) == b"bye"
        await asyncio.wait_for(closing, 5)


async def test_closing_one_of_two_goes_on_when_the_other_is_aborted() -> None:
    async with pair() as (client, server):
        clone = await ready(client.clone())
        await clone.send(b"x")
        peer = await next_peer(server)
        assert bytes(await receive(peer)) == b"x"
        client.send(bytes(3 * MIB))
        unsent = [clone.send(bytes(MIB)) for _ in range(300)]
        closing = [client.close(), clone.close()]
        reading = [asyncio.create_task(read_all(one)) for one in (server, peer)]
        await until(lambda: not client._path.flow.unsent)  # type: ignore[union-attr]
        assert not unsent[-1].done()
        clone.abort()
        await asyncio.wait_for(closing[0], 5)
        assert server.statistics["bytes_received"] == 3 * MIB
        for task in reading:
            task.cancel()


async def test_close_does_not_wait_for_news_behind_what_another_stream_is_not_received_from() -> None:
    async with pair() as (client, server):
        clone = await ready(client.clone())
        await clone.send(b"x")
        for _ in range(12):
            server.send(bytes(MIB))
        await until(lambda: streams_of(client).association._paused)
        await asyncio.wait_for(clone.close(), 5)


async def test_an_abort_is_seen_as_an_abort() -> None:
    async with pair() as (client, server):
        waiting = server.receive()
        client.abort()
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(waiting, 5)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


# Closing while the peer speaks


@pytest.mark.parametrize("size", [5_000, 20_000, 60_000])
async def test_close_amid_message_after_message_resets_nobody(size: int) -> None:
    async with pair() as (client, server):
        ends = told_of(server)
        until_when = time.monotonic() + 0.5

        async def speak() -> None:
            while time.monotonic() < until_when:
                await server.send(bytes(size))

        speaking = asyncio.create_task(speak())
        await client.receive(min_incomplete_length=1)
        await asyncio.wait_for(client.close(), 0.3)
        await asyncio.wait_for(speaking, 2)
        await until(lambda: ends)
        assert ends == [server]


async def test_close_after_an_answer_takes_no_time_to_listen() -> None:
    async with pair() as (client, server):
        for _ in range(3):
            client.send(b"question")
            server.send(bytes(await receive(server)))
            await receive(client)
        client.close()
        await asyncio.sleep(0)
        leaving = streams_of(client)._leaving
        await until(lambda: leaving.delivered)
        assert leaving.polite
        await asyncio.wait_for(client.close(), 1)


@pytest.mark.parametrize("size", [1_000, 20_000, 400_000])
async def test_framed_messages_that_came_before_the_end_are_not_lost(size: int) -> None:
    async with pair(length_framed()) as (client, server):
        count = 2_000_000 // size
        for _ in range(count):
            client.send(bytes(size))
        await until(lambda: not client._path.flow.backlog())  # type: ignore[union-attr]
        client.close()
        assert [len(message) async for message in server] == [size] * count


# Aborting one of several


async def test_an_abort_amid_a_long_message_is_heard_and_frees_its_stream() -> None:
    async with pair() as (client, server):
        clone = await ready(client.clone())
        clone.send(bytes(12 * MIB))
        clone.send(b"never")
        peer = await next_peer(server)
        clone.abort()
        assert sum([len(message) async for message in peer]) == 12 * MIB
        peer.close()
        await until(lambda: not streams_of(client)._resetting and len(server.grouped_connections) == 1)
        again = await ready(client.clone())
        again.send(b"on the same stream")
        assert bytes(await receive(await next_peer(server))) == b"on the same stream"
        assert streams_of(client)._flows.keys() == {0, 2}


async def test_an_abort_amid_a_message_without_an_end_hinders_nobody() -> None:
    async with pair() as (client, server):
        endless, other = await ready(client.clone()), await ready(client.clone())
        context = MessageContext()
        endless.send(bytes(12 * MIB), context, end_of_message=False)
        endless.send(b"more", context, end_of_message=False)
        flooded = asyncio.create_task(read_all(await next_peer(server)))
        endless.abort()
        other.send(b"and then", final=True)
        await until(lambda: len(server.grouped_connections) == 3)
        (peer,) = (one for one in server.grouped_connections if one._path.flow.stream == 4)  # type: ignore[union-attr]
        assert bytes(await receive(peer)) == b"and then"
        await until(lambda: streams_of(client)._resetting == {2: None, 4: None})
        assert not streams_of(client)._reset_under_way
        assert not flooded.done()
        flooded.cancel()


async def test_closing_waits_for_the_message_amid_which_another_was_aborted() -> None:
    async with pair() as (client, server):
        clone = await ready(client.clone())
        clone.send(bytes(12 * MIB))
        peer = await next_peer(server)
        ends = told_of(server)
        clone.abort()
        client.send(b"bye")
        closing = client.close()
        assert bytes(await receive(server)) == b"bye"
        assert sum([len(message) async for message in peer]) == 12 * MIB
        await asyncio.wait_for(closing, 5)
        await until(lambda: ends)
        assert ends == [server]


@pytest.mark.parametrize("paused", [False, True])
async def test_a_message_that_an_abort_cuts_short_is_no_message(paused: bool) -> None:
    async with pair() as (client, server):
        client.send(b"whole")
        client.send(bytes(3 * MIB))
        if paused:
            await until(lambda: server.statistics["bytes_received"] >= read_ahead(1))
        else:
            assert bytes(await receive(server)) == b"whole"
            waiting = server.receive()
            await until(lambda: server.statistics["bytes_received"] > MIB)
        client.abort()
        if paused:
            await until(lambda: server.state is ConnectionState.CLOSED)
            assert bytes(await receive(server)) == b"whole"
            waiting = server.receive()
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(waiting, 5)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_what_was_given_up_while_it_was_held_is_told_in_its_turn() -> None:
    async with pair() as (client, server):
        flow = server._path.flow
        assert flow is not None
        observer = server._path
        flow.pause_receiving()
        streams_of(server).data(0, b"begun", False, 0, False)
        streams_of(server).data_abandoned(0)
        client.send(b"after")
        waiting = server.receive()
        await until(lambda: not client._path.flow.backlog())  # type: ignore[union-attr]
        flow.resume_receiving()
        message = await asyncio.wait_for(waiting, 5)
        assert (bytes(message), message.end_of_message) == (b"after", True)
        assert observer.held == 0


async def test_a_clone_that_waits_for_more_streams_hears_that_the_association_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair() as (client, server):
        streams = streams_of(client)
        streams._supply.count = 2  # as with a peer that has no more, and does not answer
        monkeypatch.setattr(type(streams.association), "add_streams", lambda *_: None)
        clone = client.clone()
        await until(lambda: streams._supply._waiting)
        server.abort()
        with pytest.raises(CloneError) as caught:
            await asyncio.wait_for(ready(clone), 5)
        assert caught.value.reason is Reason.CONNECTION_CLOSED


# Loops that end


async def question(port: str, then: str) -> None:
    """Ask, and end with the first of what is answered."""
    client = await ready(going_to(int(port)).initiate(timeout=5))
    await client.send(b"question")
    await client.receive(min_incomplete_length=1)
    if then == "close":
        await client.close()


@pytest.mark.parametrize("then", ["close", "just end"])
async def test_a_peer_that_still_speaks_hears_that_the_loop_has_ended(then: str) -> None:
    async def speak(connection: Connection) -> None:
        while True:
            await connection.send(bytes(20_000))

    async with listening() as listener, program(question, port_of(listener), then):
        server = await asyncio.wait_for(listener.accept(), 5)
        ends = told_of(server)
        assert bytes(await receive(server)) == b"question"
        with pytest.raises(SendError):
            await asyncio.wait_for(speak(server), 4)
        await until(lambda: ends)
        if then == "just end":
            assert ends != [server]
