"""Properties of paths and packets, on two wires between two network namespaces.

What leaves the near namespace is seen by a packet socket there. Functions without ``test`` in their name run inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from api.loopback import PLAIN, datagrams, stream, until
from interop.netns import FAR, FAR_WIRES, Link
from interop.programs import running
from neatpy import (
    CapacityProfile,
    Connection,
    EstablishmentError,
    InterfaceType,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    TransportProperties,
    TransportServicesError,
)

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_program("ip", "iptables", "socat")]

PORT = 7000
LEFT, RIGHT = "veth-left", "veth-right"
_ETH_P_ALL = 3
_OUTGOING = 4
_IP, _IPV6 = 0x0800, 0x86DD


@pytest.fixture
async def echo(link: Link) -> AsyncIterator[Link]:
    """Something far away that sends streams and datagrams of both families back."""
    async with contextlib.AsyncExitStack() as programs:
        for protocol in ("TCP", "UDP"):
            address = f"{protocol}6-LISTEN:{PORT},fork,reuseaddr,ipv6only=0"
            program = await programs.enter_async_context(
                running("socat", "-d", "-d", address, "PIPE", prefix=link.far.prefix)
            )
            await program.says("listening on")
        yield link


# What runs inside


class Packet(NamedTuple):
    """One packet that left for the port, as it was on the wire."""

    interface: str
    source: str
    dscp: int
    hops: int
    size: int


class Wiretap:
    """Sees what leaves this namespace for the port."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.packets: list[Packet] = []

    def look(self) -> list[Packet]:
        """Everything so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, (interface, protocol, kind, *_) = self._sock.recvfrom(65536)
                if kind == _OUTGOING and protocol in (_IP, _IPV6):
                    self._note(data, interface, protocol)
        return self.packets

    def _note(self, data: bytes, interface: str, protocol: int) -> None:
        if protocol == _IP:
            dscp, hops, upper, begin = data[1] >> 2, data[8], data[9], (data[0] & 15) * 4
            source = socket.inet_ntop(socket.AF_INET, data[12:16])
        else:
            dscp, hops, upper, begin = (data[0] << 8 | data[1]) >> 6 & 63, data[7], data[6], 40
            source = socket.inet_ntop(socket.AF_INET6, data[8:24])
        if upper in (6, 17) and int.from_bytes(data[begin + 2 : begin + 4], "big") == PORT:
            self.packets.append(Packet(interface, source, dscp, hops, len(data)))


@contextlib.contextmanager
def wiretap() -> Iterator[Wiretap]:
    """A Wiretap from now on."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as sock:
        sock.setblocking(False)
        yield Wiretap(sock)


def preference(name: str, interface: str | InterfaceType) -> TransportProperties:
    """A stream with this preference about interfaces."""
    properties = stream()
    getattr(properties, name)("interface", interface)
    return properties


async def exchange(preconnection: Preconnection) -> dict[str, Any]:
    """Send a Message far away and get it back; what was seen of it on the wires."""
    with wiretap() as tap:
        began = time.monotonic()
        try:
            connection = await preconnection.initiate(timeout=5)
        except EstablishmentError as error:
            tap.look()
            return {
                "reason": error.reason.name,
                "text": str(error),
                "packets": len(tap.packets),
                "seconds": time.monotonic() - began,
            }
        seconds = time.monotonic() - began
        connection.send(b"there and back")
        message = await connection.receive(min_incomplete_length=14)
        assert message.data == b"there and back"
        local = connection.local_endpoint
        connection.abort()
        await asyncio.sleep(0)
        packets = tap.look()
        assert packets
        return {
            "interfaces": sorted({packet.interface for packet in packets}),
            "sources": sorted({packet.source for packet in packets}),
            "dscps": sorted({packet.dscp for packet in packets}),
            "hops": sorted({packet.hops for packet in packets}),
            "local": local and local.address,
            "seconds": seconds,
        }


