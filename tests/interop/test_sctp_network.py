"""SCTP over networks that lose, reorder, fall silent and rebind addresses; and how streams share a slow link.

Functions without ``test`` in their name run inside the namespaces.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.loopback import HOST, PLAIN
from benchmarks.link import FAR_ADDRESS, NoLinkError, Settings, Sides, slow_link
from benchmarks.sharing import measure
from interop.netns import Namespace
from interop.programs import running
from neatpy import (
    Connection,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Preconnection,
    ReceiveError,
    RemoteEndpoint,
    TransportProperties,
)
from neatpy.stacks._sctp.library import obstacle

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_program("ip", "iptables"),
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
]

PORT = 5004
LONGEST_STALL = 2.0


@asynccontextmanager
async def listening(host: str = HOST) -> AsyncIterator[Listener]:
    here = LocalEndpoint(PORT, address=host, protocol="sctp")
    async with Preconnection(
        local=here, properties=TransportProperties.reliable_message(), security=PLAIN
    ).listen() as listener:
        yield listener


async def connected(host: str = HOST) -> Connection:
    return await Preconnection(
        remote=RemoteEndpoint(host, PORT, protocol="sctp"),
        properties=TransportProperties.reliable_message(),
        security=PLAIN,
    ).initiate(timeout=10)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Connection, Connection]]:
    async with listening() as listener:
        client = await connected()
        server = await asyncio.wait_for(listener.accept(), 10)
        try:
            yield client, server
        finally:
            client.abort()
            server.abort()


async def transfer(count: int, size: int) -> dict[str, float]:
    """So many numbered Messages of up to that size; gives what arrived, and the longest time between two."""
    noise = random.Random(count)
    lengths = [noise.randrange(8, size) for _ in range(count)]
    async with pair() as (client, server):

        async def send() -> None:
            for number, length in enumerate(lengths):
                await client.send(_numbered(number, length))

        sending = asyncio.create_task(send())
        longest, last = 0.0, time.monotonic()
        right = 0
        for number, length in enumerate(lengths):
            message = bytes(await asyncio.wait_for(server.receive(), 15))
            right += message == _numbered(number, length)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        await sending
        return {"right": right, "longest": longest, "bytes": sum(lengths)}


def _numbered(number: int, length: int) -> bytes:
    block = hashlib.sha256(b"%d" % number).digest()
    return (block * (length // len(block) + 1))[:length]


@pytest.fixture
def lossy(alone: Namespace, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace that loses this share of all UDP packets on its loopback interface."""
    rule = ("INPUT", "-p", "udp", "-m", "statistic", "--mode", "random", "--probability", str(request.param))
    alone.execute("iptables", "-A", *rule, "-j", "DROP")
    yield alone
    alone.execute("iptables", "-D", *rule, "-j", "DROP")


@pytest.mark.parametrize("lossy", [0.01, 0.05], indirect=True, ids=["1 percent", "5 percent"])
async def test_ten_megabytes_arrive_once_and_in_order_in_spite_of_loss(lossy: Namespace) -> None:
    lossy.ip(
        "link", "set", "lo", "mtu", "1500", "gso_max_segs", "1"
    )  # so that packets are lost, not whole bursts
    result = await lossy.run(transfer, 320, 64_000)
    assert result["bytes"] > 9_000_000
    assert result["right"] == 320
    assert result["longest"] < LONGEST_STALL


async def blacked_out() -> dict[str, Any]:
    """Messages back and forth; in between, nothing passes for 3 s."""
    import subprocess

    rule = ("INPUT", "-p", "udp", "-j", "DROP")
    async with pair() as (client, server):
        client.send(b"before")
        assert bytes(await server.receive()) == b"before"
        subprocess.run(["iptables", "-A", *rule], check=True)
        for number in range(20):
            client.send(b"%d" % number)
        server.send(b"from the other side")
        await asyncio.sleep(3)
        subprocess.run(["iptables", "-D", *rule], check=True)
        began = time.monotonic()
        got = [bytes(await asyncio.wait_for(server.receive(), 10)).decode() for _ in range(20)]
        back = bytes(await asyncio.wait_for(client.receive(), 10)).decode()
        return {"got": got, "back": back, "seconds": time.monotonic() - began}


async def test_an_association_survives_three_seconds_of_silence(alone: Namespace) -> None:
    result = await alone.run(blacked_out)
    assert result["got"] == [str(number) for number in range(20)]
    assert result["back"] == "from the other side"
    assert result["seconds"] < 6


async def given_up(timeout: float) -> float:
    """The seconds after which a Connection with this conn_timeout gives its silent peer up."""
    import subprocess

    rule = ("INPUT", "-p", "udp", "-j", "DROP")
    async with pair() as (client, _):
        client.set_property("conn_timeout", timeout)
        subprocess.run(["iptables", "-A", *rule], check=True)
        try:
            began = time.monotonic()
            client.send(b"is anybody there?")
            with pytest.raises(ReceiveError):
                await asyncio.wait_for(client.receive(), 15)
            return time.monotonic() - began
        finally:
            subprocess.run(["iptables", "-D", *rule], check=True)


