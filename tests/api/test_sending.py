"""Sending: order, priority, lifetimes, Final (RFC 9622 section 9.2)."""

from __future__ import annotations

import array
import asyncio
from typing import Any

import pytest

from api.loopback import (
    BOTH_LOOPS,
    PlainServer,
    blocked,
    datagrams,
    framed,
    going_to,
    length_framed,
    listening_on,
    pair,
    port_of,
    stream,
    to_plain_peer,
    turns,
    until,
)
from neatpy import (
    Connection,
    Direction,
    Expired,
    MessageContext,
    Preference,
    PropertyError,
    Reason,
    SendError,
)

pytestmark = BOTH_LOOPS


async def test_sends_before_ready_leave_in_their_order() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        sent = [connection.send(bytes([65 + number])) for number in range(20)]
        assert not any(future.done() for future in sent)
        assert await (await server.accept()).receive(20) == b"ABCDEFGHIJKLMNOPQRST"
        await asyncio.gather(*sent)
        connection.abort()


async def test_sends_before_ready_leave_by_priority_and_within_one_in_order() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        reports: list[str] = []
        for name, priority in (("low", 300), ("default", 100), ("high", 1), ("low again", 300)):
            future = connection.send(f"[{name}]".encode(), msg_priority=priority)
            future.add_done_callback(lambda _, name=name: reports.append(name))  # type: ignore[misc]
        assert await (await server.accept()).receive(31) == b"[high][default][low][low again]"
        await until(lambda: len(reports) == 4)
        assert reports == ["high", "default", "low", "low again"]
        connection.abort()


async def test_priority_reorders_what_is_queued_while_blocked() -> None:
    async with to_plain_peer() as (connection, peer):
        waiting = blocked(connection)
        late, soon = connection.send(b"late"), connection.send(b"soon", msg_priority=1)
        order: list[str] = []
        late.add_done_callback(lambda _: order.append("late"))
        soon.add_done_callback(lambda _: order.append("soon"))
        reading = asyncio.create_task(peer.receive_to_end())
        await asyncio.gather(*waiting, late, soon)
        connection.close()
        data = await reading
        assert order == ["soon", "late"]
        assert data.endswith(b"late")
        assert data.index(b"soon") < len(data) - 8


async def test_a_thousand_sends_in_one_go_are_sent_in_order_exactly_once() -> None:
    async with to_plain_peer() as (connection, peer):
        reports: list[int] = []
        for number in range(1000):
            future = connection.send(b"%04d" % number)
            future.add_done_callback(lambda _, number=number: reports.append(number))  # type: ignore[misc]
        assert await peer.receive(4000) == b"".join(b"%04d" % number for number in range(1000))
        await until(lambda: len(reports) >= 1000)
        assert reports == list(range(1000))
        assert connection.statistics["messages_sent"] == 1000
        assert connection.statistics["bytes_sent"] == 4000


async def test_a_sender_that_awaits_each_send_cannot_starve_the_loop() -> None:
    async with to_plain_peer() as (connection, peer):
        turned = 0

        async def turn() -> None:
            nonlocal turned
            while True:
                turned += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        await asyncio.sleep(0)
        before = turned
        for _ in range(1000):
            await connection.send(b"x")
        assert turned - before >= 5
        turning.cancel()
        assert await peer.receive(1000) == b"x" * 1000


async def test_nobody_has_to_await_a_send_that_fails(complaints: list[Any]) -> None:
    async with to_plain_peer() as (connection, _):
        waiting = blocked(connection)
        connection.abort()
        assert waiting[-1].done()
        del waiting


async def test_cancelling_a_send_drops_the_report_and_not_the_message() -> None:
    async with to_plain_peer() as (connection, peer):
        waiting = blocked(connection)
        dropped = connection.send(b"dropped report")
        assert dropped.cancel()
        timed = connection.send(b"timed out report")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(timed, 0.01)
        last = connection.send(b"the end")
        reading = asyncio.create_task(peer.receive_to_end())
        await asyncio.gather(*waiting, last)
        connection.close()
        assert (await reading).endswith(b"dropped reporttimed out reportthe end")
        assert dropped.cancelled()


