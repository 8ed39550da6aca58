"""How a QUIC connection ends when one side just goes: a program that exits, a loop that ends, a peer that aborts after
its Final, a network that has fallen silent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api.another_process import program
from api.loopback import BOTH_LOOPS, HOST, length_framed, port_of, until
from api.quic_loopback import (
    IDENTITY,
    TIME,
    connected,
    everything_is_given_back,
    exactly,
    flow_of,
    going_to,
    listening,
    offering,
    pair,
    streams,
    to_the_end,
)
from api.relay import Relay
from neatpy import (
    Certificate,
    Connection,
    ConnectionError,
    ConnectionState,
    LocalEndpoint,
    Preconnection,
    Reason,
    ReceiveError,
    SecurityParameters,
)

pytest.importorskip("aioquic")
__all__ = ["everything_is_given_back"]
pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("everything_is_given_back")]

SOON = 2.0
"""Seconds in which everything here ends; waiting for a peer that is not there takes ten at least."""


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """The directory with the certificate of servers that are programs of their own."""
    (tmp_path / "chain").write_bytes(IDENTITY.certificate_chain)
    (tmp_path / "key").write_bytes(IDENTITY.private_key)
    return tmp_path


async def answer(identity: str, then: str) -> None:
    """Echo what comes first, and then close, or just end, or stay."""
    certificate = Certificate.from_files(f"{identity}/chain", f"{identity}/key")
    security = offering(server_certificate=certificate)
    local = LocalEndpoint(0, address=HOST, protocol="quic")
    listener = await Preconnection(local, properties=streams(), security=security).listen()
    print(port_of(listener), flush=True)
    connection = await listener.accept()
    await connection.send((await connection.receive(min_incomplete_length=1)).data)
    if then == "close":
        await connection.close()
    elif then == "stay":
        await asyncio.Event().wait()
    await listener.stop()


async def ask(identity: str, port: str) -> None:
    """Ask, and end with the answer."""
    trusting = SecurityParameters(trusted_certificates=f"{identity}/chain")
    client = await going_to(int(port), trusting).initiate(timeout=TIME)
    client.send(b"hello")
    assert await exactly(client, 5) == b"hello"


@asynccontextmanager
async def answered(identity: Path, then: str) -> AsyncIterator[tuple[Connection, asyncio.subprocess.Process]]:
    """A client of a server that is a program of its own: it has its answer, and the server has all that it said."""
    async with program(answer, identity, then) as process:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), TIME))
        client = await going_to(port).initiate(timeout=TIME)
        try:
            client.send(b"hello")
            assert await exactly(client, 5) == b"hello"
            await until(lambda: not flow_of(client).backlog())
            yield client, process
        finally:
            client.abort()


async def close_soon(connection: Connection) -> None:
    """Close, which ends well and does not wait for anybody."""
    began = time.monotonic()
    await asyncio.wait_for(connection.close(), TIME)
    assert time.monotonic() - began < SOON


# Programs that exit


async def test_closing_after_the_peer_has_closed_and_exited_ends_well_and_soon(identity: Path) -> None:
    async with answered(identity, "close") as (client, process):
        assert await to_the_end(client) == b""
        assert await asyncio.wait_for(process.wait(), TIME) == 0
        await close_soon(client)


async def test_closing_after_the_peer_was_killed_ends_well_and_soon_if_it_had_everything(
    identity: Path,
) -> None:
    async with answered(identity, "stay") as (client, process):
        process.kill()
        await process.wait()
        await close_soon(client)


async def test_a_client_hears_that_the_servers_loop_has_ended(identity: Path) -> None:
    async with answered(identity, "end") as (client, _):
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(client.receive(), SOON)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_a_server_hears_that_the_clients_loop_has_ended(identity: Path) -> None:
    async with listening() as listener, program(ask, identity, port_of(listener)):
        server = await asyncio.wait_for(listener.accept(), TIME)
        assert await exactly(server, 5) == b"hello"
        server.send(b"hello")
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(server.receive(), SOON)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


# Networks that fall silent


async def test_closing_against_silence_ends_well_if_the_peer_had_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neatpy.stacks._quic.flow.LINGER", 0.2)
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        client.send(b"hello")
        assert await exactly(server, 5) == b"hello"
        await until(lambda: not flow_of(client).backlog())
        relay.decide = lambda *_: ()
        await close_soon(client)


# Peers that abort late


@pytest.mark.parametrize("side", ["client", "server"])
async def test_an_abort_after_the_final_message_is_told(side: str) -> None:
    async with pair() as (client, server):
        client.send(b"question")
        assert await exactly(server, 8) == b"question"
        aborts, hears = (client, server) if side == "client" else (server, client)
        broken: list[ConnectionError] = []
        hears.on_connection_error = lambda _, error: broken.append(error)
        await aborts.send(b"bye", final=True)
        assert await to_the_end(hears) == b"bye"
        aborts.abort()
        await until(lambda: broken)
        assert broken[0].reason is Reason.CONNECTION_ABORTED
        assert hears.state is ConnectionState.CLOSED


async def test_what_a_paused_stream_holds_is_there_after_the_peer_has_closed() -> None:
    async with pair() as (client, server):
        client.send(bytes(512 * 1024))
        await asyncio.wait_for(client.close(), TIME)
        assert server.statistics["bytes_received"] < 512 * 1024
        assert await to_the_end(server) == bytes(512 * 1024)


async def test_what_a_paused_stream_holds_is_there_after_the_peer_has_aborted() -> None:
    async with pair() as (client, server):
        held: Any = flow_of(server)
        await client.send(bytes(512 * 1024))
        await until(lambda: held._held is not None)
        await until(lambda: not client.statistics["bytes_in_flight"])
        client.abort()
        await until(lambda: server.state is ConnectionState.CLOSED)
        assert await exactly(server, 512 * 1024) == bytes(512 * 1024)
        with pytest.raises(ReceiveError) as caught:
            await server.receive()
        assert caught.value.reason is Reason.CONNECTION_ABORTED


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_framed_messages_that_came_before_the_end_are_not_lost(end: str) -> None:
    async with pair(framers=length_framed()) as (client, server):
        await asyncio.gather(*(client.send(bytes(50_000)) for _ in range(16)))
        await until(lambda: not client._path.flow.backlog())  # type: ignore[union-attr]
        getattr(client, end)()
        got = 0
        with contextlib.suppress(ReceiveError):
            while True:
                assert len(await asyncio.wait_for(server.receive(), TIME)) == 50_000
                got += 1
        assert got == 16
