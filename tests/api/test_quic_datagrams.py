"""Unreliable Messages over QUIC: as datagrams beside the first stream, where reliability is chosen Message by Message,
and as all that a Connection carries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.loopback import BOTH_LOOPS, length_framed, port_of, turns, until
from api.quic_loopback import (
    TIME,
    everything_is_given_back,
    exactly,
    going_to,
    listening,
    pair,
    streams,
    transport_of,
)
from neatpy import (
    Connection,
    Framer,
    Message,
    MessageContext,
    MessageFramer,
    Preference,
    SendError,
    TransportProperties,
)
from neatpy.framers import DelimiterFramer, TypeLengthValueFramer

pytest.importorskip("aioquic")
__all__ = ["everything_is_given_back"]
pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("everything_is_given_back")]


def mixed(**properties: Any) -> TransportProperties:
    """Streams on which Messages may be unreliable."""
    return streams(per_msg_reliability=Preference.REQUIRE, **properties)


async def received(connection: Connection) -> Message:
    return await asyncio.wait_for(connection.receive(), TIME)


def frames_sent(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every datagram that this side sends from now on."""
    engine = transport_of(connection).engine
    sent: list[bytes] = []
    before = engine.send_unreliably

    def send(data: bytes) -> None:
        sent.append(data)
        before(data)

    monkeypatch.setattr(engine, "send_unreliably", send)
    return sent


# Unframed


async def test_an_unreliable_message_comes_amid_the_stream_as_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(mixed()) as (client, server):
        sent = frames_sent(client, monkeypatch)
        client.send(b"the stream ")
        assert await exactly(server, 11) == b"the stream "
        client.send(b"a position", msg_reliable=False)
        message = await received(server)
        assert (bytes(message), message.end_of_message) == (b"a position", True)
        assert message.context.msg_reliable is False
        assert sent == [b"a position"]
        client.send(b"goes on", final=True)
        assert bytes(await received(server)) == b"goes on"


async def test_the_server_sends_unreliably_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(mixed()) as (client, server):
        sent = frames_sent(server, monkeypatch)
        server.send(b"news", msg_reliable=False)
        assert bytes(await received(client)) == b"news"
        assert sent == [b"news"]


async def test_it_goes_before_what_has_come_of_the_stream_and_is_not_asked_for() -> None:
    async with pair(mixed()) as (client, server):
        client.send(b"begun")
        await until(lambda: server.statistics["bytes_received"] == 5)
        waiting = server.receive()
        for number in range(3):
            client.send(b"%d" % number, msg_reliable=False)
        assert bytes(await asyncio.wait_for(waiting, TIME)) == b"0"
        assert [bytes(await received(server)) for _ in range(2)] == [b"1", b"2"]
        assert await exactly(server, 5) == b"begun"


async def test_a_part_of_the_stream_that_nobody_took_stays_a_part_of_it() -> None:
    async with pair(mixed()) as (client, server):
        client.send(b"begun")
        await until(lambda: server.statistics["bytes_received"] == 5)
        part = server.receive(min_incomplete_length=5)
        client.send(b"apart", msg_reliable=False)
        await until(lambda: server.statistics["messages_received"] == 1)
        assert bytes(await part) == b"begun"
        waiting = server.receive(min_incomplete_length=1)
        assert bytes(await asyncio.wait_for(waiting, TIME)) == b"apart"
        client.send(b" and ended", final=True)
        assert bytes(await received(server)) == b" and ended"


async def test_iterating_gives_each_and_the_stream_last() -> None:
    async with pair(mixed()) as (client, server):
        client.send(b"all of ")
        client.send(b"one", msg_reliable=False)
        client.send(b"two", msg_reliable=False)
        client.send(b"the stream", final=True)
        async with asyncio.timeout(TIME):
            messages = [bytes(message) async for message in server]
        assert messages == [b"one", b"two", b"all of the stream"]