@pytest.mark.parametrize("timeout", [0.5, 3])
async def test_a_silent_peer_is_given_up_after_the_time_that_was_asked_for(
    alone: Namespace, timeout: float
) -> None:
    seconds = await alone.run(given_up, timeout)
    assert timeout * 0.5 <= seconds <= timeout * 2 + 1


async def rebound() -> dict[str, Any]:
    """A relay that comes from another port after a while, as a NAT does that has forgotten us."""
    loop = asyncio.get_running_loop()

    class Relay(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.client: Any = None
            self.outer: asyncio.DatagramTransport | None = None

        def connection_made(self, transport: Any) -> None:
            self.inner = transport

        def datagram_received(self, data: bytes, source: Any) -> None:
            self.client = source
            assert self.outer is not None
            self.outer.sendto(data)

        async def rebind(self) -> None:
            relay = self

            class Back(asyncio.DatagramProtocol):
                def datagram_received(self, data: bytes, source: Any) -> None:
                    relay.inner.sendto(data, relay.client)

            if self.outer is not None:
                self.outer.close()
            self.outer, _ = await loop.create_datagram_endpoint(Back, remote_addr=(HOST, PORT))

    _, relay = await loop.create_datagram_endpoint(Relay, local_addr=(HOST, 0))
    await relay.rebind()
    async with listening() as listener:
        client = await Preconnection(
            remote=RemoteEndpoint(HOST, PORT, protocol="sctp"),
            properties=TransportProperties.reliable_message().set(
                "_neatpy.encapsulation_port", relay.inner.get_extra_info("sockname")[1]
            ),
            security=PLAIN,
        ).initiate(timeout=5)
        server = await asyncio.wait_for(listener.accept(), 5)
        got = []
        for number in range(4):
            client.send(b"%d" % number)
            got.append(bytes(await asyncio.wait_for(server.receive(), 5)).decode())
            server.send(b"-%d" % number)
            got.append(bytes(await asyncio.wait_for(client.receive(), 5)).decode())
            await relay.rebind()
        client.abort()
        server.abort()
    relay.inner.close()
    assert relay.outer is not None
    relay.outer.close()
    return {"got": got}


async def test_an_association_follows_its_peer_to_another_udp_port(alone: Namespace) -> None:
    result = await alone.run(rebound)
    assert result["got"] == [
        text for number in range(4) for text in (str(number), str(-number) if number else "-0")
    ]


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> Iterator[Sides]:
    """Two namespaces with a slow link between them."""
    try:
        with slow_link(request.param) as sides:
            yield sides
    except NoLinkError as error:
        pytest.skip(str(error))


async def receive_numbered(count: int) -> int:
    """Receive Messages and count those that are what they should be."""
    async with listening(FAR_ADDRESS) as listener:
        server = await asyncio.wait_for(listener.accept(), 10)
        right = 0
        for number in range(count):
            message = bytes(await asyncio.wait_for(server.receive(), 10))
            right += message == _numbered(number, len(message))
        server.send(b"thank you")
        await asyncio.wait_for(server.close(), 5)
    return right


async def send_numbered(count: int, size: int) -> str:
    """Send numbered Messages to whoever listens there by now."""
    async with asyncio.timeout(10):
        while True:
            try:
                client = await connected(FAR_ADDRESS)
                break
            except EstablishmentError:
                await asyncio.sleep(0.01)
    for number in range(count):
        await client.send(_numbered(number, size))
    answer = bytes(await asyncio.wait_for(client.receive(), 15)).decode()
    await asyncio.wait_for(client.close(), 5)
    return answer


@pytest.mark.parametrize(
    "slow", [Settings(rate=50e6, delay=0.005, queue=256 * 1024, reordered=0.1, behind=0.004)], indirect=True
)
async def test_messages_arrive_in_order_over_a_path_that_reorders_packets(slow: Sides) -> None:
    right, answer = await asyncio.gather(
        Namespace(slow.far).run(receive_numbered, 150),
        Namespace(slow.near).run(send_numbered, 150, 20_000),
    )
    assert right == 150
    assert answer == "thank you"


@pytest.mark.parametrize("slow", [Settings()], indirect=True)
@pytest.mark.parametrize("whole", [False, True], ids=["pieces", "one Message each"])
async def test_a_stream_gets_its_share_of_a_slow_link_at_once_and_more_if_it_is_more_urgent(
    slow: Sides, whole: bool
) -> None:
    server = ("ip", "netns", "exec", slow.far, sys.executable, "-m", "benchmarks.sharing", "server", "sctp")
    async with running(*server, FAR_ADDRESS) as program:
        port = int((await program.says(r"(\d+)\n"))[1])
        near = Namespace(slow.near)
        for _ in range(3):  # what else this host does may slow one of the three down
            alone = await near.run(share, port, 0, 100, whole)
            beside = await near.run(share, port, 3_000_000, 100, whole)
            urgent = await near.run(share, port, 3_000_000, 10, whole)
            if beside < 2.3 * alone and urgent < 1.3 * alone:
                return
    pytest.fail(f"alone it took {alone:.2f} s, beside others {beside:.2f} s, more urgent {urgent:.2f} s")


async def share(port: int, much: int, priority: int, whole: bool) -> float:
    """The seconds that 400 kB take beside so much."""
    return await measure(
        "sctp", FAR_ADDRESS, port, much=much, later=1.0, less=400_000, priority=priority, whole=whole
    )
