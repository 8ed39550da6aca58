"""QUIC over networks that lose and reorder, behind a NAT that forgets, and with a client that moves between two wires.

The client is in one network namespace and the server in another, each a process with the public API. Functions without
``test`` in their name run inside.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from api.loopback import MIB, until
from api.quic_loopback import exactly, streams
from benchmarks.link import FAR_ADDRESS, NoLinkError, Settings, Sides, slow_link
from interop.identities import NAME, Identities
from interop.netns import FAR, NEAR_WIRES, Link, Namespace, NotPermitted, namespace
from neatpy import (
    Certificate,
    Connection,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Preconnection,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
)

pytest.importorskip("aioquic")
pytestmark = [pytest.mark.needs_root, pytest.mark.needs_program("ip", "iptables")]

PORT = 7443
TIME = 15.0
BLOCK = 32 * 1024
LEFT, RIGHT = NEAR_WIRES
LONGEST_STALL = 3.0
"""Seconds in which a connection finds another way, or is found where it came from, or is seen to be stuck."""


# What runs inside


@asynccontextmanager
async def listening(host: str, identity: dict[str, str]) -> AsyncIterator[Listener]:
    certificate = Certificate.from_files(identity["server"])
    async with Preconnection(
        local=LocalEndpoint(PORT, address=host, protocol="quic"),
        properties=streams(),
        security=SecurityParameters(server_certificate=certificate),
    ).listen() as listener:
        yield listener


async def echo_streams(host: str, identity: dict[str, str], count: int) -> dict[str, Any]:
    """Send back what comes on so many streams of one connection; tells where the client was seen."""
    seen: list[str | None] = []

    def note(connection: Connection) -> None:
        remote = connection.remote_endpoint
        assert remote is not None
        if remote.address not in seen[-1:]:
            seen.append(remote.address)

    async def echo(connection: Connection) -> None:
        connection.on_path_change = note
        async for piece in pieces(connection):
            await connection.send(piece)
        await connection.send(b"", final=True)
        await connection.close()

    async with listening(host, identity) as listener:
        echoing = []
        for _ in range(count):
            connection = await asyncio.wait_for(listener.accept(), TIME)
            note(connection)
            echoing.append(asyncio.ensure_future(echo(connection)))
        await asyncio.wait_for(asyncio.gather(*echoing), TIME)
    return {"seen": seen}


async def tick(host: str, identity: dict[str, str]) -> dict[str, Any]:
    """Send a number now and then, until the client says that it is enough."""
    async with listening(host, identity) as listener:
        connection = await asyncio.wait_for(listener.accept(), TIME)
        await exactly(connection, 1)
        enough = asyncio.ensure_future(exactly(connection, 1))
        count = 0
        async with asyncio.timeout(TIME):
            while not enough.done():
                await connection.send(count.to_bytes(4))
                count += 1
                await asyncio.wait([enough], timeout=0.02)
            await connection.send(b"", final=True)
            await connection.close()
    return {"count": count}


async def connected(
    host: str, identity: dict[str, str], local: dict[str, Any] | None = None, **properties: Any
) -> Connection:
    """A Connection to whoever listens there by now."""
    preconnection = Preconnection(
        local=LocalEndpoint(**local) if local else None,
        remote=RemoteEndpoint(NAME, PORT, address=host, protocol="quic"),
        properties=streams(**properties),
        security=SecurityParameters(trusted_certificates=Certificate.from_files(identity["root"])),
    )
    async with asyncio.timeout(TIME):
        while True:
            try:
                return await preconnection.initiate(timeout=TIME)
            except EstablishmentError:
                await asyncio.sleep(0.05)


async def pieces(connection: Connection) -> AsyncIterator[bytes]:
    """What comes, as it comes, to the end of the stream."""
    with suppress(ReceiveError):
        while True:
            yield (await connection.receive(min_incomplete_length=1, max_length=4 * BLOCK)).data
    assert not connection.can_receive


class Exchange:
    """Noise that goes to the server and comes back, until it is ``enough``."""

    def __init__(self, connection: Connection, seed: int = 1) -> None:
        self.connection = connection
        self.enough = False
        self.returned = self._sent = 0
        self._seed = seed
        self._hashes = hashlib.sha256(), hashlib.sha256()
        self._longest = 0.0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        await asyncio.gather(self._send(), self._receive())

    async def _send(self) -> None:
        noise = random.Random(self._seed)
        while not self.enough:
            block = noise.randbytes(BLOCK)
            self._hashes[0].update(block)
            self._sent += BLOCK
            await self.connection.send(block)
        await self.connection.send(b"", final=True)

    async def _receive(self) -> None:
        last = time.monotonic()
        async for piece in pieces(self.connection):
            now = time.monotonic()
            self._longest, last = max(self._longest, now - last), now
            self._hashes[1].update(piece)
            self.returned += len(piece)

    async def goes_on(self, size: int = MIB // 2) -> None:
        """So many bytes more come back."""
        goal = self.returned + size
        await until(lambda: self.returned >= goal or self._task.done(), TIME)
        assert self.returned >= goal, self._task.exception()

    async def ends(self) -> dict[str, Any]:
        """Everything has come back; was it the same, and what was the longest time between two pieces?"""
        self.enough = True
        await asyncio.wait_for(self._task, TIME)
        await asyncio.wait_for(self.connection.close(), TIME)
        sent, returned = self._hashes
        same = sent.digest() == returned.digest() and self._sent == self.returned
        return {"same": same, "bytes": self.returned, "stall": self._longest}


async def exchange_over_streams(
    host: str, identity: dict[str, str], count: int, size: int
) -> list[dict[str, Any]]:
    """Have so much come back over each of so many streams."""
    first = await connected(host, identity)
    everything = [first, *[await first.clone() for _ in range(count - 1)]]
    exchanges = [Exchange(connection, seed) for seed, connection in enumerate(everything)]
    await asyncio.gather(*(exchange.goes_on(size) for exchange in exchanges))
    return list(await asyncio.gather(*(exchange.ends() for exchange in exchanges)))


async def exchange_during(
    host: str,
    identity: dict[str, str],
    commands: Sequence[Sequence[str]],
    local: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run these commands while bytes go there and back."""
    exchange = Exchange(await connected(host, identity, local))
    for command in commands:
        await exchange.goes_on()
        await run(*command)
    await exchange.goes_on(MIB)
    return await exchange.ends()