@pytest.mark.parametrize("size", ["larger than a packet", "in parts", "the final one"])
async def test_what_cannot_be_a_datagram_is_part_of_the_stream(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(mixed()) as (client, server):
        sent = frames_sent(client, monkeypatch)
        if size == "in parts":
            context = MessageContext(msg_reliable=False)
            client.send(b"one ", context, end_of_message=False)
            client.send(b"message", context)
            expected = b"one message"
        elif size == "the final one":
            expected = b"the end"
            client.send(expected, msg_reliable=False, final=True)
        else:
            largest = client.get_properties()["singular_transmission_msg_max_len"]
            expected = bytes(largest + 1)
            client.send(expected, msg_reliable=False)
            client.send(expected[1:], msg_reliable=False)
            assert len(bytes(await received(server))) == largest
            del sent[0]
        assert await exactly(server, len(expected)) == expected
        assert sent == []


async def test_a_default_of_the_connection_makes_all_messages_unreliable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(mixed()) as (client, server):
        sent = frames_sent(client, monkeypatch)
        client.set_property("msg_reliable", False)
        client.send(b"lost or not")
        assert bytes(await received(server)) == b"lost or not"
        client.send(b"surely", msg_reliable=True)
        assert await exactly(server, 6) == b"surely"
        assert sent == [b"lost or not"]


async def test_without_being_asked_for_reliability_is_that_of_the_connection() -> None:
    async with pair() as (client, _):
        with pytest.raises(SendError, match="per_msg_reliability preferred or required"):
            await client.send(b"x", msg_reliable=False)
        assert client.get_properties()["per_msg_reliability"] is False


async def test_a_peer_that_takes_no_datagrams_gets_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(mixed(), server_properties=streams()) as (client, server):
        sent = frames_sent(client, monkeypatch)
        client.set_property("msg_reliable", False)
        client.send(b"all the same")
        assert await exactly(server, 12) == b"all the same"
        assert sent == []
        told = client.get_properties()
        assert told["per_msg_reliability"] is False
        assert told["without_effect"] == ("msg_reliable",)
        assert told["singular_transmission_msg_max_len"] is None


async def test_clones_are_streams_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(mixed(msg_reliable=False)) as (client, server):
        sent = frames_sent(client, monkeypatch)
        assert client.get_properties()["per_msg_reliability"] is True
        assert client.get_properties()["without_effect"] == ()
        clone = await client.clone()
        clone.send(b"reliably")
        await until(lambda: len(server.grouped_connections) == 2)
        (peer,) = server.grouped_connections - {server}
        assert await exactly(peer, 8) == b"reliably"
        assert sent == []
        assert clone.get_properties()["per_msg_reliability"] is False
        assert clone.get_properties()["without_effect"] == ("msg_reliable",)


# Framed


@pytest.mark.parametrize(
    ("framer", "framed"),
    [
        (length_framed()[0], b"\0\0\0\x05hello"),
        (DelimiterFramer(), b"hello\n"),
    ],
    ids=["length", "delimiter"],
)
async def test_a_framed_message_is_framed_in_its_datagram(
    framer: Framer, framed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(mixed(), framers=[framer]) as (client, server):
        sent = frames_sent(client, monkeypatch)
        client.send(b"hello", msg_reliable=False)
        message = await received(server)
        assert bytes(message) == b"hello"
        assert message.context.msg_reliable is False
        assert sent == [framed]
        client.send(b"surely")
        message = await received(server)
        assert bytes(message) == b"surely"
        assert message.context.msg_reliable is None


async def test_a_frame_that_is_half_there_is_not_disturbed() -> None:
    async with pair(mixed(), framers=[DelimiterFramer()]) as (client, server):
        context = MessageContext()
        client.send(b"one ", context, end_of_message=False)
        await until(lambda: server.statistics["bytes_received"] == 4)
        transport_of(client).engine.send_unreliably(b"apart\n")
        transport_of(client).schedule()
        assert bytes(await received(server)) == b"apart"
        client.send(b"message", context)
        assert bytes(await received(server)) == b"one message"


async def test_metadata_of_framers_come_with_it() -> None:
    framer = TypeLengthValueFramer()
    async with pair(mixed(), framers=[framer]) as (client, server):
        context = MessageContext(msg_reliable=False)
        context.add(framer, "type", 7)
        client.send(b"hello", context)
        message = await received(server)
        assert (bytes(message), message.context.get(framer, "type")) == (b"hello", 7)


async def test_framers_on_framers_are_all_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(mixed(), framers=[*length_framed(), DelimiterFramer()]) as (client, server):
        sent = frames_sent(client, monkeypatch)
        client.send(b"hello", msg_reliable=False)
        assert bytes(await received(server)) == b"hello"
        assert sent == [b"\0\0\0\x06hello\n"]


class Counting(Framer):
    """Each frame is a byte that counts them, and one byte of data: what came before decides what is right."""

    def new_sent_message(
        self, connection: Any, handle: MessageFramer, data: Any, context: MessageContext, end: bool
    ) -> None:
        handle.state = (handle.state or 0) + 1
        handle.send(bytes([handle.state]) + bytes(data), context)

    def handle_received_data(self, connection: Any, handle: MessageFramer) -> None:
        data, _, _ = handle.parse(2, 2)
        handle.advance_receive_cursor(1)
        handle.deliver_and_advance_receive_cursor(None, 1)
        assert data[0]


async def test_frames_that_need_those_before_them_stay_on_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(mixed(), framers=[Counting()]) as (client, server):
        sent = frames_sent(client, monkeypatch)
        for data in (b"a", b"b"):
            client.send(data, msg_reliable=False)
            assert bytes(await received(server)) == data
        assert sent == []
        assert client.get_properties()["per_msg_reliability"] is False


@pytest.mark.parametrize("data", [b"\0\0\0\x05hell", b"\0", b"\0\0\0\x01ab"])
async def test_a_datagram_without_a_whole_frame_is_lost_and_nothing_else(data: bytes) -> None:
    async with pair(mixed(), framers=length_framed()) as (client, server):
        transport_of(client).engine.send_unreliably(data)
        client.send(b"whole", msg_reliable=False)
        messages = [bytes(await received(server))]
        if messages == [b"a"]:
            messages = [bytes(await received(server))]
        assert messages == [b"whole"]
        assert server.statistics["datagrams_dropped"] == 1


# Bounds and ends


async def test_many_at_once_leave_in_turn_and_bound_the_queue() -> None:
    async with pair(mixed(), framers=length_framed()) as (client, server):
        futures = [client.send(bytes(1000), msg_reliable=False) for _ in range(200)]
        assert transport_of(client).engine.datagrams_waiting <= 32
        await asyncio.wait_for(asyncio.gather(*futures), TIME)
        client.send(b"done")
        async with asyncio.timeout(TIME):
            async for message in server:
                if bytes(message) == b"done":
                    break
        assert server.statistics["messages_received"] > 100


async def test_the_end_waits_for_those_before_it() -> None:
    async with pair(mixed(), framers=length_framed()) as (client, server):
        for _ in range(100):
            client.send(bytes(1000), msg_reliable=False)
        closing = client.close()
        async with asyncio.timeout(TIME):
            messages = [len(message) async for message in server]
            await closing
        assert messages == [1000] * len(messages)
        assert len(messages) > 50


async def test_a_receiver_that_is_paused_keeps_few_and_the_stream_loses_nothing() -> None:
    limit = 64 * 1024
    properties = mixed()
    properties.set("_neatpy.receive_limit", limit)
    async with pair(properties, framers=length_framed()) as (client, server):
        surely = [client.send(bytes(1000)) for _ in range(600)]
        for _ in range(600):
            client.send(b"\1" * 1000, msg_reliable=False)
        await turns(200)
        client.send(b"done")
        kinds = {0: 0, 1: 0}
        async with asyncio.timeout(TIME):
            async for message in server:
                if bytes(message) == b"done":
                    break
                kinds[message.data[0]] += 1
        assert kinds[0] == 600
        assert kinds[1] <= 600
        await asyncio.gather(*surely)


async def test_an_empty_message_is_none_of_its_own() -> None:
    async with pair(mixed()) as (client, server):
        await client.send(b"", msg_reliable=False)
        client.send(b"x", msg_reliable=False)
        assert bytes(await received(server)) == b"x"


# Where it comes from and where it leads


async def test_a_connection_that_began_early_has_datagrams_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(properties=mixed()) as listener:
        for early in (False, True):
            client = going_to(port_of(listener), properties=mixed()).initiate_with_send(
                b"at once", MessageContext(safely_replayable=True, msg_reliable=False)
            )
            server = await asyncio.wait_for(listener.accept(), TIME)
            await client
            message = await asyncio.wait_for(server.receive(min_incomplete_length=7), TIME)
            assert (bytes(message), message.context.early_data) == (b"at once", early)
            sent = frames_sent(client, monkeypatch)
            client.send(b"perhaps", msg_reliable=False)
            message = await asyncio.wait_for(server.receive(), TIME)
            assert (bytes(message), message.end_of_message) == (b"perhaps", True)
            assert sent == [b"perhaps"]
            await until(lambda: bool(_sessions_of(client)))  # noqa: B023
            await asyncio.wait_for(client.close(), TIME)
            await asyncio.wait_for(server.close(), TIME)


def _sessions_of(connection: Connection) -> Any:
    return transport_of(connection)._settings.sessions._kept


@pytest.mark.parametrize(
    ("reliability", "per_message", "expected"),
    [
        (Preference.REQUIRE, Preference.PREFER, (True, True)),
        (Preference.REQUIRE, Preference.PROHIBIT, (True, False)),
        (Preference.AVOID, Preference.REQUIRE, (True, True)),
        (Preference.AVOID, Preference.PREFER, (False, False)),
        (Preference.PROHIBIT, Preference.NO_PREFERENCE, (False, False)),
    ],
)
async def test_what_is_asked_for_decides_the_form(
    reliability: Preference, per_message: Preference, expected: tuple[bool, bool]
) -> None:
    wanted = TransportProperties(
        reliability=reliability,
        per_msg_reliability=per_message,
        preserve_order=Preference.NO_PREFERENCE,
        multistreaming=Preference.NO_PREFERENCE,
    )
    async with pair(wanted) as (client, _):
        told = client.get_properties()
        assert (told["reliability"], told["per_msg_reliability"]) == expected


async def test_quic_is_ruled_out_where_even_the_datagrams_cannot_choose() -> None:
    wanted = TransportProperties(reliability=Preference.PROHIBIT, per_msg_reliability=Preference.REQUIRE)
    async with listening() as listener:
        selection = await going_to(port_of(listener), properties=wanted).explain()
        assert "quic" in str(selection)
        assert "it always has reliability, which is prohibited" in str(selection)


async def test_an_unreliable_connection_exchanges_datagrams() -> None:
    async with pair(TransportProperties.unreliable_datagram()) as (client, server):
        client.send(b"one")
        assert bytes(await received(server)) == b"one"
        server.send(b"two")
        assert bytes(await received(client)) == b"two"
        with pytest.raises(SendError, match="do not fit one QUIC datagram"):
            await client.send(bytes(70000))


async def test_an_unreliable_connection_keeps_what_comes_while_nobody_receives() -> None:
    properties = TransportProperties.unreliable_datagram()
    properties.set("_neatpy.receive_limit", 20_000)
    async with pair(properties) as (client, server):
        await asyncio.gather(*(client.send(b"%3d" % number + bytes(997)) for number in range(100)))
        await turns(100)
        messages = [int(bytes(await received(server))[:3]) for _ in range(60)]
        assert messages == sorted(messages)