async def exchange_by(name: str, interface: str, host: str) -> dict[str, Any]:
    """With a preference about an interface, or about a type of interfaces."""
    wanted = InterfaceType[interface] if interface.isupper() else interface
    return await exchange(
        Preconnection(remote=RemoteEndpoint(host, PORT), properties=preference(name, wanted), security=PLAIN)
    )


async def exchange_from(local: dict[str, Any], host: str) -> dict[str, Any]:
    """From a local endpoint."""
    return await exchange(
        Preconnection(
            local=LocalEndpoint(**local),
            remote=RemoteEndpoint(host, PORT),
            properties=stream(),
            security=PLAIN,
        )
    )


async def exchange_marked(kind: str, host: str, hops: int | None, profile: str | None) -> dict[str, Any]:
    """With a hop limit and a capacity profile."""
    properties = stream() if kind == "stream" else datagrams()
    if profile is not None:
        properties.conn_capacity_profile = CapacityProfile[profile]
    remote = RemoteEndpoint(host, PORT)
    if hops is not None:
        remote.with_hop_limit(hops)
    return await exchange(Preconnection(remote=remote, properties=properties, security=PLAIN))


async def connect_to_both_families_at(hosts: list[str]) -> dict[str, Any]:
    """Whichever answers."""
    remotes = [RemoteEndpoint(host, PORT) for host in hosts]
    return await exchange(Preconnection(remote=remotes, properties=stream(), security=PLAIN))


async def connected_far(**properties: Any) -> Connection:
    """A Connection by the left wire."""
    remote = RemoteEndpoint(FAR[0], PORT)
    return await Preconnection(remote=remote, properties=stream(**properties), security=PLAIN).initiate(
        timeout=5
    )


async def lose_the_link(command: list[str], timeout: float) -> dict[str, Any]:
    """How a Connection with this connTimeout ends whose link goes away."""
    connection = await connected_far(conn_timeout=timeout)
    errors: list[TransportServicesError | None] = []
    connection.on_connection_error = lambda _, error: errors.append(error)
    subprocess.run(command, check=True)
    began = time.monotonic()
    connection.send(b"is anybody there?")
    await until(lambda: errors, 8)
    assert errors[0] is not None
    return {"reason": errors[0].reason.name, "text": str(errors[0]), "seconds": time.monotonic() - began}


async def stay_idle() -> list[int]:
    """The sizes of the packets that an idle Connection with keep-alives sends, up to two of them."""
    with wiretap() as tap:
        connection = await connected_far(keep_alive="require", keep_alive_timeout=1)
        tap.look()
        tap.packets.clear()
        await until(lambda: tap.look(), 4)
        connection.abort()
        await asyncio.sleep(0)
        return [packet.size for packet in tap.packets]


async def choose_an_address(value: str | None) -> str | None:
    """The local address of a Connection over IPv6."""
    properties = stream()
    if value is not None:
        properties.set("use_temporary_local_address", value)
    remote = RemoteEndpoint("fd00:1::2", PORT)
    connection = await Preconnection(remote=remote, properties=properties, security=PLAIN).initiate(timeout=5)
    local = connection.local_endpoint
    connection.abort()
    await asyncio.sleep(0)
    assert local is not None
    return local.address


async def listen_on(interface: str, there: list[str]) -> list[str | None]:
    """Where a Listener that is confined to an interface gets connections from a program over ``there``."""
    preconnection = Preconnection(
        local=LocalEndpoint(PORT + 1), properties=preference("require", interface), security=PLAIN
    )
    reached: list[str | None] = []
    async with preconnection.listen() as listener:
        for address in ("10.1.0.1", "10.2.0.1", "fd00:1::1", "fd00:2::1"):
            target = f"TCP:[{address}]:{PORT + 1}" if ":" in address else f"TCP:{address}:{PORT + 1}"
            knock = await asyncio.create_subprocess_exec(
                *there, "socat", "-u", "OPEN:/dev/null", target, stderr=asyncio.subprocess.DEVNULL
            )
            if await knock.wait() == 0:
                connection = await listener.accept()
                local = connection.local_endpoint
                reached.append(local.address if local else None)
                connection.abort()
    return reached


# Interfaces