async def run(*command: str) -> None:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0, command


async def exchange_while_told(
    host: str, identity: dict[str, str], local: dict[str, Any] | None, changes: Sequence[Any]
) -> dict[str, Any]:
    """Add and remove local endpoints while bytes go there and back."""
    connection = await connected(host, identity, local)
    moves = notes_of(connection)
    exchange = Exchange(connection)
    for action, endpoint in changes:
        await exchange.goes_on()
        getattr(connection, action)(LocalEndpoint(**endpoint))
    await exchange.goes_on(MIB)
    return {**await exchange.ends(), "moves": moves}


async def exchange_until_lost(
    host: str,
    identity: dict[str, str],
    local: dict[str, Any] | None,
    others: Sequence[dict[str, Any]],
    command: Sequence[str],
) -> dict[str, Any]:
    """Run a command that breaks the way while bytes go there and back; there are other local endpoints."""
    connection = await connected(host, identity, local)
    for other in others:
        connection.add_local(LocalEndpoint(**other))
    moves = notes_of(connection)
    exchange = Exchange(connection)
    await exchange.goes_on()
    await run(*command)
    await exchange.goes_on(MIB)
    return {**await exchange.ends(), "moves": moves}


async def listen_until_lost(
    host: str,
    identity: dict[str, str],
    local: dict[str, Any] | None,
    others: Sequence[dict[str, Any]],
    command: Sequence[str],
) -> dict[str, Any]:
    """Run a command that breaks the way while numbers come now and then, and nothing goes."""
    connection = await connected(host, identity, local)
    for other in others:
        connection.add_local(LocalEndpoint(**other))
    moves = notes_of(connection)
    await connection.send(b"!")
    numbers = [int.from_bytes(await exactly(connection, 4)) for _ in range(5)]
    await run(*command)
    began = last = time.monotonic()
    longest = 0.0
    while not moves or last - began < 0.5:
        numbers.append(int.from_bytes(await exactly(connection, 4)))
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    await connection.send(b"!", final=True)
    async for piece in pieces(connection):
        numbers += [int.from_bytes(piece[at : at + 4]) for at in range(0, len(piece), 4)]
    await connection.close()
    return {"count": len(numbers), "right": numbers == sorted(set(numbers)), "moves": moves, "stall": longest}


def notes_of(connection: Connection) -> list[str | None]:
    """The own address after each change of paths."""
    moves: list[str | None] = []

    def note(connection: Connection) -> None:
        local = connection.local_endpoint
        moves.append(local.address if local else None)

    connection.on_path_change = note
    return moves


# Outside


async def meeting(server: Coroutine[Any, Any, Any], client: Coroutine[Any, Any, Any]) -> tuple[Any, Any]:
    """What both have come to; when one fails, the other is not left behind."""
    tasks = [asyncio.ensure_future(server), asyncio.ensure_future(client)]
    try:
        told, got = await asyncio.gather(*tasks)
        return told, got
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


