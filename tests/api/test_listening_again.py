"""A port that is used again: by a Listener, while what an earlier one has accepted lives on, and by a client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.loopback import (
    BOTH_LOOPS,
    HOST,
    PLAIN,
    available,
    datagrams,
    is_free_for_udp,
    messages,
    port_of,
    stream,
    until,
)
from api.quic_loopback import offering, streams, transport_of, trusting
from api.sctp_loopback import ready
from neatpy import (
    Connection,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
)

pytestmark = BOTH_LOOPS

PROPERTIES = {
    "tcp": stream,
    "tls/tcp": stream,
    "udp": datagrams,
    "dtls/udp": datagrams,
    "sctp": messages,
    "sctp/dtls/udp": messages,
    "quic": streams,
}
each_stack = pytest.mark.parametrize("stack", available(*PROPERTIES))
each_over_udp = pytest.mark.parametrize(
    "stack", [name for name in available(*PROPERTIES) if "tcp" not in name]
)


def listening(stack: str, port: int = 0) -> Preconnection:
    return Preconnection(
        local=LocalEndpoint(port, address=HOST, protocol=stack),
        properties=PROPERTIES[stack](),
        security=PLAIN if stack in ("tcp", "udp", "sctp") else offering(),
    )


def going_to(stack: str, port: int) -> Preconnection:
    return Preconnection(
        remote=RemoteEndpoint("localhost", port, address=HOST, protocol=stack),
        properties=PROPERTIES[stack](),
        security=PLAIN if stack in ("tcp", "udp", "sctp") else trusting(),
    )


async def answered(client: Connection, server: Connection) -> None:
    """Both hear each other."""
    for one, other in ((client, server), (server, client)):
        one.send(b"still there")
        assert bytes(await asyncio.wait_for(other.receive(min_incomplete_length=11), 5)) == b"still there"


async def greeted(server: Connection) -> None:
    """It has heard the first words of a client."""
    assert bytes(await asyncio.wait_for(server.receive(min_incomplete_length=5), 5)) == b"hello"


@asynccontextmanager
async def met(stack: str, listener: Listener) -> AsyncIterator[tuple[Connection, Connection]]:
    """A client and what the Listener accepts."""
    client = await asyncio.wait_for(ready(going_to(stack, port_of(listener)).initiate()), 5)
    client.send(b"hello")
    server = await asyncio.wait_for(listener.accept(), 5)
    await greeted(server)
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()


@each_stack
async def test_old_and_new_connections_share_the_port(stack: str) -> None:
    async with listening(stack).listen() as first:
        port = port_of(first)
        async with met(stack, first) as old:
            await first.stop()
            async with listening(stack, port).listen() as second, met(stack, second) as new:
                await answered(*old)
                await answered(*new)
                await second.stop()
                async with listening(stack, port).listen() as third, met(stack, third) as newest:
                    for pair in (old, new, newest):
                        await answered(*pair)


@each_stack
async def test_a_port_can_be_listened_on_again_right_after_the_connections_have_closed(stack: str) -> None:
    async with listening(stack).listen() as first:
        port = port_of(first)
        async with met(stack, first) as (client, server):
            await first.stop()
            await asyncio.wait_for(asyncio.gather(client.close(), server.close()), 5)
        async with listening(stack, port).listen() as second, met(stack, second) as new:
            await answered(*new)


@each_over_udp
async def test_a_client_can_come_again_from_its_port_right_after_a_close(stack: str) -> None:
    async with listening(stack).listen() as listener:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind((HOST, 0))
            number = probe.getsockname()[1]
        for _ in range(3):
            coming = going_to(stack, port_of(listener)).add_local(LocalEndpoint(number, address=HOST))
            client = await asyncio.wait_for(ready(coming.initiate()), 5)
            client.send(b"hello")
            server = await asyncio.wait_for(listener.accept(), 5)
            assert server.remote_endpoint is not None
            assert server.remote_endpoint.port == number
            await greeted(server)
            await asyncio.wait_for(asyncio.gather(client.close(), server.close()), 5)


@each_over_udp
async def test_two_do_not_listen_on_one_port_at_once(stack: str) -> None:
    async with listening(stack).listen() as first, met(stack, first):
        with pytest.raises(EstablishmentError, match="in use"):
            await listening(stack, port_of(first)).listen()


@each_over_udp
async def test_the_port_is_free_when_the_last_that_shared_it_has_gone(stack: str) -> None:
    async with listening(stack).listen() as first:
        port = port_of(first)
        async with met(stack, first):
            await first.stop()
            async with listening(stack, port).listen() as second, met(stack, second):
                pass
    await until(lambda: is_free_for_udp(port))


@pytest.mark.skipif(not available("quic"), reason="needs quic")
async def test_who_has_lost_a_quic_connection_is_reset_by_the_new_listener_and_nobody_else() -> None:
    async with listening("quic").listen() as first, met("quic", first) as kept, met("quic", first) as lost:
        await first.stop()
        async with listening("quic", port_of(first)).listen():
            transport_of(lost[1]).retire()  # gone without a word
            lost[0].send(b"are you there?")
            await until(lambda: lost[0].state.name == "CLOSED")
            await answered(*kept)


@pytest.mark.parametrize("how", ["close", "abort"])
@each_stack
async def test_the_next_loop_can_listen_on_the_port_of_the_one_before(stack: str, how: str) -> None:
    async def serve(port: int) -> int:
        async with listening(stack, port).listen() as listener, met(stack, listener) as (client, server):
            if how == "close":
                await listener.stop()
                await asyncio.wait_for(asyncio.gather(client.close(), server.close()), 5)
            return port_of(listener)

    def in_two_loops() -> None:
        port = 0
        for _ in range(2):
            port = asyncio.run(serve(port))

    await asyncio.to_thread(in_two_loops)