@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytes"),
        memoryview(b"bytes"),
        array.array("B", b"bytes"),
        memoryview(b"b.y.t.e.s.")[::2],
    ],
    ids=["bytes", "bytearray", "memoryview", "array", "strided"],
)
async def test_send_takes_whatever_is_bytes_like(data: Any) -> None:
    async with to_plain_peer() as (connection, peer):
        await connection.send(data)
        assert await peer.receive(5) == b"bytes"


async def test_wider_items_count_as_their_bytes() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        numbers = array.array("I", [1, 2])
        await connection.send(memoryview(numbers))
        assert await peer.receive(12) == framed(numbers.tobytes())
        assert connection.statistics["bytes_sent"] == 8


@pytest.mark.parametrize("wrong", ["text", 5, None, ["x"]])
async def test_anything_else_is_a_type_error(wrong: Any) -> None:
    async with to_plain_peer() as (connection, _):
        with pytest.raises(TypeError):
            connection.send(wrong)


async def test_a_buffer_changed_after_send_changes_nothing_that_was_sent() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        buffer = bytearray(b"early")
        connection.send(buffer)
        buffer[:] = b"XXXXX"
        peer = await server.accept()
        assert await peer.receive(5) == b"early"
        waiting = blocked(connection)
        buffer = bytearray(b"later")
        connection.send(buffer)
        buffer[:] = b"XXXXX"
        buffer.clear()  # it is not held either
        reading = asyncio.create_task(peer.receive_to_end())
        await asyncio.gather(*waiting)
        connection.close()
        assert (await reading).endswith(b"later")


async def test_empty_data_is_nothing_on_a_raw_stream() -> None:
    async with to_plain_peer() as (connection, peer):
        context = MessageContext()
        assert await connection.send(b"", context) is context
        await connection.send(b"x")
        assert await peer.receive(1) == b"x"


async def test_empty_data_is_a_message_where_a_framer_has_boundaries() -> None:
    async with pair(framers=length_framed()) as (client, server):
        client.send(b"")
        client.send(b"x")
        assert [bytes(await server.receive()), bytes(await server.receive())] == [b"", b"x"]


async def test_the_context_given_comes_back_in_sent_and_can_serve_again() -> None:
    async with pair(framers=length_framed()) as (client, server):
        context = MessageContext(msg_priority=7)
        assert await client.send(b"one", context) is context
        assert await client.send(b"two", context) is context
        assert [bytes(await server.receive()), bytes(await server.receive())] == [b"one", b"two"]


async def test_a_context_changed_after_send_has_no_effect_on_that_send() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        context = MessageContext(msg_priority=500)
        connection.send(b"slow", context)
        context.msg_priority = 0
        connection.send(b"fast")
        assert await (await server.accept()).receive(8) == b"fastslow"
        connection.abort()


async def test_message_properties_of_the_call_are_for_this_message_alone() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        context = MessageContext()
        connection.send(b"3", context, msg_priority=300)
        connection.send(b"1", context)
        connection.send(b"2")
        assert context.explicit() == {}
        assert await (await server.accept()).receive(3) == b"123"
        connection.abort()


async def test_message_properties_of_the_preconnection_are_the_defaults() -> None:
    with PlainServer() as server:
        connection = going_to(server.port, stream(msg_priority=50)).initiate()
        connection.send(b"2")
        connection.send(b"3", MessageContext(msg_priority=60))
        connection.send(b"1", MessageContext(msg_priority=40))
        assert await (await server.accept()).receive(3) == b"123"
        connection.abort()


async def test_a_default_set_on_the_connection_holds_from_then_on() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        connection.send(b"2")
        connection.set_property("msg_priority", 1)
        connection.send(b"1")
        assert await (await server.accept()).receive(2) == b"12"
        connection.abort()


async def test_an_unknown_or_wrong_message_property_raises_at_once() -> None:
    async with to_plain_peer() as (connection, _):
        with pytest.raises(ValueError, match="urgency"):
            connection.send(b"x", urgency=3)
        with pytest.raises(ValueError, match=r"(?i)priority"):
            connection.send(b"x", msg_priority=-1)
        with pytest.raises(PropertyError):
            connection.send(b"x", conn_timeout=3)
        assert await connection.send(b"fine")


# Lifetimes


