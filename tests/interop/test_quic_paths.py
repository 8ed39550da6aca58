"""QUIC on networks that lose and reorder packets, rebind addresses and take interfaces away, between namespaces.

Functions without ``test`` in their name run inside the namespaces; what they are given and give is plain data.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aioquic")

from api.loopback import until
from benchmarks.link import FAR_ADDRESS, NoLinkError, Settings, Sides, slow_link
from interop.netns import FAR, NEAR_WIRES, Link, Namespace
from neatpy import (
    Certificate,
    Connection,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from pki import Authority

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_program("ip", "nft")]

PORT = 7443
NAME = "quic.example"
LEFT, RIGHT = NEAR_WIRES
MIB = 1 << 20
CHUNK = 64 * 1024
TIME = 15.0

AUTHORITY = Authority()


def identity() -> str:
    issued = AUTHORITY.issue(NAME)
    return (issued.certificate_chain + issued.private_key).decode()


def root() -> str:
    return AUTHORITY.root.certificate_chain.decode()


# What runs inside


@asynccontextmanager
async def listening(pem: str, address: str) -> AsyncIterator[Listener]:
    # What arrives first may be the goodbye of an attempt that nobody listened to; the engine would complain of it.
    logging.getLogger("quic").setLevel(logging.ERROR)
    async with Preconnection(
        local=LocalEndpoint(PORT, address=address, protocol="quic"),
        properties=TransportProperties.reliable_inorder_stream(),
        security=SecurityParameters(server_certificate=Certificate.from_pem(pem.encode())),
    ).listen() as listener:
        yield listener


async def connected(pem: str, address: str, local: LocalEndpoint | None = None) -> Connection:
    """A Connection to the server, which may still be about to begin."""
    preconnection = Preconnection(
        local=local,
        remote=RemoteEndpoint(NAME, PORT, address=address, protocol="quic"),
        properties=TransportProperties.reliable_inorder_stream(),
        security=SecurityParameters(trusted_certificates=Certificate.from_pem(pem.encode())),
    )
    async with asyncio.timeout(TIME):
        while True:
            try:
                return await preconnection.initiate(timeout=5)
            except EstablishmentError:
                await asyncio.sleep(0.02)  # nobody listens yet


async def arriving(connection: Connection) -> AsyncIterator[bytes]:
    """What a peer sends, as it comes, up to its end."""
    ended = False
    while not ended:
        message = await asyncio.wait_for(connection.receive(min_incomplete_length=1), TIME)
        yield message.data
        ended = message.end_of_message


async def digest(connection: Connection) -> str:
    """What a peer sends up to its end, in short."""
    seen = hashlib.sha256()
    async for data in arriving(connection):
        seen.update(data)
    return seen.hexdigest()


async def answer_digests(pem: str, address: str, connections: int) -> int:
    """Answer so many Connections with the digest of what they send; how many groups they were in."""
    groups: set[frozenset[Connection]] = set()
    async with listening(pem, address) as listener:

        async def answer(connection: Connection) -> None:
            await connection.send((await digest(connection)).encode(), final=True)
            await connection.close()

        answering = []
        for _ in range(connections):
            connection = await asyncio.wait_for(listener.accept(), TIME)
            answering.append(asyncio.create_task(answer(connection)))
        groups.add(connection.grouped_connections)
        await asyncio.wait_for(asyncio.gather(*answering), TIME)
    return len(groups)


async def pour(connection: Connection, size: int) -> str:
    """Send so much, and get the digest of what arrived; it must be that of what was sent."""
    sent = hashlib.sha256()
    for number in range(size // CHUNK):
        chunk = number.to_bytes(8, "big") * (CHUNK // 8)
        sent.update(chunk)
        await connection.send(chunk)
    await connection.send(b"", final=True)
    answer = bytes(await asyncio.wait_for(connection.receive(), TIME)).decode()
    await asyncio.wait_for(connection.close(), TIME)
    return "same" if answer == sent.hexdigest() else "other"


async def pour_on_streams(pem: str, address: str, size: int, clones: int) -> list[str]:
    first = await connected(pem, address)
    members = [first, *(first.clone() for _ in range(clones))]
    return await asyncio.gather(*(pour(member, size) for member in members))


async def echo_one(pem: str, address: str) -> str:
    """Send everything of one Connection back."""
    async with listening(pem, address) as listener:
        connection = await asyncio.wait_for(listener.accept(), TIME)
        paths: list[str] = []
        connection.on_path_change = lambda moved: paths.append(str(moved.remote_endpoint))
        async for data in arriving(connection):
            await connection.send(data)
        await asyncio.wait_for(connection.close(), TIME)
        return " ".join(paths)


def place(connection: Connection) -> str:
    local = connection.local_endpoint
    assert local is not None
    return str(local.address)


async def asked(connection: Connection, text: bytes) -> bool:
    """Whether this comes back."""
    await connection.send(text)
    answer = b""
    async with asyncio.timeout(TIME):
        while len(answer) < len(text):
            answer += (await connection.receive(min_incomplete_length=1)).data
    return answer == text


async def go_on_while_a_nat_rebinds(pem: str, address: str) -> dict[str, Any]:
    connection = await connected(pem, address)
    local = connection.local_endpoint
    assert local is not None
    result = {"before": await asked(connection, b"before")}
    for outer in (40_001, 40_002):
        translate(local.port or 0, outer)
        result[str(outer)] = await asked(connection, b"x" * MIB)
    result["moved here"] = connection.local_endpoint != local
    await asyncio.wait_for(connection.close(), TIME)
    return result


def translate(inner: int, outer: int) -> None:
    """From now on packets from one port of this namespace leave from another one, and the answers come back."""
    rules = f"""
        table ip nat_of_the_test {{}}
        delete table ip nat_of_the_test
        table ip nat_of_the_test {{
            chain out {{ type filter hook output priority raw; udp sport {inner} udp sport set {outer}; }}
            chain in {{ type filter hook prerouting priority raw; udp dport {outer} udp dport set {inner}; }}
        }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, timeout=TIME)


