"""Backpressure both ways: nobody's memory grows because somebody does not read."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.loopback import (
    BOTH_LOOPS,
    HOST,
    MIB,
    PlainPeer,
    framed,
    going_to,
    length_framed,
    listening_on,
    pair,
    port_of,
    resident,
    to_plain_peer,
    until,
    until_still,
)
from neatpy import Connection, SecurityParameters
from pki import Authority

pytestmark = BOTH_LOOPS
_ROOM = 16 * MIB
_KERNEL = sum(int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2]) for way in ("r", "w"))
"""What both sides' socket buffers may grow to on loopback."""


async def test_a_peer_that_never_reads_is_not_reported_as_sent_to() -> None:
    async with to_plain_peer(receive_buffer=256 * 1024) as (connection, _):
        gc.collect()
        before = resident()
        data = bytes(64 * 1024)

        async def send_all() -> None:
            for _ in range(4096):
                await connection.send(data)

        sending = asyncio.create_task(send_all())
        await until_still(lambda: connection.statistics["bytes_sent"])
        assert not sending.done()
        assert connection.statistics["bytes_sent"] <= _KERNEL + 4 * MIB
        assert resident() - before < _ROOM
        sending.cancel()


async def test_sends_that_nobody_awaits_wait_by_reference() -> None:
    async with to_plain_peer(receive_buffer=256 * 1024) as (connection, _):
        gc.collect()
        before = resident()
        data = bytes(64 * 1024)
        sent = [connection.send(data) for _ in range(4096)]
        await until_still(lambda: connection.statistics["bytes_sent"])
        done = sum(future.done() for future in sent)
        assert done * 64 * 1024 <= _KERNEL + 4 * MIB
        assert resident() - before < _ROOM


async def test_a_slow_reader_gets_everything() -> None:
    async with to_plain_peer(receive_buffer=64 * 1024) as (connection, peer):
        data = bytes(64 * 1024)
        sent = [connection.send(data) for _ in range(256)]
        received = 0
        while received < 256 * len(data):
            received += len(await peer.receive(min(MIB, 256 * len(data) - received)))
        await asyncio.gather(*sent)


async def test_an_application_that_never_receives_stops_its_peer() -> None:
    async with to_plain_peer() as (connection, peer):
        gc.collect()
        before = resident()
        sent = await _flood(peer, bytes(256 * 1024), 64 * MIB)
        assert sent < 6 * MIB + _KERNEL
        assert connection.statistics["bytes_received"] < 6 * MIB
        assert resident() - before < _ROOM
        received = 0
        while received < sent:
            received += len(await connection.receive(min_incomplete_length=1))
        assert received == sent


async def test_an_application_that_never_receives_stops_a_peer_with_tiny_messages() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        gc.collect()
        before = resident()
        sent = await _flood(peer, framed(b"x") * 20_000, 64 * MIB)
        assert sent < 64 * MIB
        assert connection.statistics["messages_received"] < 100_000
        assert resident() - before < _ROOM
        for _ in range(1000):
            assert bytes(await connection.receive()) == b"x"


@asynccontextmanager
async def _secure_pair(*, framed: bool = False) -> AsyncIterator[tuple[Connection, Connection]]:
    authority = Authority()
    security = SecurityParameters(server_certificate=authority.issue(HOST))
    trusting = SecurityParameters(trusted_certificates=authority.root)
    framers = length_framed() if framed else []
    async with listening_on(security=security, framers=framers).listen() as listener:
        client = await going_to(port_of(listener), security=trusting, framers=framers).initiate(timeout=5)
        server = await listener.accept()
        try:
            yield client, server
        finally:
            client.abort()
            server.abort()


@pytest.mark.parametrize("framed", [False, True], ids=["raw", "framed"])
async def test_over_tls_an_application_that_never_receives_stops_its_peer(framed: bool) -> None:
    async with _secure_pair(framed=framed) as (client, server):
        gc.collect()
        before = resident()
        data = bytes(64 * 1024)
        sent = [client.send(data) for _ in range(4096)]
        await until_still(lambda: (client.statistics["bytes_sent"], server.statistics["bytes_received"]))
        # What the application holds, two kernel buffers, and what may wait to be encrypted.
        done = sum(future.done() for future in sent)
        assert done * 64 * 1024 <= _KERNEL + 4 * MIB + 4 * MIB
        assert server.statistics["bytes_received"] <= 6 * MIB
        assert resident() - before < 2 * _ROOM
        received = 0
        while received < 16 * MIB:
            received += len(await asyncio.wait_for(server.receive(min_incomplete_length=1), 2))


async def test_a_receive_limit_that_is_set_before_ready_holds() -> None:
    async with listening_on().listen() as listener:
        client = going_to(port_of(listener)).initiate(timeout=5)
        client.set_property("_neatpy.receive_limit", 64 * 1024)
        await client
        server = await listener.accept()
        sent = [server.send(bytes(MIB)) for _ in range(16)]
        await until_still(lambda: client.statistics["bytes_received"])
        assert client.statistics["bytes_received"] < MIB
        assert not sent[-1].done()
        client.abort()
        server.abort()


async def test_a_receive_limit_below_what_is_there_answers_who_waits_for_more() -> None:
    async with pair() as (client, server):
        server.send(bytes(500_000))
        waiting = client.receive(min_incomplete_length=MIB)
        await until(lambda: client.statistics["bytes_received"] == 500_000)
        client.set_property("_neatpy.receive_limit", 100_000)
        assert len(await asyncio.wait_for(waiting, 2)) == 100_000


async def test_reading_goes_on_at_half_of_the_limit() -> None:
    async with to_plain_peer(framers=length_framed()) as (connection, peer):
        connection.set_property("_neatpy.receive_limit", 100_000)
        for _ in range(40):
            await peer.send(framed(bytes(10_000)))
        await until_still(lambda: connection.statistics["messages_received"])
        arrived = connection.statistics["messages_received"]
        assert arrived < 40
        for _ in range(int(arrived)):
            await connection.receive()
        await until(lambda: connection.statistics["messages_received"] > arrived)
        for _ in range(40 - int(arrived)):
            assert len(await asyncio.wait_for(connection.receive(), 2)) == 10_000


async def _flood(peer: PlainPeer, data: bytes, most: int) -> int:
    """Send until nothing is taken for a while."""
    sent = 0

    async def send() -> None:
        nonlocal sent
        while sent < most:
            taken = peer.send_what_fits(data[sent % len(data) :])
            sent += taken
            await asyncio.sleep(0 if taken else 0.002)

    sending = asyncio.create_task(send())
    await until_still(lambda: sent)
    assert not sending.done()
    sending.cancel()
    return sent
