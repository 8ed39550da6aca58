"""The Listener (RFC 9622 section 7.2)."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from api.loopback import (
    BOTH_LOOPS,
    HOST,
    MIB,
    PLAIN,
    PlainPeer,
    available,
    datagrams,
    going_to,
    listening_on,
    messages,
    pair,
    plain_client,
    port_of,
    stream,
    turns,
    until,
    until_still,
)
from neatpy import (
    Connection,
    ConnectionError,  # noqa: A004
    ConnectionState,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    TransportProperties,
)

pytestmark = BOTH_LOOPS


def anything() -> TransportProperties:
    """What sctp, tcp and udp all can do."""
    return TransportProperties(
        reliability="no_preference",
        preserve_order="no_preference",
        congestion_control="no_preference",
        safely_replayable=True,
    )


async def test_awaiting_a_listener_waits_until_it_is_bound() -> None:
    listener = listening_on().listen()
    assert listener.local_endpoints == []
    assert not listener.stacks
    assert await listener is listener
    assert port_of(listener) > 0
    assert listener.stacks == ("tcp",)
    await listener.stop()


async def test_accept_gives_connections_in_their_order() -> None:
    async with listening_on().listen() as listener:
        peers = [plain_client(port_of(listener)) for _ in range(3)]
        accepted = [await listener.accept() for _ in peers]
        assert [_peer_port(one) for one in accepted] == [peer.sock.getsockname()[1] for peer in peers]
        assert all(one.state is ConnectionState.ESTABLISHED for one in accepted)
        _end(accepted, peers)


async def test_iteration_gives_connections_until_stop() -> None:
    async with listening_on().listen() as listener:
        peers = [plain_client(port_of(listener)) for _ in range(2)]
        accepted = []
        async for connection in listener:
            accepted.append(connection)
            if len(accepted) == 2:
                listener.stop()
        assert len(accepted) == 2
        _end(accepted, peers)


async def test_the_handler_gets_what_nobody_waits_for() -> None:
    async with listening_on().listen() as listener:
        received: list[Any] = []
        waiting = asyncio.create_task(listener.accept())
        await turns()
        listener.on_connection_received = lambda who, new: received.append((who, new))
        peers = [plain_client(port_of(listener)) for _ in range(2)]
        first = await waiting
        await until(lambda: received)
        assert received[0][0] is listener
        assert received[0][1] is not first
        _end([first, received[0][1]], peers)


async def test_setting_the_handler_delivers_those_that_wait() -> None:
    async with listening_on().listen() as listener:
        peer = plain_client(port_of(listener))
        probe = plain_client(port_of(listener))
        await turns(10)
        received: list[Connection] = []
        listener.on_connection_received = lambda _, new: received.append(new)
        assert received == []
        await until(lambda: len(received) == 2)
        _end(received, [peer, probe])


async def test_a_cancelled_accept_loses_no_connection() -> None:
    async with listening_on().listen() as listener:
        waiting = asyncio.create_task(listener.accept())
        await turns()
        peer = plain_client(port_of(listener))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        accepted = await asyncio.wait_for(listener.accept(), 2)
        _end([accepted], [peer])


# Limits and filters


async def test_the_connection_limit_counts_at_delivery() -> None:
    async with listening_on().listen() as listener:
        listener.set_new_connection_limit(2)
        peers = [plain_client(port_of(listener)) for _ in range(4)]
        accepted = [await listener.accept(), await listener.accept()]
        third = asyncio.create_task(listener.accept())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(third), 0.05)
        listener.set_new_connection_limit(1)
        accepted.append(await asyncio.wait_for(third, 2))
        listener.set_new_connection_limit(None)
        accepted.append(await asyncio.wait_for(listener.accept(), 2))
        _end(accepted, peers)


async def test_a_limit_of_zero_delivers_nothing_to_a_handler_either() -> None:
    async with listening_on().listen() as listener:
        received: list[Connection] = []
        listener.set_new_connection_limit(0)
        listener.on_connection_received = lambda _, new: received.append(new)
        peer = plain_client(port_of(listener))
        await turns(20)
        assert received == []
        listener.set_new_connection_limit(None)
        await until(lambda: received)
        _end(received, [peer])


async def test_little_is_read_of_a_connection_that_waits_to_be_accepted() -> None:
    async with listening_on().listen() as listener:
        listener.set_new_connection_limit(0)
        peer = await going_to(port_of(listener)).initiate(timeout=5)
        sent = [peer.send(bytes(64 * 1024)) for _ in range(256)]
        await until(lambda: listener._undelivered)
        (waiting,) = listener._undelivered
        await until_still(lambda: waiting.statistics["bytes_received"])
        assert 0 < waiting.statistics["bytes_received"] <= MIB // 2
        listener.set_new_connection_limit(1)
        accepted = await listener.accept()
        assert accepted is waiting
        await until_still(lambda: accepted.statistics["bytes_received"])
        assert accepted.statistics["bytes_received"] >= 4 * MIB
        received = 0
        while received < 16 * MIB:
            received += len(await asyncio.wait_for(accepted.receive(1), 5))
        await asyncio.gather(*sent)
        peer.abort()
        accepted.abort()


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, ValueError), (1.5, TypeError), ("3", TypeError), (True, TypeError)]
)
async def test_a_limit_is_a_whole_number_or_none(wrong: Any, error: type[Exception]) -> None:
    async with listening_on().listen() as listener:
        with pytest.raises(error):
            listener.set_new_connection_limit(wrong)


async def test_remote_endpoints_restrict_who_may_connect() -> None:
    preconnection = listening_on()
    preconnection.add_remote(RemoteEndpoint("127.0.0.2"))
    async with preconnection.listen() as listener:
        stranger = plain_client(port_of(listener))
        with pytest.raises(ConnectionResetError):
            await stranger.receive_to_end()
        sock = socket.socket()
        sock.bind(("127.0.0.2", 0))
        sock.connect((HOST, port_of(listener)))
        accepted = await asyncio.wait_for(listener.accept(), 2)
        assert accepted.remote_endpoint is not None
        assert accepted.remote_endpoint.address == "127.0.0.2"
        _end([accepted], [PlainPeer(sock), stranger])


# Binding


async def test_port_zero_is_one_number_for_every_stack_and_family() -> None:
    async with Preconnection(
        local=LocalEndpoint(0), properties=anything(), security=PLAIN
    ).listen() as listener:
        assert set(listener.stacks) == {*available("sctp"), "tcp", "udp"}
        assert len({endpoint.port for endpoint in listener.local_endpoints}) == 1
        families = {":" in str(endpoint.address) for endpoint in listener.local_endpoints}
        tcp = plain_client(port_of(listener))
        accepted = [await asyncio.wait_for(listener.accept(), 2)]
        udp = await going_to(port_of(listener), datagrams()).initiate()
        udp.send(b"x")
        accepted.append(await asyncio.wait_for(listener.accept(), 2))
        clients = [udp]
        if "sctp" in listener.stacks:
            clients.append(await going_to(port_of(listener), messages()).initiate(timeout=5))
            accepted.append(await asyncio.wait_for(listener.accept(), 2))
        assert [one.stack for one in accepted] == ["tcp", "udp", *available("sctp")]
        if True in families:
            tcp6 = plain_client(port_of(listener), socket.AF_INET6)
            accepted.append(await asyncio.wait_for(listener.accept(), 2))
            tcp6.close()
        _end([*accepted, *clients], [tcp])


async def test_a_port_in_use_is_an_establishment_error_that_names_it() -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        port = holder.getsockname()[1]
        listener = listening_on(port=port).listen()
        errors: list[Any] = []
        listener.on_establishment_error = lambda who, error: errors.append((who, error))
        with pytest.raises(EstablishmentError, match=rf"{HOST}:{port}") as caught:
            await listener
        assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
        await until(lambda: errors)
        assert errors == [(listener, caught.value)]
        with pytest.raises(EstablishmentError):
            await listener.accept()
        with pytest.raises(EstablishmentError):
            await listener.serve(_echo)
        await listener.stop()


async def test_all_stacks_bind_or_none() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        with socket.socket() as free:  # a number that tcp can have
            free.bind((HOST, 0))
            port = free.getsockname()[1]
            holder.bind((HOST, port))
        first_on_udp = available("sctp", "udp")[0]
        with pytest.raises(EstablishmentError, match=rf"{first_on_udp} on {HOST}:{port}"):
            await listening_on(anything(), port=port).listen()
        with socket.socket() as free:  # tcp has been let go
            await turns()
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind((HOST, port))


async def test_a_secure_listener_without_a_certificate_is_an_invalid_configuration() -> None:
    with pytest.raises(EstablishmentError, match="certificate") as caught:
        await Preconnection(local=LocalEndpoint(0, address=HOST), properties=stream()).listen()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


async def test_a_preconnection_can_listen_twice() -> None:
    preconnection = listening_on()
    async with preconnection.listen() as one, preconnection.listen() as other:
        assert port_of(one) != port_of(other)


# Stopping


async def test_stop_aborts_the_undelivered_and_leaves_the_accepted() -> None:
    async with listening_on().listen() as listener:
        peer, other = plain_client(port_of(listener)), plain_client(port_of(listener))
        accepted = await listener.accept()
        await turns(10)
        stopped: list[Listener] = []
        listener.on_stopped = stopped.append
        await listener.stop()
        await until(lambda: stopped)
        assert stopped == [listener]
        with pytest.raises(ConnectionResetError):
            await other.receive_to_end()
        accepted.send(b"alive")
        assert await peer.receive(5) == b"alive"
        with pytest.raises(ConnectionRefusedError):
            plain_client(port_of(listener))
        _end([accepted], [peer, other])


async def test_stop_is_effective_without_being_awaited_and_gives_one_shared_future() -> None:
    listener = await listening_on().listen()
    stopped = listener.stop()
    assert listener.stop() is stopped
    with pytest.raises(ConnectionRefusedError):
        plain_client(port_of(listener))
    await stopped
    assert listener.stop() is stopped


async def test_accept_after_stop_raises_and_iteration_ends() -> None:
    listener = await listening_on().listen()
    waiting = asyncio.create_task(listener.accept())
    await turns()
    await listener.stop()
    for accepting in (waiting, listener.accept()):
        with pytest.raises(ConnectionError) as caught:
            await accepting
        assert caught.value.reason is Reason.CONNECTION_CLOSED
    assert [one async for one in listener] == []


async def test_calls_from_another_thread_raise_and_say_what_to_do() -> None:
    async with listening_on().listen() as listener:

        async def accept() -> Connection:
            return await listener.accept()

        actions: tuple[Callable[[], object], ...] = (
            listener.stop,
            lambda: listener.set_new_connection_limit(3),
            lambda: setattr(listener, "on_connection_received", None),
            lambda: asyncio.run(accept()),
        )
        for action in actions:
            with pytest.raises(RuntimeError, match=r"<Listener tcp on .*call_soon_threadsafe"):
                await asyncio.to_thread(action)
        plain_client(port_of(listener)).close()
        (await listener.accept()).abort()


async def test_stop_that_nobody_waits_for_to_the_end_spoils_it_for_nobody() -> None:
    listener = await listening_on().listen()
    listener.stop().cancel()
    await asyncio.wait_for(listener.stop(), 1)


async def test_stop_before_bound() -> None:
    listener = listening_on().listen()
    await listener.stop()
    with pytest.raises(EstablishmentError):
        await listener


async def test_the_port_is_free_again_after_stop() -> None:
    listener = await listening_on().listen()
    port = port_of(listener)
    await listener.stop()
    async with listening_on(port=port).listen() as again:
        assert port_of(again) == port


# serve


async def _echo(connection: Connection) -> None:
    connection.send((await connection.receive(min_incomplete_length=1)).data)


async def test_serve_runs_a_task_for_each_connection_and_closes_it_at_the_end() -> None:
    async with listening_on().listen() as listener:
        serving = asyncio.create_task(listener.serve(_echo))
        peers = [plain_client(port_of(listener)) for _ in range(3)]
        for peer in reversed(peers):
            await peer.send(b"echo")
            assert await peer.receive_to_end() == b"echo"
            peer.close()
        await listener.stop()
        await asyncio.wait_for(serving, 2)


async def test_a_handler_that_raises_aborts_its_connection_and_is_reported(
    complaints: list[dict[str, Any]],
) -> None:
    async def fail(connection: Connection) -> None:
        raise ZeroDivisionError("in a handler")

    async with listening_on().listen() as listener:
        serving = asyncio.create_task(listener.serve(fail))
        for _ in range(2):
            peer = plain_client(port_of(listener))
            with pytest.raises(ConnectionResetError):
                await peer.receive_to_end()
            peer.close()
        assert [type(context["exception"]) for context in complaints] == [ZeroDivisionError] * 2
        complaints.clear()
        await listener.stop()
        await serving


async def test_on_stop_handlers_get_their_grace_and_are_cancelled_then() -> None:
    outcomes: list[str] = []
    began = asyncio.Event()

    async def handle(connection: Connection) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    async with listening_on().listen() as listener:
        serving = asyncio.create_task(listener.serve(handle, grace=0.05))
        peer = plain_client(port_of(listener))
        await began.wait()
        await listener.stop()
        assert outcomes == []
        await asyncio.wait_for(serving, 2)
        assert outcomes == ["cancelled"]
        with pytest.raises(ConnectionResetError):
            await peer.receive_to_end()
        peer.close()


async def test_without_grace_handlers_have_as_long_as_they_take() -> None:
    go = asyncio.Event()

    async def handle(connection: Connection) -> None:
        await go.wait()
        connection.send(b"done")

    async with listening_on().listen() as listener:
        serving = asyncio.create_task(listener.serve(handle))
        peer = plain_client(port_of(listener))
        await turns(10)
        await listener.stop()
        await turns(10)
        assert not serving.done()
        go.set()
        assert await peer.receive_to_end() == b"done"
        await asyncio.wait_for(serving, 2)
        peer.close()


def _yielding(connection: Connection) -> Any:
    yield connection


async def _yielding_async(connection: Connection) -> Any:
    yield connection


@pytest.mark.parametrize("handler", [5, None, "echo", _yielding, _yielding_async])
async def test_what_can_never_be_a_handler_is_refused_at_once(handler: Any) -> None:
    async with listening_on().listen() as listener:
        with pytest.raises(TypeError, match="serve takes an async function"):
            _ = listener.serve(handler)


async def test_a_callable_that_returns_an_awaitable_is_a_handler() -> None:
    async with listening_on().listen() as listener:
        served: list[Connection] = []

        def handle(connection: Connection) -> asyncio.Future[None]:
            served.append(connection)
            return asyncio.ensure_future(asyncio.sleep(0))

        serving = asyncio.create_task(listener.serve(handle))
        client = await going_to(port_of(listener)).initiate()
        await until(lambda: served and served[0].state is ConnectionState.CLOSED)
        client.abort()
        await listener.stop()
        await serving


async def test_a_handler_that_cannot_be_awaited_is_reported_with_what_to_do(
    complaints: list[dict[str, Any]],
) -> None:
    async with listening_on().listen() as listener:
        serving = asyncio.create_task(listener.serve(lambda connection: 7))  # type: ignore[arg-type,return-value]
        client = await going_to(port_of(listener)).initiate()
        await until(lambda: complaints)
        assert "serve takes an async function" in str(complaints.pop()["exception"])
        client.abort()
        await listener.stop()
        await serving


async def _wants_two_messages(connection: Connection) -> None:
    await connection.receive()
    await connection.receive()


async def _iterates(connection: Connection) -> None:
    async for _ in connection:
        pass


@pytest.mark.parametrize("handler", [_wants_two_messages, _iterates])
async def test_a_rude_client_costs_one_line_in_the_log_and_no_traceback(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    ours = loop.get_exception_handler()
    loop.set_exception_handler(None)
    async with listening_on().listen() as listener:
        serving = asyncio.create_task(listener.serve(handler))
        rude = plain_client(port_of(listener))
        await rude.send(b"half a conver")
        if handler is _iterates:
            rude.reset()
        else:
            rude.close()
        await until(lambda: caplog.records)
        await listener.stop()
        await serving
    loop.set_exception_handler(ours)
    assert len(caplog.records) == 1
    assert not caplog.records[0].exc_info
    assert re.fullmatch("the handler of <Connection .*> was ended by .*Error: .*", caplog.records[0].message)


async def test_an_exception_handler_of_the_program_gets_what_a_rude_client_caused(
    complaints: list[dict[str, Any]],
) -> None:
    async with listening_on().listen() as listener:
        serving = asyncio.create_task(listener.serve(_wants_two_messages))
        rude = plain_client(port_of(listener))
        await rude.send(b"half a conver")
        rude.close()
        await until(lambda: complaints)
        error = complaints.pop()["exception"]
        assert isinstance(error, ReceiveError)
        assert error.reason is Reason.CONNECTION_CLOSED
        await listener.stop()
        await serving


async def test_cancelling_serve_stops_the_listener_and_the_handlers() -> None:
    began = asyncio.Event()

    async def handle(connection: Connection) -> None:
        began.set()
        await asyncio.sleep(60)

    listener = await listening_on().listen()
    serving = asyncio.create_task(listener.serve(handle))
    peer = plain_client(port_of(listener))
    await began.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with pytest.raises(ConnectionResetError):
        await peer.receive_to_end()
    with pytest.raises(ConnectionRefusedError):
        plain_client(port_of(listener))
    peer.close()


async def test_a_peer_that_leaves_early_harms_nobody() -> None:
    async with listening_on().listen() as listener:

        async def handle(connection: Connection) -> None:
            async for _ in connection:
                pass

        serving = asyncio.create_task(listener.serve(handle))
        peer = plain_client(port_of(listener))
        await peer.send(b"x")
        peer.close()
        last = plain_client(port_of(listener))
        last.finish()
        assert await last.receive_to_end() == b""
        last.close()
        await listener.stop()
        await asyncio.wait_for(serving, 2)


async def test_udp_peers_are_told_apart_by_address_and_answered_from_where_they_spoke_to() -> None:
    async with listening_on(datagrams()).listen() as listener:
        one = await going_to(port_of(listener), datagrams()).initiate()
        two = await going_to(port_of(listener), datagrams()).initiate()
        one.send(b"one")
        first = await listener.accept()
        two.send(b"two")
        second = await listener.accept()
        one.send(b"one more")
        assert [bytes(await first.receive()) for _ in range(2)] == [b"one", b"one more"]
        assert bytes(await second.receive()) == b"two"
        first.send(b"to one")
        assert bytes(await one.receive()) == b"to one"
        _end([one, two, first, second], [])


def _peer_port(connection: Connection) -> int | None:
    assert connection.remote_endpoint is not None
    return connection.remote_endpoint.port


def _end(connections: list[Connection], peers: list[PlainPeer]) -> None:
    for connection in connections:
        connection.abort()
    for peer in peers:
        peer.close()


async def test_cancelling_serve_ends_a_connection_whose_handler_has_not_begun() -> None:
    listener = await listening_on().listen()
    serving = asyncio.create_task(listener.serve(_echo))
    await turns()
    async with pair() as (_, just_accepted):
        assert listener._server is not None
        serving.cancel()
        listener._server(just_accepted)  # in the same turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert just_accepted.state is ConnectionState.CLOSED


async def test_stopping_is_not_held_up_by_a_handler_that_was_cancelled_before_it_began() -> None:
    listener = await listening_on().listen()
    serving = asyncio.create_task(listener.serve(_echo))
    await turns()
    async with pair() as (_, just_accepted):
        assert listener._server is not None
        before = asyncio.all_tasks()
        listener._server(just_accepted)
        (handling,) = asyncio.all_tasks() - before
        handling.cancel()
        listener.stop()
        await asyncio.wait_for(serving, 5)
        assert just_accepted.state is ConnectionState.CLOSED


async def test_serve_waits_until_what_its_handlers_sent_is_delivered() -> None:
    size = 10 * MIB

    async def pour(connection: Connection) -> None:
        connection.send(bytes(size))

    async with listening_on().listen() as listener:
        serving = asyncio.create_task(listener.serve(pour))
        peer = plain_client(port_of(listener))
        assert await peer.receive(1) == bytes(1)
        listener.stop()
        await turns()
        assert not serving.done()
        assert len(await peer.receive_to_end()) == size - 1
        await asyncio.wait_for(serving, 5)
        peer.close()


@pytest.mark.parametrize("grace", ["x", True, -1, float("nan")])
async def test_a_grace_that_is_none_is_an_error_at_once(grace: Any) -> None:
    async def handler(connection: Connection) -> None:
        """Never called."""

    async with listening_on().listen() as listener:
        with pytest.raises((TypeError, ValueError), match="grace"):
            await listener.serve(handler, grace=grace)