async def move_on_request(pem: str, address: str) -> dict[str, Any]:
    connection = await connected(pem, address, LocalEndpoint(interface=LEFT))
    changes: list[str] = []
    connection.on_path_change = lambda moved: changes.append(place(moved))
    result: dict[str, Any] = {"left": await asked(connection, b"on the left")}
    connection.add_local(LocalEndpoint(interface=RIGHT))
    result["both"] = await asked(connection, b"still there")
    assert changes == []
    connection.remove_local(LocalEndpoint(interface=LEFT))
    result["right"] = await asked(connection, b"x" * MIB)
    await until(lambda: changes)
    result["changes"] = changes
    await asyncio.wait_for(connection.close(), TIME)
    return result


async def lose_the_interface(pem: str, address: str, interface: str | None) -> dict[str, Any]:
    """Go on by the wire that is left. Without an interface of its own, the Connection goes where the system routes."""
    local = None if interface is None else LocalEndpoint(interface=interface)
    connection = await connected(pem, address, local)
    changes: list[str] = []
    connection.on_path_change = lambda moved: changes.append(place(moved))
    if interface is not None:
        connection.add_local(LocalEndpoint(interface=RIGHT))
    result: dict[str, Any] = {"before": await asked(connection, b"before")}
    subprocess.run(["ip", "link", "set", LEFT, "down"], check=True, timeout=TIME)
    result["after"] = await asked(connection, b"x" * MIB)
    await until(lambda: changes)
    result["changes"] = changes
    await asyncio.wait_for(connection.close(), TIME)
    return result


# Loss and reordering


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> Iterator[Sides]:
    """Two namespaces with a bad link between them."""
    try:
        with slow_link(request.param) as sides:
            yield sides
    except NoLinkError as error:
        pytest.skip(str(error))


LOSSY = Settings(rate=100e6, delay=0.005, queue=256 * 1024, loss=0.03)
SHUFFLED = Settings(rate=100e6, delay=0.005, queue=256 * 1024, reordered=0.1, behind=0.004)


@pytest.mark.parametrize("slow", [LOSSY, SHUFFLED], indirect=True, ids=["loss", "reordering"])
@pytest.mark.parametrize("clones", [0, 4])
async def test_everything_arrives_once_and_in_order_over_a_bad_link(slow: Sides, clones: int) -> None:
    size = 2 * MIB // (clones + 1)
    groups, answers = await asyncio.gather(
        Namespace(slow.far).run(answer_digests, identity(), FAR_ADDRESS, clones + 1),
        Namespace(slow.near).run(pour_on_streams, root(), FAR_ADDRESS, size, clones),
    )
    assert answers == ["same"] * (clones + 1)
    assert groups == 1


# Movement


@pytest.fixture
def wires(link: Link) -> Iterator[Link]:
    """Two wires, which are up again afterwards."""
    yield link
    link.far.restore()
    link.near.restore()


async def test_a_connection_outlives_a_nat_that_rebinds(wires: Link) -> None:
    seen, result = await asyncio.gather(
        wires.far.run(echo_one, identity(), FAR[0]),
        wires.near.run(go_on_while_a_nat_rebinds, root(), FAR[0]),
    )
    assert result == {"before": True, "40001": True, "40002": True, "moved here": False}
    assert "40001" in seen
    assert "40002" in seen


async def test_a_client_moves_to_another_interface_when_the_first_is_removed(wires: Link) -> None:
    seen, result = await asyncio.gather(
        wires.far.run(echo_one, identity(), FAR[0]), wires.near.run(move_on_request, root(), FAR[0])
    )
    here = NEAR_WIRES[RIGHT][0]
    assert result == {"left": True, "both": True, "right": True, "changes": [here]}
    assert here in seen


@pytest.mark.parametrize("interface", [LEFT, None])
async def test_a_client_goes_on_when_its_interface_is_lost(wires: Link, interface: str | None) -> None:
    seen, result = await asyncio.gather(
        wires.far.run(echo_one, identity(), FAR[0]),
        wires.near.run(lose_the_interface, root(), FAR[0], interface),
    )
    here = NEAR_WIRES[RIGHT][0]
    assert result["before"]
    assert result["after"]
    assert result["changes"][-1] == here
    assert here in seen
