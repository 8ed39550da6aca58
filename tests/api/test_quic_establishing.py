"""QUIC among other stacks: which is chosen, who wins the race, and one port for all of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api.loopback import BOTH_LOOPS, HOST, port_of, turns
from api.quic_loopback import (
    CLIENT,
    IDENTITY,
    TIME,
    everything_is_given_back,
    exactly,
    going_to,
    listening,
    offering,
    refusal,
    streams,
    trusting,
)
from neatpy import (
    Connection,
    EstablishmentError,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    TransportProperties,
)

pytest.importorskip("aioquic")
__all__ = ["everything_is_given_back"]
pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("everything_is_given_back")]

STAGGER = 0.1
"""Seconds between protocol siblings, as SEMANTICS has it and the race measures it."""


def any_stream(**properties: Any) -> TransportProperties:
    """What both tls/tcp and quic do."""
    wanted = TransportProperties.reliable_inorder_stream()
    for name, value in properties.items():
        wanted.set(name, value)
    return wanted


def remote_of(connection: Connection) -> RemoteEndpoint:
    endpoint = connection.remote_endpoint
    assert endpoint is not None
    return endpoint


def local_of(connection: Connection) -> LocalEndpoint:
    endpoint = connection.local_endpoint
    assert endpoint is not None
    return endpoint


async def test_secure_defaults_choose_quic() -> None:
    async with listening(properties=any_stream(), stack=None) as listener:
        assert {"quic", "tls/tcp"} <= set(listener.stacks)
        client = await going_to(port_of(listener), properties=any_stream(), stack=None).initiate(timeout=TIME)
        assert client.stack == "quic"
        server = await listener.accept()
        assert server.stack == "quic"
        assert remote_of(client).port == port_of(listener)
        client.abort()
        server.abort()


async def test_the_tree_of_candidates_has_quic_before_tls() -> None:
    selection = str(await going_to(4433, properties=any_stream(), stack=None).explain())
    assert 0 < selection.index(", quic]") < selection.index(", tls/tcp]")


async def test_multistreaming_rules_tls_out() -> None:
    selection = str(await going_to(4433, properties=streams(), stack=None).explain())
    assert ", quic]" in selection
    assert ", tls/tcp]" not in selection


async def test_one_port_serves_tls_over_tcp_and_quic_together() -> None:
    async with listening(properties=any_stream(), stack=None) as listener:
        clients = []
        for stack in ("quic", "tls/tcp", "quic"):
            remote = RemoteEndpoint("localhost", port_of(listener), address=HOST, protocol=stack)
            client = await Preconnection(
                remote=remote, properties=any_stream(), security=trusting()
            ).initiate(timeout=TIME)
            assert client.stack == stack
            server = await asyncio.wait_for(listener.accept(), TIME)
            assert server.stack == stack
            client.send(stack.encode())
            assert await exactly(server, len(stack)) == stack.encode()
            clients += [client, server]
        for each in clients:
            each.abort()
        await turns()


async def test_ipv6_carries_quic_too() -> None:
    local = LocalEndpoint(0, address="::1")
    try:
        listener = await Preconnection(local=local, properties=streams(), security=offering()).listen()
    except EstablishmentError as error:
        pytest.skip(f"needs IPv6 on loopback: {error}")
    async with listener:
        remote = RemoteEndpoint("localhost", port_of(listener), address="::1")
        preconnection = Preconnection(remote=remote, properties=streams(), security=trusting())
        async with preconnection.initiate(timeout=TIME) as client:
            client.send(bytes(100_000))
            server = await listener.accept()
            assert await exactly(server, 100_000) == bytes(100_000)
            assert str(remote_of(server).address) == "::1"
            server.abort()


async def test_a_listener_on_every_address_answers_from_the_one_that_was_spoken_to() -> None:
    local = LocalEndpoint(0, address="0.0.0.0")
    async with Preconnection(local=local, properties=streams(), security=offering()).listen() as listener:
        remote = RemoteEndpoint("localhost", port_of(listener), address="127.0.0.2")
        preconnection = Preconnection(remote=remote, properties=streams(), security=trusting())
        async with preconnection.initiate(timeout=TIME) as client:
            client.send(b"hello")
            server = await listener.accept()
            assert await exactly(server, 5) == b"hello"
            assert str(local_of(server).address) == "127.0.0.2"
            server.abort()


async def test_a_remote_filter_lets_only_those_in_that_it_names() -> None:
    stranger = Preconnection(
        local=LocalEndpoint(0, address=HOST),
        remote=RemoteEndpoint(address="192.0.2.1"),
        properties=streams(),
        security=offering(),
    )
    async with stranger.listen() as listener:
        connection = going_to(port_of(listener)).initiate(timeout=0.3)
        with pytest.raises(EstablishmentError) as caught:
            await connection
        assert caught.value.reason is Reason.TIMEOUT
    friend = Preconnection(
        local=LocalEndpoint(0, address=HOST),
        remote=RemoteEndpoint(address=HOST),
        properties=streams(),
        security=offering(),
    )
    async with friend.listen() as listener, going_to(port_of(listener)).initiate(timeout=TIME) as client:
        assert client.stack == "quic"
        (await listener.accept()).abort()


async def test_several_clients_of_one_port_are_told_apart() -> None:
    async with listening() as listener:
        listener.on_connection_received = lambda _, connection: connection.send(
            str(remote_of(connection).port).encode(), final=True
        )
        clients = [going_to(port_of(listener)).initiate(timeout=TIME) for _ in range(20)]
        for client in clients:
            await client
            told = b"".join([message.data async for message in client])
            assert int(told) == local_of(client).port
            client.abort()
        await turns()


async def test_a_connection_limit_holds_quic_connections_back() -> None:
    async with listening() as listener:
        listener.set_new_connection_limit(1)
        first = await going_to(port_of(listener)).initiate(timeout=TIME)
        second = await going_to(port_of(listener)).initiate(timeout=TIME)
        await asyncio.wait_for(listener.accept(), TIME)
        accepting = asyncio.ensure_future(listener.accept())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(accepting), 0.05)
        listener.set_new_connection_limit(None)
        await asyncio.wait_for(accepting, TIME)
        first.abort()
        second.abort()


# Where there is no UDP


@asynccontextmanager
async def tls_only(tmp_path: Path) -> AsyncIterator[int]:
    """A plain TLS server on TCP, whose number is closed for UDP; gives its port."""
    file = tmp_path / "server.pem"
    file.write_bytes(IDENTITY.certificate_chain + IDENTITY.private_key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=context)
    try:
        port: int = server.sockets[0].getsockname()[1]
        yield port
    finally:
        server.close()
        await turns()


async def ready_time(port: int) -> float:
    """How long a Connection takes that ends up on tls/tcp."""
    began = time.monotonic()
    async with going_to(port, properties=any_stream(), stack=None).initiate(timeout=TIME) as client:
        took = time.monotonic() - began
        assert client.stack == "tls/tcp"
        client.send(b"hello")
        assert await exactly(client, 5) == b"hello"
    return took


async def test_a_closed_udp_port_leaves_the_race_to_tls_at_once(tmp_path: Path) -> None:
    async with tls_only(tmp_path) as port:
        await ready_time(port)
        assert await ready_time(port) < STAGGER


async def test_a_silent_udp_port_leaves_the_race_to_tls_within_the_stagger(tmp_path: Path) -> None:
    async with tls_only(tmp_path) as port:
        with socket.socket(type=socket.SOCK_DGRAM) as silent:
            silent.bind((HOST, port))
            assert await ready_time(port) < 3 * STAGGER


async def test_a_closed_udp_port_is_refused_when_there_is_nothing_but_quic() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as closed:
        closed.bind((HOST, 0))
        port = closed.getsockname()[1]
    error = await refusal(going_to(port))
    assert "nobody listens on that UDP port" in str(error)


async def test_the_loser_of_a_race_leaves_nothing_at_the_listener() -> None:
    async with listening(properties=any_stream(), stack=None) as listener:
        for _ in range(5):
            client = await going_to(port_of(listener), properties=any_stream(), stack=None).initiate(
                timeout=TIME
            )
            server = await listener.accept()
            client.abort()
            server.abort()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.accept(), 3 * STAGGER)


async def test_a_client_certificate_leaves_quic_in_the_race() -> None:
    selection = str(
        await going_to(4433, trusting(client_certificate=CLIENT), any_stream(), stack=None).explain()
    )
    assert ", quic]" in selection
