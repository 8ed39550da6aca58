"""Handlers, the order of events, lifetimes (RFC 9622 section 11)."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import Any

import pytest

from api.loopback import (
    BOTH_LOOPS,
    MIB,
    PlainServer,
    drained,
    going_to,
    length_framed,
    listening_on,
    pair,
    plain_client,
    port_of,
    to_plain_peer,
    turns,
    until,
    until_still,
)
from neatpy import (
    CloneError,
    Connection,
    ConnectionError,  # noqa: A004
    ConnectionState,
    EstablishmentError,
    Listener,
    ReceiveError,
)

pytestmark = BOTH_LOOPS
_EVENTS = (
    "on_ready",
    "on_establishment_error",
    "on_soft_error",
    "on_path_change",
    "on_clone_error",
    "on_connection_error",
    "on_closed",
)
_place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


def _record(connection: Connection) -> list[str]:
    events: list[str] = []
    for name in _EVENTS:
        setattr(connection, name, lambda *_, name=name: events.append(name))
    return events


async def test_a_life_is_ready_and_then_closed() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        events = _record(connection)
        await connection
        await connection.close()
        await turns()
        assert events == ["on_ready", "on_closed"]


async def test_nothing_is_heard_after_the_ending_event(refused_port: int) -> None:
    with PlainServer() as server:
        closed, aborted = [await going_to(server.port).initiate() for _ in range(2)]
        failed = going_to(refused_port).initiate()
        told = [_record(connection) for connection in (closed, aborted, failed)]
        await closed.close()
        aborted.abort()
        with pytest.raises(EstablishmentError):
            await failed
        for connection in (closed, aborted, failed):
            with pytest.raises(CloneError):
                await connection.clone()
        await turns()
        assert told == [
            ["on_closed"],
            ["on_connection_error"],
            ["on_establishment_error"],
        ]


async def test_a_life_that_breaks_ends_with_one_connection_error() -> None:
    async with to_plain_peer() as (connection, peer):
        await turns()
        events = _record(connection)
        peer.reset()
        await until(lambda: events)
        assert events[-1] == "on_connection_error"
        connection.abort()
        connection.close()
        await turns()
        assert events.count("on_connection_error") == 1
        assert "on_closed" not in events


async def test_handlers_run_after_the_call_that_caused_them_has_returned() -> None:
    async with to_plain_peer() as (connection, _):
        await turns()
        events = _record(connection)
        connection.abort()
        assert events == []
        await turns(2)
        assert events == ["on_connection_error"]


async def test_no_event_comes_after_closed() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        events: list[str] = []
        connection.on_closed = lambda _: events.append("closed")
        for index in range(5):
            connection.send(b"x").add_done_callback(lambda _, index=index: events.append(f"sent {index}"))  # type: ignore[misc]
        connection.receive().add_done_callback(lambda _: events.append("received"))
        connection.close()
        await until(lambda: "closed" in events)
        await peer.receive_to_end()
        await turns()
        assert events[-1] == "closed"
        assert len(events) == 7


async def test_waiting_actions_are_answered_before_the_ending_event() -> None:
    async with to_plain_peer() as (connection, peer):
        events: list[str] = []
        connection.on_connection_error = lambda *_: events.append("error")
        connection.receive().add_done_callback(lambda _: events.append("receive"))
        peer.reset()
        await until(lambda: "error" in events)
        assert events == ["receive", "error"]


async def test_a_raising_handler_goes_to_the_loops_exception_handler_and_harms_nothing(
    complaints: list[dict[str, Any]],
) -> None:
    accepted: list[Any] = []

    def fail(*arguments: object) -> None:
        accepted.append(arguments[-1])
        raise ZeroDivisionError("in a handler")

    async with listening_on().listen() as listener:
        listener.on_connection_received = fail
        listener.on_stopped = fail
        connection = going_to(port_of(listener)).initiate()
        connection.on_ready = connection.on_closed = fail
        await connection
        await connection.send(b"x")
        await until(lambda: len(complaints) == 2)
        await connection.close()
        second = await going_to(port_of(listener)).initiate()
        await until(lambda: len(complaints) == 4)
        await second.close()
    await turns()
    for one in accepted:
        if isinstance(one, Connection):
            one.abort()
    assert [type(context["exception"]) for context in complaints] == [ZeroDivisionError] * 5
    complaints.clear()


async def test_handlers_run_in_the_context_the_object_was_made_in() -> None:
    places: list[str] = []
    with PlainServer() as server:
        _place.set("where it was made")
        connection = going_to(server.port).initiate()
        _place.set("elsewhere")
        connection.on_ready = connection.on_closed = lambda _: places.append(_place.get())
        await connection
        await connection.close()
        await turns()
        assert places == ["where it was made"] * 2


async def test_a_listeners_handlers_run_in_its_context() -> None:
    places: list[str] = []
    _place.set("where it was made")
    async with listening_on().listen() as listener:
        _place.set("elsewhere")

        def received(who: Listener, connection: Connection) -> None:
            assert who is listener
            places.append(_place.get())
            connection.abort()

        listener.on_connection_received = received
        listener.on_stopped = lambda _: places.append(_place.get())
        peer = plain_client(port_of(listener))
        await until(lambda: places)
        peer.close()
    await turns()
    assert places == ["where it was made"] * 2


async def test_a_handler_set_to_none_is_not_called() -> None:
    async with to_plain_peer() as (connection, _):
        connection.on_closed = None
        connection.close()
        connection.on_connection_error = None
        await connection.close()


async def test_a_handler_may_act_on_its_connection() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        connection.on_ready = lambda which: (which.send(b"from the handler"), which.close())
        assert await (await server.accept()).receive_to_end() == b"from the handler"
        await until(lambda: connection.state is ConnectionState.CLOSED)


async def test_nobody_has_to_keep_a_reference_to_an_idle_connection() -> None:
    async with listening_on(framers=length_framed()).listen() as listener:
        client = await going_to(port_of(listener), framers=length_framed()).initiate()
        server = await listener.accept()
        server.on_closed = server.on_connection_error = None

        async def echo(connection: Connection) -> None:
            async for message in connection:
                connection.send(message.data)
            connection.close()

        tasks = weakref.WeakSet([asyncio.create_task(echo(server))])
        del server
        await turns()
        gc.collect()
        client.send(b"anybody there?")
        assert bytes(await asyncio.wait_for(client.receive(), 2)) == b"anybody there?"
        await client.close()
        await until(lambda: not tasks or all(task.done() for task in tasks))


async def test_nobody_has_to_keep_a_reference_to_a_connection_that_is_not_reading() -> None:
    async with listening_on().listen() as listener:
        peer = plain_client(port_of(listener))
        held = weakref.ref(await listener.accept())
        flood = asyncio.create_task(peer.send(bytes(64 * MIB)))
        await until_still(lambda: _of(held).statistics["bytes_received"])
        assert not flood.done()
        gc.collect()
        _of(held)
        flood.cancel()
        await asyncio.wait([flood])
        _of(held).abort()
        peer.close()


async def test_nobody_has_to_keep_a_reference_to_a_connection_whose_peer_has_finished() -> None:
    async with listening_on().listen() as listener:
        peer = plain_client(port_of(listener))
        held = weakref.ref(await listener.accept())
        peer.finish()
        with pytest.raises(ReceiveError):
            await _of(held).receive()
        await turns()
        gc.collect()
        _of(held).send(b"still here")
        assert await peer.receive(10) == b"still here"
        _of(held).abort()
        peer.close()


async def test_a_closed_connection_is_let_go() -> None:
    async with pair() as (client, server):
        clone = await client.clone()
        held = weakref.ref(clone)
        await clone.close()
        del clone
        server.send(b"x")
        await client.receive(min_incomplete_length=1)
        await turns()
        gc.collect()
        assert held() is None
        assert len(client.grouped_connections) == 1


async def test_the_error_of_the_event_is_the_error_of_iteration() -> None:
    async with to_plain_peer() as (connection, peer):
        errors: list[BaseException] = []
        connection.on_connection_error = lambda _, error: errors.append(error)
        peer.reset()
        with pytest.raises(ConnectionError) as caught:
            await drained(connection)
        await until(lambda: errors)
        assert errors == [caught.value]


def _of(reference: weakref.ref[Connection]) -> Connection:
    connection = reference()
    assert connection is not None, "the system let go of it"
    return connection