both_families = pytest.mark.parametrize("host", FAR, ids=["v4", "v6"])


@both_families
async def test_the_system_chooses_the_route_by_default(echo: Link, host: str) -> None:
    result = await echo.near.run(exchange_from, {}, host)
    assert result["interfaces"] == [LEFT]


@both_families
@pytest.mark.parametrize(
    ("name", "interface"), [("require", RIGHT), ("prefer", RIGHT), ("prohibit", LEFT), ("avoid", LEFT)]
)
async def test_an_interface_is_chosen_by_preference(echo: Link, host: str, name: str, interface: str) -> None:
    result = await echo.near.run(exchange_by, name, interface, host)
    assert result["interfaces"] == [RIGHT]
    assert result["sources"] == [result["local"]]


async def test_a_type_of_interface_is_required(echo: Link) -> None:
    result = await echo.near.run(exchange_by, "require", "WIRED", FAR[0])
    assert result["interfaces"] == [LEFT]
    result = await echo.near.run(exchange_by, "require", "CELLULAR", FAR[0])
    assert (result["reason"], result["packets"]) == ("NO_CANDIDATES", 0)


async def test_the_loopback_interface_is_no_path_to_elsewhere(echo: Link) -> None:
    result = await echo.near.run(exchange_by, "prohibit", "WIRED", FAR[0])
    assert (result["reason"], result["packets"]) == ("NO_CANDIDATES", 0)
    assert result["seconds"] < 0.2


async def test_an_interface_that_is_not_there_is_no_path(echo: Link) -> None:
    result = await echo.near.run(exchange_by, "require", "wlan7", FAR[0])
    assert result["reason"] == "NO_CANDIDATES"
    assert "this host has no such interface" in result["text"]
    assert result["packets"] == 0


@both_families
async def test_a_local_endpoint_names_the_interface(echo: Link, host: str) -> None:
    result = await echo.near.run(exchange_from, {"interface": RIGHT}, host)
    assert result["interfaces"] == [RIGHT]


async def test_a_local_endpoint_names_the_address(echo: Link) -> None:
    result = await echo.near.run(exchange_from, {"address": "10.2.0.1"}, FAR[0])
    assert result["sources"] == ["10.2.0.1"]


async def test_a_preferred_interface_that_leads_nowhere_costs_the_stagger_of_paths(echo: Link) -> None:
    drop = ("INPUT", "-i", RIGHT, "-j", "DROP")
    echo.far.execute("iptables", "-A", *drop)
    try:
        result = await echo.near.run(exchange_by, "prefer", RIGHT, FAR[0])
        assert result["local"] == "10.1.0.1"
        assert 0.95 <= result["seconds"] < 1.3
        result = await echo.near.run(exchange_by, "require", LEFT, FAR[0])
        assert result["seconds"] < 0.2
    finally:
        echo.far.execute("iptables", "-D", *drop)


async def test_a_preferred_interface_that_is_down_costs_nothing(echo: Link) -> None:
    echo.near.ip("link", "set", RIGHT, "down")
    try:
        result = await echo.near.run(exchange_by, "prefer", RIGHT, FAR[0])
        assert result["interfaces"] == [LEFT]
        assert result["seconds"] < 0.2
        result = await echo.near.run(exchange_by, "require", RIGHT, FAR[0])
        assert result["reason"] == "NO_CANDIDATES"
        assert "down" in result["text"]
    finally:
        echo.near.restore()


async def test_an_address_that_icmp_rejects_costs_nothing(echo: Link) -> None:
    echo.far.ip("address", "add", "10.9.0.2/32", "dev", "lo")
    echo.near.ip("route", "add", "10.9.0.2", "via", "10.1.0.2")
    echo.far.reject("10.9.0.2")
    result = await echo.near.run(connect_to_both_families_at, ["10.9.0.2", FAR[1]])
    assert result["seconds"] < 0.2
    result = await echo.near.run(connect_to_both_families_at, ["10.9.0.2"])
    assert result["reason"] == "ESTABLISHMENT_FAILED"
    assert "No route to host" in result["text"]
    assert result["seconds"] < 0.2


