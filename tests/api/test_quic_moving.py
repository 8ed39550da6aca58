"""QUIC's client by the public API as it moves between addresses of loopback."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

pytest.importorskip("aioquic")

from api.conftest import complaints
from api.loopback import HOST, port_of, until
from api.quic_loopback import connected, everything_is_given_back, exactly, going_to, listening, pair
from api.relay import Relay
from neatpy import Connection, LocalEndpoint, PropertyError

__all__ = ["complaints", "everything_is_given_back"]
pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("everything_is_given_back"),
    pytest.mark.needs_program("ip"),  # where all of 127/8 is our own
]

SECOND, THIRD = "127.0.0.2", "127.0.0.3"
NOBODYS = "192.0.2.7"


def own_address(connection: Connection) -> str | None:
    local = connection.local_endpoint
    return local.address if local else None


async def talk(client: Connection, server: Connection) -> None:
    client.send(b"where are you?")
    assert await exactly(server, 14) == b"where are you?"
    server.send(b"here")
    assert await exactly(client, 4) == b"here"


async def test_a_client_comes_back_to_an_endpoint_that_it_left() -> None:
    async with listening() as listener:
        preconnection = going_to(port_of(listener)).add_local(LocalEndpoint(address=HOST))
        async with connected(preconnection, listener) as (client, server):
            here, there = LocalEndpoint(address=HOST), LocalEndpoint(address=SECOND)
            for to, away, address in ((there, here, SECOND), (here, there, HOST), (there, here, SECOND)):
                client.add_local(to)
                client.remove_local(away)
                await talk(client, server)
                assert own_address(client) == address
                assert server.remote_endpoint is not None
                assert server.remote_endpoint.address == address


async def test_the_last_local_endpoint_cannot_be_removed() -> None:
    async with pair() as (client, server):
        for last in (LocalEndpoint(address=HOST), LocalEndpoint(interface="lo")):
            with pytest.raises(PropertyError, match="the only local endpoint"):
                client.remove_local(last)
        await talk(client, server)


async def test_an_interface_that_the_system_chose_can_be_removed() -> None:
    async with pair() as (client, server):
        client.remove_local(LocalEndpoint(interface="eth-of-others"))
        assert own_address(client) == HOST
        client.add_local(LocalEndpoint(address=NOBODYS))
        with pytest.raises(PropertyError, match="no other local endpoint can be used"):
            client.remove_local(LocalEndpoint(interface="lo"))
        await talk(client, server)


async def test_a_client_passes_over_endpoints_that_cannot_be_used() -> None:
    async with listening() as listener, Relay.to(port_of(listener)) as relay:

        def not_from_the_first(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
            return (datagram,) if relay.client is not None and relay.client[0] == THIRD else ()

        preconnection = going_to(relay.port).add_local(LocalEndpoint(address=HOST))
        async with connected(preconnection, listener) as (client, server):
            client.add_local(LocalEndpoint(address=NOBODYS))
            client.add_local(LocalEndpoint(address=THIRD))
            await talk(client, server)
            changed: list[Connection] = []
            client.on_path_change = changed.append
            relay.decide = not_from_the_first
            await talk(client, server)
            assert own_address(client) == THIRD
            await until(lambda: changed == [client])
