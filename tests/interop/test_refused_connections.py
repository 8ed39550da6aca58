"""Connections that fail or break: the right error with the right reason, at once, on both event loops."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from api.loopback import (
    BOTH_LOOPS,
    HOST,
    PLAIN,
    datagrams,
    going_to,
    listening_on,
    plain_client,
    port_of,
    stream,
    to_plain_peer,
    until,
)
from interop.meetings import families, refusal
from neatpy import (
    Connection,
    ConnectionError,
    EstablishmentError,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    TransportServicesError,
)

pytestmark = BOTH_LOOPS


@pytest.fixture(params=[HOST, "::1"], ids=["v4", "v6"])
def refusing(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A place that refuses: bound, so that nobody else gets it, but not listened on."""
    host: str = request.param
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as holder:
        holder.bind((host, 0))
        yield host, holder.getsockname()[1]


def to_several(*places: tuple[str, int]) -> Preconnection:
    """To whichever of these addresses answers."""
    remotes = [RemoteEndpoint(host, port) for host, port in places]
    return Preconnection(remote=remotes, properties=stream(), security=PLAIN)


async def test_a_refused_port_is_an_error_at_once(refusing: tuple[str, int]) -> None:
    host, port = refusing
    error = await refusal(going_to(port, host=host), within=0.2)
    assert error.reason is Reason.ESTABLISHMENT_FAILED
    assert "Connection refused" in str(error)
    (attempt,) = error.attempts
    assert host in attempt.candidate
    assert isinstance(attempt.error, ConnectionRefusedError)
    assert isinstance(error.__cause__, ConnectionRefusedError)


async def test_all_addresses_of_a_name_that_refuse_are_told_without_stagger(refused_port: int) -> None:
    places = [(f"127.0.0.{number}", refused_port) for number in range(1, 6)]
    error = await refusal(to_several(*places), within=0.2)
    assert error.reason is Reason.ESTABLISHMENT_FAILED
    assert len(error.attempts) == 5
    for host, _ in places:
        assert f"{host}:{refused_port}" in str(error)
    assert str(error).count("Connection refused") >= 5


async def test_a_refused_candidate_starts_the_next_at_once(refusing: tuple[str, int]) -> None:
    async with listening_on().listen() as listener:
        began = time.monotonic()
        connection = await to_several(refusing, (HOST, port_of(listener))).initiate(timeout=5)
        assert time.monotonic() - began < 0.2
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.port == port_of(listener)
        (await listener.accept()).abort()
        connection.abort()


async def test_an_unknown_service_cannot_be_resolved() -> None:
    remote = RemoteEndpoint(HOST, service="no-such-service")
    error = await refusal(Preconnection(remote=remote, properties=stream(), security=PLAIN))
    assert error.reason is Reason.RESOLUTION_FAILED
    assert "no-such-service" in str(error)


@families
@pytest.mark.parametrize("kind", ["stream", "datagrams"])
async def test_a_port_in_use_is_an_error_that_names_it(host: str, kind: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM) as holder:
        holder.bind((host, 0))
        if kind == "stream":
            holder.listen()
        port = holder.getsockname()[1]
        properties = stream() if kind == "stream" else datagrams()
        listener = listening_on(properties, port=port, address=host).listen()
        with pytest.raises(EstablishmentError) as caught:
            await listener
        assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
        assert "Address already in use" in str(caught.value)
        assert str(port) in str(caught.value)


async def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    with pytest.raises(EstablishmentError) as caught:
        await listening_on(address="192.0.2.250").listen()
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    assert "Cannot assign requested address" in str(caught.value)


async def test_a_peer_that_resets_after_ready_aborts_the_connection() -> None:
    async with to_plain_peer() as (connection, peer):
        errors: list[TransportServicesError | None] = []
        connection.on_connection_error = lambda _, error: errors.append(error)
        receiving = connection.receive()
        peer.reset()
        with pytest.raises(ReceiveError) as caught:
            await receiving
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        await until(lambda: errors)
        assert isinstance(errors[0], ConnectionError)
        assert errors[0].reason is Reason.CONNECTION_ABORTED
        assert "aborted" in str(errors[0])


async def test_a_peer_that_resets_before_the_listener_delivers_is_told_on_the_connection() -> None:
    async with listening_on().listen() as listener:
        plain_client(port_of(listener)).reset()
        connection = await listener.accept()
        with pytest.raises(ReceiveError) as caught:
            await connection.receive()
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_a_peer_that_closes_with_data_unread_resets_us() -> None:
    async with to_plain_peer() as (connection, peer):
        await connection.send(b"nobody will read this")
        await peer.receive(1)
        peer.close()
        with pytest.raises(ReceiveError) as caught:
            await connection.receive()
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_data_before_a_reset_is_not_a_whole_message() -> None:
    async with to_plain_peer() as (connection, peer):
        await peer.send(b"the beginning of")
        part = await connection.receive(min_incomplete_length=1)
        assert (part.data, part.end_of_message) == (b"the beginning of", False)
        peer.reset()
        with pytest.raises(ConnectionError) as caught:
            await anext(connection)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_closing_does_not_wait_for_a_peer_that_has_gone_after_its_fin() -> None:
    """The peer's FIN, then its reset in answer to what we say last: loops do not read after a FIN, so only asking the
    kernel tells."""
    async with to_plain_peer() as (connection, peer):
        peer.close()
        with pytest.raises(ReceiveError) as caught:
            await connection.receive()
        assert caught.value.reason is Reason.CONNECTION_CLOSED
        connection.send(b"are you still there?")
        began = time.monotonic()
        with pytest.raises(ConnectionError) as broken:
            await connection.close()
        assert broken.value.reason is Reason.CONNECTION_ABORTED
        assert time.monotonic() - began < 1


async def test_datagrams_to_a_refused_port_do_not_end_a_connection() -> None:
    errors: list[TransportServicesError] = []
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind((HOST, 0))
        port = peer.getsockname()[1]
    connection = await going_to(port, datagrams(soft_error_notify="require")).initiate()
    connection.on_soft_error = lambda _, error: errors.append(error)
    await connection.send(b"is anybody there?")
    await until(lambda: errors)
    assert "refused" in str(errors[0]).lower() or "unreachable" in str(errors[0]).lower()
    assert connection.can_send
    await connection.close()


async def test_connections_to_many_refused_ports_at_once_all_fail(refused_port: int) -> None:
    connections: list[Connection] = [going_to(refused_port).initiate(timeout=5) for _ in range(50)]
    results = await asyncio.gather(*(wait_for(one) for one in connections))
    assert {error.reason for error in results} == {Reason.ESTABLISHMENT_FAILED}


async def wait_for(connection: Connection) -> EstablishmentError:
    """How establishing it failed."""
    with pytest.raises(EstablishmentError) as caught:
        await connection
    return caught.value