async def test_a_listener_that_requires_an_interface_is_reached_by_it_alone(echo: Link) -> None:
    reached = await echo.near.run(listen_on, RIGHT, list(echo.far.prefix))
    assert reached == ["10.2.0.1", "fd00:2::1"]


# Packets

kinds = pytest.mark.parametrize("kind", ["stream", "datagrams"])


wires = pytest.mark.parametrize("host", FAR_WIRES[LEFT], ids=["v4", "v6"])
"""Datagrams are answered from the wire's address, so that is where they must go."""


@wires
@kinds
async def test_packets_carry_hop_limit_and_dscp(echo: Link, kind: str, host: str) -> None:
    result = await echo.near.run(exchange_marked, kind, host, 7, "LOW_LATENCY_INTERACTIVE")
    assert result["hops"] == [7]
    assert result["dscps"] == [int(CapacityProfile.LOW_LATENCY_INTERACTIVE)]


@kinds
async def test_packets_are_not_marked_by_default(echo: Link, kind: str) -> None:
    result = await echo.near.run(exchange_marked, kind, FAR_WIRES[LEFT][0], None, None)
    assert result["dscps"] == [0]
    assert result["hops"] == [64]


async def test_keep_alive_probes_appear_on_an_idle_connection(echo: Link) -> None:
    (size,) = await echo.near.run(stay_idle)
    assert size < 70  # headers alone


@pytest.mark.parametrize("value", ["require", "prefer", "prohibit", "avoid", None])
async def test_temporary_addresses_are_used_as_asked(
    temporary: tuple[Link, str, str], value: str | None
) -> None:
    link, lasting, fleeting = temporary
    chosen = await link.near.run(choose_an_address, value)
    assert chosen == (lasting if value in ("prohibit", "avoid") else fleeting)


@pytest.fixture
async def temporary(echo: Link) -> AsyncIterator[tuple[Link, str, str]]:
    """A temporary address (RFC 8981) beside a lasting one on the left wire; both."""
    lasting = "fd00:1::7"
    echo.near.execute(
        "sysctl", "-w", *(f"net.ipv6.conf.{LEFT}.{one}" for one in ("use_tempaddr=2", "dad_transmits=0"))
    )
    echo.near.ip("address", "del", "fd00:1::1/64", "dev", LEFT)
    echo.near.ip("address", "add", f"{lasting}/64", "dev", LEFT, "nodad", "mngtmpaddr")
    try:
        show = ("ip", "-6", "-oneline", "address", "show", "dev", LEFT, "temporary")
        await until(lambda: "tentative" not in echo.near.execute(*show))
        shown = echo.near.execute(*show)
        if not shown.strip():
            pytest.skip("this kernel makes no temporary addresses")
        yield echo, lasting, shown.split()[3].partition("/")[0]
    finally:
        echo.near.ip("address", "flush", "dev", LEFT, "scope", "global")
        echo.near.restore()


# Links that go away (last, for they take the wires along)


@pytest.mark.parametrize("how", ["our end", "the other end", "silence", "icmp"])
async def test_a_connection_times_out_when_its_link_is_lost(echo: Link, how: str) -> None:
    there = ["ip", "netns", "exec", echo.far.name]
    block = ["iptables", "-A", "INPUT", "-i", LEFT, "-j"]
    commands = {
        "our end": ["ip", "link", "set", LEFT, "down"],
        "the other end": [*there, "ip", "link", "set", LEFT, "down"],
        "silence": [*there, *block, "DROP"],
        "icmp": [*there, *block, "REJECT", "--reject-with", "icmp-host-unreachable"],
    }
    try:
        result = await echo.near.run(lose_the_link, commands[how], 0.5)
        assert result["reason"] == "TIMEOUT"
        assert "timed out" in result["text"]
        assert how != "icmp" or "No route to host" in result["text"]
        assert result["seconds"] < 2.5
    finally:
        echo.far.execute("iptables", "-F")
        echo.near.restore()
        echo.far.restore()
