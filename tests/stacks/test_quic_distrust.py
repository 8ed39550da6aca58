"""Peers of the stack quic that are not to be trusted, or not yet: nothing that they say is told, and nothing that they
give is kept."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

pytest.importorskip("aioquic")

from aioquic import tls
from aioquic.quic.connection import QuicConnection
from quic_wire import ForeignServer, engine_room, foreign, foreign_server, pumped, stranger

from api.conftest import complaints
from api.loopback import HOST, port_of, turns, until
from api.quic_loopback import (
    AUTHORITY,
    CLIENT,
    TIME,
    connected,
    everything_is_given_back,
    exactly,
    going_to,
    listening,
    offering,
    refusal,
    to_the_end,
    trusting,
)
from api.relay import Relay
from neatpy import Certificate, Connection, ConnectionState, EstablishmentError, TrustVerification
from pki import Authority

__all__ = ["complaints", "everything_is_given_back", "foreign_server"]
pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("everything_is_given_back"),
]

STRANGERS = Authority()
WORDS = b"obey me"


class Judge:
    """A trust callback that takes its time."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def __call__(self, trust: TrustVerification) -> bool:
        self.asked.set()
        return await self._answer

    def say(self, trusted: bool) -> None:
        self._answer.set_result(trusted)


# Sessions of servers


@pytest.fixture
def sessions_come_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers give a session together with their first flight, as they may (RFC 8446 section 4.6.1)."""
    handle = tls.Context.handle_message

    def handle_and_give(self: Any, data: bytes, output: Any) -> None:
        handle(self, data, output)
        if self.state is tls.State.SERVER_EXPECT_FINISHED and self._psk_key_exchange_mode is not None:
            self._psk_key_exchange_mode = None  # so that none comes later
            given = tls.NewSessionTicket(86400, 7, b"", os.urandom(64), self._max_early_data)
            tls.push_new_session_ticket(output[tls.Epoch.ONE_RTT], given)
            self.new_session_ticket_cb(self._build_session_ticket(given, self.handshake_extensions))

    monkeypatch.setattr(tls.Context, "handle_message", handle_and_give)


@pytest.mark.usefixtures("sessions_come_early")
async def test_a_session_of_a_server_that_is_not_trusted_never_makes_it_trusted() -> None:
    async with listening(offering(server_certificate=STRANGERS.issue("localhost"))) as listener:
        preconnection = going_to(port_of(listener))
        for _ in range(3):
            assert "is not trusted" in str(await refusal(preconnection))


@pytest.mark.usefixtures("sessions_come_early")
async def test_a_session_that_came_before_its_server_was_trusted_is_used_later() -> None:
    async with listening() as listener:
        preconnection = going_to(port_of(listener))
        for resumed in (False, True):
            async with connected(preconnection, listener) as (client, _):
                assert client.get_properties()["security"]["resumed"] is resumed


# Clients that send before they are known


def speaking(certificate: Certificate | None) -> QuicConnection:
    """A client whose words travel together with the end of its handshake."""
    client = foreign(certificate)
    client.connect((HOST, 0), time.monotonic())
    client.send_stream_data(0, WORDS)
    return client


@pytest.mark.parametrize(
    "certificate", [None, STRANGERS.issue("client.example")], ids=["no certificate", "unknown issuer"]
)
async def test_a_client_that_is_not_trusted_is_no_connection_whatever_it_sends(
    certificate: Certificate | None,
) -> None:
    accepted: list[Connection] = []
    requiring = offering(trusted_certificates=AUTHORITY.root)
    async with listening(requiring) as listener, stranger(listener) as sock:
        listener.on_connection_received = lambda _, connection: accepted.append(connection)
        client = speaking(certificate)
        await pumped(client, sock, lambda: client._close_event)
        await turns(20)
        assert accepted == []


async def test_a_client_that_is_trusted_is_heard_from_its_first_word() -> None:
    requiring = offering(trusted_certificates=AUTHORITY.root)
    async with listening(requiring) as listener, stranger(listener) as sock:
        client = speaking(CLIENT)
        accepting = asyncio.ensure_future(listener.accept())
        await pumped(client, sock, accepting.done)
        server = await accepting
        assert await exactly(server, len(WORDS)) == WORDS
        server.abort()


@pytest.mark.parametrize("trusted", [True, False])
async def test_nothing_of_a_client_is_told_while_the_callback_thinks(trusted: bool) -> None:
    accepted: list[Connection] = []
    judge = Judge()
    deciding = offering(trusted_certificates=AUTHORITY.root, trust_verification_callback=judge)
    async with listening(deciding) as listener, stranger(listener) as sock:
        listener.on_connection_received = lambda _, connection: accepted.append(connection)
        client = speaking(CLIENT)
        await pumped(client, sock, judge.asked.is_set)
        client.send_stream_data(0, WORDS, end_stream=True)
        (transport,) = set(engine_room(listener)._by_id.values())
        table = transport.engine._table
        await pumped(client, sock, lambda: 0 in table and table[0].receiver.highest_offset == 2 * len(WORDS))
        await turns(20)
        assert accepted == []
        judge.say(trusted)
        if trusted:
            await until(lambda: accepted)
            assert await to_the_end(accepted[0]) == 2 * WORDS
            accepted[0].abort()
        else:
            await pumped(client, sock, lambda: client._close_event)
            assert accepted == []


# Servers that send before they are known


@pytest.mark.parametrize("trusted", [True, False])
async def test_nothing_of_a_server_is_told_while_the_callback_thinks(
    trusted: bool, foreign_server: ForeignServer
) -> None:
    judge = Judge()
    received: list[Connection] = []
    foreign_server.first_words = WORDS
    async with Relay.to(foreign_server.port) as relay:
        security = trusting(trust_verification_callback=judge)
        client = going_to(relay.port, security).initiate(timeout=TIME)
        client.on_connection_received = lambda _, connection: received.append(connection)
        await asyncio.wait_for(judge.asked.wait(), TIME)
        sent = len(relay.seen[False])
        await until(lambda: len(relay.seen[False]) > sent)  # it has said it all once more
        await turns(20)
        assert received == []
        assert client.state is ConnectionState.ESTABLISHING
        judge.say(trusted)
        if trusted:
            await client
            await until(lambda: received)
            assert await exactly(received[0], len(WORDS)) == WORDS
        else:
            with pytest.raises(EstablishmentError):
                await client
            assert received == []
        client.abort_group()