async def test_a_lifetime_ends_while_blocked() -> None:
    async with to_plain_peer() as (connection, peer):
        waiting = blocked(connection)
        context = MessageContext(msg_lifetime=0.02)
        with pytest.raises(Expired) as caught:
            await connection.send(b"too late", context)
        assert caught.value.context is context
        assert caught.value.reason is Reason.TIMEOUT
        last = connection.send(b"the end")
        reading = asyncio.create_task(peer.receive_to_end())
        await asyncio.gather(*waiting, last)
        connection.close()
        data = await reading
        assert data.endswith(b"the end")
        assert b"too late" not in data


async def test_a_lifetime_ends_before_ready() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        gone = connection.send(b"gone", msg_lifetime=0.000001)
        here = connection.send(b"here", msg_lifetime=60)
        with pytest.raises(Expired):
            await gone
        peer = await server.accept()
        await here
        connection.close()
        assert await peer.receive_to_end() == b"here"


async def test_a_default_lifetime_holds_for_every_message() -> None:
    async with to_plain_peer(stream(msg_lifetime=0.02)) as (connection, _):
        waiting = blocked(connection)
        with pytest.raises(Expired):
            await waiting[-1]


async def test_a_message_sent_in_time_never_expires() -> None:
    async with to_plain_peer() as (connection, peer):
        await connection.send(b"in time", msg_lifetime=0.01)
        assert await peer.receive(7) == b"in time"
        await asyncio.sleep(0.02)
        await connection.send(b"!")
        assert await peer.receive(1) == b"!"


# Final


async def test_final_half_closes_and_receiving_goes_on() -> None:
    async with to_plain_peer() as (connection, peer):
        await connection.send(b"that is all", final=True)
        assert await peer.receive_to_end() == b"that is all"
        assert not connection.can_send
        assert connection.can_receive
        with pytest.raises(SendError) as caught:
            await connection.send(b"more")
        assert caught.value.reason is Reason.CONNECTION_CLOSED
        await peer.send(b"still here")
        assert bytes(await connection.receive(min_incomplete_length=10)) == b"still here"


async def test_final_is_last_whatever_its_priority() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        connection.send(b"normal")
        connection.send(b"unimportant", msg_priority=1000)
        connection.send(b"final", msg_priority=0, final=True)
        assert await (await server.accept()).receive_to_end() == b"normalunimportantfinal"
        connection.abort()


async def test_an_empty_final_message_half_closes_a_raw_stream() -> None:
    async with to_plain_peer() as (connection, peer):
        connection.send(b"data")
        await connection.send(b"", final=True)
        assert await peer.receive_to_end() == b"data"


async def test_a_final_message_in_parts_ends_with_its_last_part() -> None:
    async with to_plain_peer() as (connection, peer):
        context = MessageContext(final=True)
        connection.send(b"1", context, end_of_message=False)
        connection.send(b"2", context, end_of_message=False)
        assert connection.can_send
        connection.send(b"3", context)
        assert await peer.receive_to_end() == b"123"


async def test_final_waits_for_what_is_blocked_before_it() -> None:
    async with to_plain_peer() as (connection, peer):
        waiting = blocked(connection)
        final = connection.send(b"final", final=True)
        refused = connection.send(b"refused")
        with pytest.raises(SendError):
            await refused
        data = await peer.receive_to_end()
        assert data.endswith(b"final")
        await asyncio.gather(*waiting, final)


async def test_after_a_final_message_the_receiver_sees_final_on_its_context() -> None:
    async with pair() as (client, server):
        client.send(b"all", final=True)
        message = await server.receive()
        assert bytes(message) == b"all"
        assert message.context.final


# Contradictions


async def test_msg_reliable_must_agree_with_the_connection() -> None:
    async with to_plain_peer() as (connection, peer):
        with pytest.raises(SendError) as caught:
            await connection.send(b"x", msg_reliable=False)
        assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES
        await connection.send(b"y", msg_reliable=True)
        assert await peer.receive(1) == b"y"


async def test_msg_reliable_may_differ_where_per_message_reliability_was_asked_for() -> None:
    async with to_plain_peer(stream(per_msg_reliability=Preference.PREFER)) as (connection, peer):
        await connection.send(b"x", msg_reliable=False)
        assert await peer.receive(1) == b"x"


