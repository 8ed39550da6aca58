"""The hop limit of a Local Endpoint is on the packets that leave from there."""

from __future__ import annotations

import asyncio
import socket

from api.loopback import BOTH_LOOPS, HOST, PLAIN, datagrams, port_of, stream
from neatpy import Connection, LocalEndpoint, Preconnection, RemoteEndpoint

pytestmark = BOTH_LOOPS
HOPS = 7
IP_RECVTTL = 12  # Linux's; Python does not name it


def hops_of(connection: Connection) -> int:
    """What the kernel has for a TCP connection."""
    flow = connection._path.flow
    assert flow is not None
    return int(flow.socket.getsockopt(socket.IPPROTO_IP, socket.IP_TTL))  # type: ignore[attr-defined]


async def test_it_is_on_connections_made_and_accepted_there() -> None:
    here = LocalEndpoint(0, address=HOST).with_hop_limit(HOPS)
    async with Preconnection(local=here, properties=stream(), security=PLAIN).listen() as listener:
        client = Preconnection(
            local=LocalEndpoint(address=HOST).with_hop_limit(HOPS + 1),
            remote=RemoteEndpoint(HOST, port_of(listener)),
            properties=stream(),
            security=PLAIN,
        ).initiate()
        async with client:
            accepted = await asyncio.wait_for(listener.accept(), 5)
            assert hops_of(accepted) == HOPS
            assert hops_of(client) == HOPS + 1
            await accepted.close()


async def test_the_remote_endpoint_has_the_last_word() -> None:
    async with Preconnection(
        local=LocalEndpoint(0, address=HOST), properties=stream(), security=PLAIN
    ).listen() as listener:
        client = Preconnection(
            local=LocalEndpoint(address=HOST).with_hop_limit(HOPS),
            remote=RemoteEndpoint(HOST, port_of(listener)).with_hop_limit(HOPS + 2),
            properties=stream(),
            security=PLAIN,
        ).initiate()
        async with client:
            assert hops_of(client) == HOPS + 2


async def test_it_is_on_datagrams_of_a_listener() -> None:
    here = LocalEndpoint(0, address=HOST).with_hop_limit(HOPS)
    async with Preconnection(local=here, properties=datagrams(), security=PLAIN).listen() as listener:
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            peer.connect((HOST, port_of(listener)))
            peer.send(b"hello")
            connection = await asyncio.wait_for(listener.accept(), 5)
            await connection.send(b"reply")
            readable = asyncio.Event()
            asyncio.get_running_loop().add_reader(peer, readable.set)
            await asyncio.wait_for(readable.wait(), 5)
            asyncio.get_running_loop().remove_reader(peer)
            data, [(_, _, hops)], _, _ = peer.recvmsg(100, 100)
            assert (data, int.from_bytes(hops, "little")) == (b"reply", HOPS)
            connection.abort()
