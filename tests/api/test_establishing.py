"""Initiate, Ready and EstablishmentError on a Connection (RFC 9622 sections 7.1 and 9.2.5)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from api.loopback import (
    BOTH_LOOPS,
    HOST,
    PlainServer,
    datagrams,
    drained,
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
    ConnectionState,
    EstablishmentError,
    MessageContext,
    Preconnection,
    Reason,
    RemoteEndpoint,
    SecurityParameters,
    SendError,
    TransportProperties,
)
from neatpy.stacks.contract import Availability
from neatpy.stacks.dtls import DtlsStack
from pki import Authority

pytestmark = BOTH_LOOPS


async def test_initiate_returns_at_once_and_awaiting_gives_the_established_connection() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        states = [connection.state]
        assert connection.stack is None
        assert connection.local_endpoint is None
        assert connection.remote_endpoint is None
        assert await connection is connection
        states.append(connection.state)
        assert states == [ConnectionState.ESTABLISHING, ConnectionState.ESTABLISHED]
        assert connection.stack == "tcp"
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.port == server.port
        assert connection.local_endpoint is not None
        assert connection.local_endpoint.address == HOST
        assert await connection is connection
        connection.abort()


async def test_many_may_wait_for_ready() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()

        async def wait() -> Connection:
            return await connection

        assert await asyncio.gather(*(wait() for _ in range(5))) == [connection] * 5
        connection.abort()


async def test_initiate_and_listen_need_the_running_loop() -> None:
    for action in (going_to(9).initiate, listening_on().listen, going_to(9).rendezvous):
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(action)


async def test_calls_from_another_thread_raise() -> None:
    async with to_plain_peer() as (connection, _):
        raised: list[BaseException] = []
        passed: list[object] = []

        async def ready(connection: Connection) -> Connection:
            return await connection

        def meddle() -> None:
            actions: tuple[Callable[[], object], ...] = (
                lambda: connection.send(b"x"),
                connection.receive,
                connection.close,
                connection.abort,
                connection.clone,
                lambda: connection.set_property("conn_timeout", 3),
                connection.get_properties,
                connection.batch,
                connection.start_batch,
                connection.end_batch,
                connection.__aiter__,
                connection.__anext__,
                lambda: asyncio.run(ready(connection)),
            )
            for action in actions:
                try:
                    action()
                except RuntimeError as error:
                    raised.append(error)
                else:
                    passed.append(action)

        thread = threading.Thread(target=meddle)
        thread.start()
        thread.join()
        assert passed == []
        assert all("call_soon_threadsafe" in str(error) for error in raised)
        assert connection.state is ConnectionState.ESTABLISHED


async def test_a_refused_connect_raises_with_every_attempt(refused_port: int) -> None:
    events: list[object] = []
    connection = going_to(refused_port).initiate()
    connection.on_establishment_error = lambda who, error: events.append((who, error))
    with pytest.raises(EstablishmentError) as caught:
        await connection
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    assert len(caught.value.attempts) == 1
    assert f"{HOST}:{refused_port}" in str(caught.value)
    assert "refused" in str(caught.value)
    await until(lambda: events)
    assert events == [(connection, caught.value)]
    assert connection.state is ConnectionState.CLOSED
    with pytest.raises(EstablishmentError):
        await connection


async def test_a_failed_establishment_ends_sends_and_receives_that_wait(refused_port: int) -> None:
    connection = going_to(refused_port).initiate()
    sent, received = connection.send(b"x"), connection.receive()
    with pytest.raises(SendError) as send_error:
        await sent
    assert send_error.value.reason is Reason.ESTABLISHMENT_FAILED
    with pytest.raises(Exception, match="refused") as receive_error:
        await received
    assert getattr(receive_error.value, "reason", None) is Reason.ESTABLISHMENT_FAILED


async def test_iterating_a_connection_that_never_was_raises(refused_port: int) -> None:
    with pytest.raises(EstablishmentError):
        await drained(going_to(refused_port).initiate())


async def test_a_timeout_ends_the_attempt() -> None:
    with PlainServer() as server:
        secured = Preconnection(remote=RemoteEndpoint(HOST, server.port), properties=stream())
        connection = secured.initiate(timeout=0.05)
        peer = await server.accept()
        with pytest.raises(EstablishmentError) as caught:
            await connection
        assert caught.value.reason is Reason.TIMEOUT
        with contextlib.suppress(ConnectionResetError):  # the ClientHello, then the end
            await peer.receive_to_end()


@pytest.mark.parametrize("wrong", [0, -1])
async def test_a_timeout_is_more_than_nothing(wrong: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        going_to(9).initiate(timeout=wrong)


async def test_async_with_aborts_the_attempt_when_it_is_cancelled() -> None:
    with PlainServer() as server:
        connection = Preconnection(remote=RemoteEndpoint(HOST, server.port), properties=stream()).initiate()

        async def use() -> None:
            async with connection:
                pytest.fail("it cannot be ready")

        task = asyncio.create_task(use())
        peer = await server.accept()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.state is ConnectionState.CLOSED
        with contextlib.suppress(ConnectionResetError):
            await peer.receive_to_end()


async def test_async_with_closes_at_the_end_and_aborts_after_an_exception() -> None:
    with PlainServer() as server:
        async with going_to(server.port).initiate() as connection:
            connection.send(b"all of it")
        assert connection.state is ConnectionState.CLOSED
        assert await (await server.accept()).receive_to_end() == b"all of it"
        with pytest.raises(ZeroDivisionError):
            async with going_to(server.port).initiate() as connection:
                raise ZeroDivisionError
        assert connection.state is ConnectionState.CLOSED
        peer = await server.accept()
        with pytest.raises(ConnectionResetError):
            await peer.receive_to_end()


async def test_initiate_with_send_gives_that_messages_future() -> None:
    with PlainServer() as server:
        context = MessageContext()
        connection = going_to(server.port).initiate_with_send(b"first", context)
        assert connection.initial_send is not None
        assert await connection.initial_send is context
        assert await (await server.accept()).receive(5) == b"first"
        connection.abort()
        assert going_to(server.port).initiate().initial_send is None


async def test_a_failed_establishment_ends_the_initial_send_with_the_establishment_error(
    refused_port: int,
) -> None:
    connection = going_to(refused_port).initiate_with_send(b"first")
    assert connection.initial_send is not None
    with pytest.raises(EstablishmentError):
        await connection.initial_send


async def test_initiate_with_send_refuses_str_at_once() -> None:
    with pytest.raises(TypeError):
        going_to(9).initiate_with_send("text")  # type: ignore[arg-type]
    await turns()


async def test_a_preconnection_is_reusable_and_a_later_change_touches_nothing_made_earlier() -> None:
    with PlainServer() as server, PlainServer() as other:
        preconnection = going_to(server.port, stream(conn_timeout=30))
        first = preconnection.initiate()
        preconnection.properties.conn_timeout = 40
        preconnection.add_remote(RemoteEndpoint(HOST, other.port))
        for framer in length_framed():
            preconnection.add_framer(framer)
        second = preconnection.initiate()
        await asyncio.gather(_ready(first), _ready(second))
        assert first.get_properties()["conn_timeout"] == 30
        assert second.get_properties()["conn_timeout"] == 40
        first.send(b"bare")
        second.send(b"framed")
        assert await (await server.accept()).receive(4) == b"bare"
        assert await (await server.accept()).receive(10) == b"\0\0\0\6framed"
        first.abort()
        second.abort()


async def test_an_endpoint_changed_after_the_action_has_no_effect_on_it() -> None:
    with PlainServer() as server:
        remote = RemoteEndpoint(HOST, server.port)
        connection = Preconnection(
            remote=remote, properties=stream(), security=SecurityParameters.disabled()
        ).initiate()
        remote.with_interface("nowhere0")
        await connection
        connection.abort()


async def test_secure_is_the_default_and_what_is_not_secure_is_no_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DtlsStack, "available", lambda self: Availability(False, "taken away for this test"))
    connection = Preconnection(remote=RemoteEndpoint(HOST, 9), properties=datagrams()).initiate()
    with pytest.raises(EstablishmentError, match=r"SecurityParameters\.disabled") as caught:
        await connection
    assert caught.value.reason is Reason.NO_CANDIDATES


async def test_tls_carries_messages_both_ways() -> None:
    authority = Authority()
    security = SecurityParameters(server_certificate=authority.issue("localhost", HOST))
    trusting = SecurityParameters(trusted_certificates=authority.root)
    async with (
        listening_on(security=security).listen() as listener,
        going_to(port_of(listener), security=trusting).initiate(timeout=5) as connection,
    ):
        server = await listener.accept()
        assert connection.stack == server.stack == "tls/tcp"
        await connection.send(b"question")
        assert bytes(await server.receive(min_incomplete_length=8)) == b"question"
        await server.send(b"answer", final=True)
        assert bytes(await connection.receive()) == b"answer"
        connection.send(b"after the half-close")
        assert bytes(await server.receive(min_incomplete_length=20)) == b"after the half-close"
        server.close()


async def test_udp_is_ready_at_once_and_keeps_boundaries() -> None:
    async with pair(datagrams()) as (client, server):
        assert client.stack == server.stack == "udp"
        client.send(b"one")
        client.send(b"")
        client.send(b"three")
        assert [bytes(await server.receive()) for _ in range(3)] == [b"one", b"", b"three"]
        server.send(b"back")
        message = await client.receive()
        assert bytes(message) == b"back"
        assert message.end_of_message
        assert message.context.remote_endpoint is not None
        assert message.context.remote_endpoint.port == port_of_local(server)


async def test_a_udp_peer_gets_the_messages_of_a_datagram_client_and_nothing_else() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.bind((HOST, 0))
        async with going_to(peer.getsockname()[1], datagrams()).initiate() as connection:
            assert connection.stack == "udp"
            await connection.send(b"first")
            await connection.send(b"second")
            assert [await asyncio.wait_for(loop.sock_recv(peer, 100), 5) for _ in range(2)] == [
                b"first",
                b"second",
            ]
        with pytest.raises(BlockingIOError):
            peer.recv(100)


async def test_an_abort_while_establishing_is_an_establishment_error_for_whoever_waits() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        events: list[str] = []
        connection.on_establishment_error = lambda *_: events.append("establishment error")
        connection.on_connection_error = lambda *_: events.append("connection error")
        connection.on_closed = lambda *_: events.append("closed")
        connection.on_ready = lambda *_: events.append("ready")
        waiting = asyncio.ensure_future(_ready(connection))
        sent = connection.send(b"x")
        connection.abort()
        with pytest.raises(EstablishmentError) as caught:
            await waiting
        assert caught.value.reason is Reason.LOCAL_ABORT
        with pytest.raises(SendError) as refused:
            await sent
        assert refused.value.reason is Reason.LOCAL_ABORT
        await turns()
        assert events == ["establishment error"]


@pytest.mark.parametrize("later", range(4))
async def test_an_abort_some_turns_after_initiating_leaves_nothing_that_was_never_awaited(later: int) -> None:
    with PlainServer() as server:
        connection = Preconnection(
            remote=RemoteEndpoint("localhost", server.port), security=SecurityParameters.disabled()
        ).initiate()
        await turns(later)
        connection.abort()
        with pytest.raises(EstablishmentError) as caught:
            await connection
        assert caught.value.reason is Reason.LOCAL_ABORT
        await turns()


async def test_a_close_before_ready_still_delivers_what_was_sent() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        sent = connection.send(b"before ready")
        closed = connection.close()
        peer = await server.accept()
        assert await peer.receive_to_end() == b"before ready"
        await sent
        await closed
        assert connection.state is ConnectionState.CLOSED


async def test_a_close_before_ready_with_nothing_sent_ends_the_attempt() -> None:
    with PlainServer() as server:
        connection = going_to(server.port).initiate()
        await connection.close()
        assert connection.state is ConnectionState.CLOSED
        with pytest.raises(EstablishmentError):
            await connection


async def test_rendezvous_fails_as_long_as_no_stack_offers_it() -> None:
    with pytest.raises(EstablishmentError) as caught:
        await going_to(9).rendezvous()
    assert caught.value.reason is Reason.NO_CANDIDATES


async def _ready(connection: Connection) -> Connection:
    return await connection


def port_of_local(connection: Connection) -> Any:
    assert connection.local_endpoint is not None
    return connection.local_endpoint.port


@pytest.mark.parametrize(("data", "context"), [("text", None), (b"data", "context"), (None, None)])
async def test_a_first_message_that_can_be_none_connects_to_nobody(data: Any, context: Any) -> None:
    with PlainServer() as server:
        with pytest.raises(TypeError):
            going_to(server.port).initiate_with_send(data, context)
        connection = await going_to(server.port).initiate()
        peer = await server.accept()
        await connection.send(b"the first to come")
        assert await peer.receive(17) == b"the first to come"
        connection.abort()


async def test_what_the_system_does_not_allow_is_prohibited_by_policy() -> None:
    datagrams = Preconnection(
        remote=RemoteEndpoint(
            "255.255.255.255", 9, protocol="udp"
        ),  # broadcast, which sockets are not allowed
        properties=TransportProperties.unreliable_datagram(),
        security=SecurityParameters.disabled(),
    )
    with pytest.raises(EstablishmentError) as caught:
        await datagrams.initiate(timeout=5)
    assert caught.value.reason is Reason.POLICY_PROHIBITED
