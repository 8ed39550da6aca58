"""SCTP over UDP (RFC 6951) with the example programs of usrsctp, both ways."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api.loopback import BOTH_LOOPS, HOST, PLAIN, turns, until
from interop.programs import running
from neatpy import (
    Connection,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    MessageContext,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    TransportProperties,
)
from neatpy.stacks._sctp.library import obstacle

PROGRAMS = "/usr/lib/usrsctp/"
ECHO, DISCARD, DAYTIME, TSCTP = (
    PROGRAMS + name for name in ("echo_server", "discard_server", "daytime_server", "tsctp")
)
CLIENT = PROGRAMS + "client"
ECHO_PORT, DISCARD_PORT, DAYTIME_PORT = 7, 9, 13  # the SCTP ports that these programs have built in

pytestmark = [
    BOTH_LOOPS,
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
    pytest.mark.needs_program(ECHO),
]


@pytest.fixture(autouse=True)
async def _everything_is_given_back() -> AsyncIterator[None]:
    from neatpy.stacks._sctp.engine import ENGINE

    yield
    await until(lambda: ENGINE.counts() == (0, 0))


def through(udp_port: int) -> TransportProperties:
    return TransportProperties.reliable_message().set("_neatpy.encapsulation_port", udp_port)


@asynccontextmanager
async def connected(sctp_port: int, udp_port: int) -> AsyncIterator[Connection]:
    """A Connection to a program that was just started: it refuses until it listens."""
    there = RemoteEndpoint(HOST, sctp_port, protocol="sctp")
    async with asyncio.timeout(5):
        while True:
            await bound(udp_port)
            try:
                connection = await Preconnection(
                    remote=there, properties=through(udp_port), security=PLAIN
                ).initiate()
                break
            except EstablishmentError:
                await turns()
    try:
        yield connection
    finally:
        connection.abort()


@asynccontextmanager
async def listening(sctp_port: int, udp_port: int) -> AsyncIterator[Listener]:
    async with Preconnection(
        local=LocalEndpoint(sctp_port, address=HOST, protocol="sctp"),
        properties=through(udp_port),
        security=PLAIN,
    ).listen() as listener:
        yield listener


async def bound(udp_port: int) -> None:
    """Wait until a program has this UDP port, by what the kernel lists: to try it would be to take it away."""
    ending = f":{udp_port:04X}"

    def taken() -> bool:
        lines = Path("/proc/net/udp").read_text().splitlines()[1:]
        return any(line.split()[1].endswith(ending) for line in lines)

    await until(taken)


def free_udp_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    probes = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


async def received(connection: Connection) -> Any:
    return await asyncio.wait_for(connection.receive(), 5)


async def test_the_echo_server_gives_back_what_it_was_sent() -> None:
    theirs, unused = free_udp_ports(2)
    async with running(ECHO, str(theirs), str(unused)), connected(ECHO_PORT, theirs) as connection:
        for size in (1, 64, 1400, 9000):
            context = MessageContext(**{"_neatpy.payload_protocol_id": size})
            connection.send(bytes([size % 251]) * size, context)
            message = await received(connection)
            assert bytes(message) == bytes([size % 251]) * size
            assert message.context.neatpy_payload_protocol_id == size


async def test_the_echo_server_gives_back_a_burst_of_unordered_messages() -> None:
    theirs, unused = free_udp_ports(2)
    async with running(ECHO, str(theirs), str(unused)), connected(ECHO_PORT, theirs) as connection:
        sent = {b"%d" % number for number in range(200)}
        for message in sent:
            connection.send(message, MessageContext(msg_ordered=False))
        assert {bytes(await received(connection)) for _ in sent} == sent


async def test_closing_delivers_everything_and_the_echo_server_shuts_down_with_us() -> None:
    theirs, unused = free_udp_ports(2)
    async with running(ECHO, str(theirs), str(unused)), connected(ECHO_PORT, theirs) as connection:
        connection.send(b"last words")
        assert bytes(await received(connection)) == b"last words"
        began = time.monotonic()
        await asyncio.wait_for(connection.close(), 5)
        assert time.monotonic() - began < 1


async def test_a_clone_to_a_peer_that_cannot_interleave_is_an_association_of_its_own() -> None:
    theirs, unused = free_udp_ports(2)
    async with running(ECHO, str(theirs), str(unused)), connected(ECHO_PORT, theirs) as connection:
        clone = connection.clone()
        await asyncio.wait_for(_ready(clone), 5)
        clone.send(b"from the clone")
        connection.send(b"from the first")
        assert bytes(await received(clone)) == b"from the clone"
        assert bytes(await received(connection)) == b"from the first"
        connection.abort_group()


async def test_the_daytime_server_says_one_thing_and_closes() -> None:
    theirs, unused = free_udp_ports(2)
    async with running(DAYTIME, str(theirs), str(unused)), connected(DAYTIME_PORT, theirs) as connection:
        assert str(time.gmtime().tm_year).encode() in bytes(await received(connection))
        with pytest.raises(ReceiveError) as caught:
            await received(connection)
        assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_the_discard_server_takes_two_megabytes() -> None:
    theirs, unused = free_udp_ports(2)
    async with running(DISCARD, str(theirs), str(unused)), connected(DISCARD_PORT, theirs) as connection:
        for _ in range(200):
            await connection.send(bytes(10_000))
        await asyncio.wait_for(connection.close(), 20)


async def test_tsctp_receives_every_message_that_we_send() -> None:
    theirs, unused = free_udp_ports(2)
    sctp_port = 5001
    # One connection is what it serves with -n.
    server = (TSCTP, "-E", str(theirs), "-U", str(unused), "-p", str(sctp_port), "-n", "100", "-v")
    async with running(*server) as program, connected(sctp_port, theirs) as connection:
        for _ in range(100):
            await connection.send(bytes(8000))
        await asyncio.wait_for(connection.close(), 20)
        await program.says(r"8000, 100, 100, 800000,", 10)  # the size, messages, calls and bytes


async def _ready(connection: Connection) -> Connection:
    return await connection


async def test_the_client_program_talks_to_a_listener() -> None:
    ours, theirs = free_udp_ports(2)
    client = (CLIENT, HOST, "5002", "0", str(theirs), str(ours))
    async with listening(5002, ours) as listener, running(*client) as program:
        server = await asyncio.wait_for(listener.accept(), 5)
        program.types(b"hello from the program\n")
        assert b"hello from the program" in bytes(await received(server))
        server.send(b"hello from the listener")
        await program.says("hello from the listener")
        program.hangs_up()
        with pytest.raises(ReceiveError):
            await received(server)
        server.abort()


async def test_tsctp_sends_every_message_to_a_listener() -> None:
    ours, theirs = free_udp_ports(2)
    count, size = 300, 20_000
    client = (
        TSCTP,
        "-E",
        str(theirs),
        "-U",
        str(ours),
        "-p",
        "5003",
        "-n",
        str(count),
        "-l",
        str(size),
        HOST,
    )
    async with listening(5003, ours) as listener, running(*client):
        server = await asyncio.wait_for(listener.accept(), 5)
        async with asyncio.timeout(20):
            sizes = [len(message) async for message in server]
        assert sizes == [size] * count
        server.abort()