async def test_a_message_that_must_not_be_doubled_is_refused_by_udp() -> None:
    async with pair(datagrams()) as (client, server):
        context = MessageContext(safely_replayable=False)
        with pytest.raises(SendError) as caught:
            await client.send(b"once", context)
        assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES
        assert caught.value.context is context
        await client.send(b"whatever")
        assert bytes(await server.receive()) == b"whatever"


async def test_a_message_that_udp_refuses_is_refused_before_ready_as_well() -> None:
    async with listening_on(datagrams()).listen() as listener:
        first, second = MessageContext(safely_replayable=False), MessageContext(msg_ordered=True)
        client = going_to(port_of(listener), datagrams()).initiate_with_send(b"once", first)
        assert client.initial_send is not None
        ordered = client.send(b"in order", second)
        sent = client.send(b"whatever")
        await asyncio.wait_for(sent, 2)
        for refused, context in ((client.initial_send, first), (ordered, second)):
            with pytest.raises(SendError) as caught:
                await refused
            assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES
            assert caught.value.context is context
        server = await asyncio.wait_for(listener.accept(), 2)
        assert bytes(await server.receive()) == b"whatever"
        client.abort()
        server.abort()


async def test_after_a_final_message_that_did_not_leave_another_one_can() -> None:
    async with listening_on(datagrams()).listen() as listener:
        client = going_to(port_of(listener), datagrams()).initiate()
        refused = client.send(b"bad", final=True, msg_ordered=True)
        await client
        with pytest.raises(SendError):
            await refused
        with pytest.raises(SendError):
            await client.send(bytes(70_000), final=True)
        with client.batch(), pytest.raises(Expired):
            await client.send(b"late", final=True, msg_lifetime=1e-6)
        assert client.can_send
        await client.send(b"the last", final=True)
        server = await asyncio.wait_for(listener.accept(), 2)
        assert bytes(await server.receive()) == b"the last"
        client.abort()
        server.abort()


@pytest.mark.parametrize("by_default", [False, True], ids=["of the Message", "of the Connection"])
async def test_a_message_that_must_come_in_order_is_refused_by_udp(by_default: bool) -> None:
    properties = datagrams(msg_ordered=True) if by_default else datagrams()
    async with listening_on(datagrams()).listen() as listener:
        client = await going_to(port_of(listener), properties).initiate()
        with pytest.raises(SendError, match="order") as caught:
            await (client.send(b"x") if by_default else client.send(b"x", msg_ordered=True))
        assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES
        await client.send(b"whenever", msg_ordered=False)
        server = await asyncio.wait_for(listener.accept(), 2)
        assert bytes(await server.receive()) == b"whenever"
        client.abort()
        server.abort()


async def test_a_datagram_too_large_is_a_send_error() -> None:
    async with pair(datagrams()) as (client, server):
        with pytest.raises(SendError) as caught:
            await client.send(bytes(70_000))
        assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
        await client.send(b"fits")
        assert bytes(await server.receive()) == b"fits"


async def test_a_connection_that_only_receives_refuses_to_send() -> None:
    wanted = stream(direction=Direction.UNIDIRECTIONAL_RECEIVE)
    async with to_plain_peer(wanted) as (connection, peer):
        assert not connection.can_send
        with pytest.raises(SendError):
            await connection.send(b"x")
        await peer.send(b"y")
        assert bytes(await connection.receive(min_incomplete_length=1)) == b"y"


async def test_a_send_after_the_end_is_refused_with_the_reason_of_the_end() -> None:
    async with to_plain_peer() as (connection, _):
        connection.abort()
        context = MessageContext()
        with pytest.raises(SendError) as caught:
            await connection.send(b"x", context)
        assert caught.value.reason is Reason.LOCAL_ABORT
        assert caught.value.context is context
        await _refused(connection)


async def _refused(connection: Connection) -> None:
    future = connection.send(b"x")
    assert future.done()
    assert isinstance(future.exception(), SendError)
    await turns(1)


@pytest.mark.parametrize("wrong", ["context", {}, 5, MessageContext])
async def test_a_context_of_another_kind_is_a_type_error(wrong: Any) -> None:
    async with to_plain_peer() as (connection, _):
        with pytest.raises(TypeError, match="MessageContext"):
            connection.send(b"data", wrong)