# Loss and reordering


@pytest.fixture(scope="module")
def identity(identities: Identities) -> dict[str, str]:
    """The files with what both sides need of a server's identity."""
    return {name: identities.file(name) for name in ("server", "root")}


@pytest.fixture
def bad(request: pytest.FixtureRequest) -> Iterator[Sides]:
    """Two namespaces with a bad link between them."""
    try:
        with slow_link(request.param) as sides:
            yield sides
    except NoLinkError as error:
        pytest.skip(str(error))


LOSSY = Settings(rate=200e6, delay=0.001, queue=512 * 1024, loss=0.05, reordered=0.05, behind=0.001)


@pytest.mark.parametrize("bad", [LOSSY], indirect=True)
@pytest.mark.parametrize(("count", "size"), [(1, 2 * MIB), (8, MIB // 4)], ids=["one stream", "8 streams"])
async def test_megabytes_there_and_back_survive_loss_and_reordering(
    bad: Sides, identity: dict[str, str], count: int, size: int
) -> None:
    _, results = await meeting(
        Namespace(bad.far).run(echo_streams, FAR_ADDRESS, identity, count),
        Namespace(bad.near).run(exchange_over_streams, FAR_ADDRESS, identity, count, size),
    )
    assert len(results) == count
    for result in results:
        assert result["same"]
        assert result["bytes"] >= size
    assert sum(result["bytes"] for result in results) >= 2 * MIB
    if count == 1:
        assert results[0]["stall"] < LONGEST_STALL


# A NAT that gives the client another address and port

NAT_INSIDE, NAT_OUTSIDE = "10.3.0.2", ("10.4.0.2", "10.4.0.3", "10.4.0.4")
BEHIND_NAT, BEFORE_NAT = "10.3.0.1", "10.4.0.1"


class Nat:
    """A client's namespace behind a NAT, the NAT's, and the server's."""

    def __init__(self, near: Namespace, middle: Namespace, far: Namespace) -> None:
        self.near, self.middle, self.far = near, middle, far
        near.ip("link", "add", "wire", "type", "veth", "peer", "name", "inside", "netns", middle.name)
        far.ip("link", "add", "wire", "type", "veth", "peer", "name", "outside", "netns", middle.name)
        for side, wire, address in (
            (near, "wire", BEHIND_NAT),
            (middle, "inside", NAT_INSIDE),
            (middle, "outside", NAT_OUTSIDE[0]),
            (far, "wire", BEFORE_NAT),
        ):
            side.ip("link", "set", wire, "up")
            side.ip("address", "add", f"{address}/24", "dev", wire)
        near.ip("route", "add", "default", "via", NAT_INSIDE)
        # An address that goes takes those that came after it along, unless they are promoted.
        middle.execute("sysctl", "-w", "net.ipv4.ip_forward=1", "net.ipv4.conf.outside.promote_secondaries=1")
        middle.execute(*self._masquerade(0, "-A"))

    @staticmethod
    def _masquerade(number: int, action: str, *place: str) -> tuple[str, ...]:
        ports = f"{20000 + 1000 * number}-{20999 + 1000 * number}"
        rule = ("-o", "outside", "-p", "udp", "-j", "MASQUERADE", "--to-ports", ports)
        return ("iptables", "-w", "-t", "nat", action, "POSTROUTING", *place, *rule)

    def rebinding(self) -> list[tuple[str, ...]]:
        """Commands that make it forget its bindings and give others, one after the other."""
        commands: list[tuple[str, ...]] = []
        prefix = ("ip", "-n", self.middle.name, "address")
        for number, (old, new) in enumerate(itertools.pairwise(NAT_OUTSIDE), 1):
            steps = (
                (*self.middle.prefix, *self._masquerade(number, "-R", "1")),
                (*prefix, "add", f"{new}/24", "dev", "outside"),
                (*prefix, "del", f"{old}/24", "dev", "outside"),
            )
            commands.append(("sh", "-ec", "\n".join(" ".join(step) for step in steps)))
        return commands


@pytest.fixture
def nat() -> Iterator[Nat]:
    """A NAT between two namespaces."""
    try:
        with ExitStack() as stack:
            yield Nat(*(stack.enter_context(namespace()) for _ in range(3)))
    except NotPermitted as error:
        pytest.skip(str(error))


async def test_a_nat_that_gives_the_client_other_addresses_amid_a_transfer_is_survived(
    nat: Nat, identity: dict[str, str]
) -> None:
    server, client = await meeting(
        nat.far.run(echo_streams, BEFORE_NAT, identity, 1),
        nat.near.run(exchange_during, BEFORE_NAT, identity, nat.rebinding()),
    )
    assert client["same"]
    assert client["stall"] < LONGEST_STALL
    assert server["seen"] == list(NAT_OUTSIDE)


# A client that moves

both_families = pytest.mark.parametrize("family", [0, 1], ids=["v4", "v6"])


@pytest.fixture
def wires(link: Link) -> Iterator[Link]:
    """Two wires, which are as they were made when the test is over."""
    yield link
    link.far.execute("iptables", "-F", "INPUT")
    link.far.execute("ip6tables", "-F", "INPUT")
    link.near.restore()
    link.far.restore()


def own(wire: str, family: int) -> str:
    return NEAR_WIRES[wire][family]


@pytest.mark.parametrize(("named", "family"), [("interface", 0), ("address", 1), ("address", 0)])
async def test_a_client_moves_between_wires_as_it_is_told(
    wires: Link, identity: dict[str, str], named: str, family: int
) -> None:
    left, right = (
        {"interface": wire} if named == "interface" else {"address": own(wire, family)} for wire in NEAR_WIRES
    )
    changes = [("add_local", right), ("remove_local", left), ("add_local", left), ("remove_local", right)]
    server, client = await meeting(
        wires.far.run(echo_streams, FAR[family], identity, 1),
        wires.near.run(exchange_while_told, FAR[family], identity, left, changes),
    )
    assert client["same"]
    assert client["stall"] < LONGEST_STALL
    assert client["moves"] == [own(RIGHT, family), own(LEFT, family)]
    # While a new path is not proven yet, the server may go back to the old one now and then.
    assert server["seen"][0] == server["seen"][-1] == own(LEFT, family)
    assert own(RIGHT, family) in server["seen"]


async def test_a_wire_that_the_system_chose_is_left_when_it_is_removed(
    wires: Link, identity: dict[str, str]
) -> None:
    changes = [("add_local", {"interface": RIGHT}), ("remove_local", {"interface": LEFT})]
    server, client = await meeting(
        wires.far.run(echo_streams, FAR[0], identity, 1),
        wires.near.run(exchange_while_told, FAR[0], identity, None, changes),
    )
    assert client["same"]
    assert client["moves"] == [own(RIGHT, 0)]
    assert server["seen"] == [own(LEFT, 0), own(RIGHT, 0)]


@both_families
@pytest.mark.parametrize(
    ("local", "others"),
    [(None, []), ({"interface": LEFT}, [{"interface": RIGHT}])],
    ids=["the system's choice", "endpoints"],
)
async def test_a_client_whose_wire_goes_down_goes_on_over_the_other(
    wires: Link, identity: dict[str, str], family: int, local: dict[str, Any] | None, others: list[Any]
) -> None:
    lose = ["ip", "link", "set", LEFT, "down"]
    server, client = await meeting(
        wires.far.run(echo_streams, FAR[family], identity, 1),
        wires.near.run(exchange_until_lost, FAR[family], identity, local, others, lose),
    )
    assert client["same"]
    assert client["stall"] < LONGEST_STALL
    assert client["moves"] == [own(RIGHT, family)]
    assert server["seen"] == [own(LEFT, family), own(RIGHT, family)]


async def test_a_client_leaves_a_wire_that_carries_nothing_any_more(
    wires: Link, identity: dict[str, str]
) -> None:
    silence = [*wires.far.prefix, "iptables", "-A", "INPUT", "-i", LEFT, "-j", "DROP"]
    server, client = await meeting(
        wires.far.run(echo_streams, FAR[0], identity, 1),
        wires.near.run(
            exchange_until_lost, FAR[0], identity, {"interface": LEFT}, [{"interface": RIGHT}], silence
        ),
    )
    assert client["same"]
    assert client["stall"] < LONGEST_STALL
    assert client["moves"] == [own(RIGHT, 0)]
    assert server["seen"] == [own(LEFT, 0), own(RIGHT, 0)]


@pytest.mark.parametrize(
    ("local", "others", "family"),
    [(None, [], 0), ({"interface": LEFT}, [{"interface": RIGHT}], 1)],
    ids=["the system's choice", "endpoints"],
)
async def test_a_client_that_only_listens_notices_that_its_wire_went_down(
    wires: Link, identity: dict[str, str], local: dict[str, Any] | None, others: list[Any], family: int
) -> None:
    lose = ["ip", "link", "set", LEFT, "down"]
    server, client = await meeting(
        wires.far.run(tick, FAR[family], identity),
        wires.near.run(listen_until_lost, FAR[family], identity, local, others, lose),
    )
    assert client["right"]
    assert client["count"] == server["count"]
    assert client["moves"] == [own(RIGHT, family)]
    assert client["stall"] < LONGEST_STALL
