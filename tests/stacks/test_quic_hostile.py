"""The stack quic against peers that have lost the connection, and against datagrams made to harm: stateless resets both
ways, garbage before and amid a handshake, and what strangers can have sent to others."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable

import pytest

pytest.importorskip("aioquic")

from quic_wire import (
    ForeignServer,
    answers,
    engine_room,
    foreign,
    foreign_server,
    initial,
    pumped,
    some,
    stranger,
    talk,
    through_a_relay,
)

from api.conftest import complaints
from api.loopback import HOST, port_of, until, until_still
from api.quic_loopback import (
    IDENTITY,
    TIME,
    connected,
    everything_is_given_back,
    exactly,
    going_to,
    listening,
    offering,
    transport_of,
)
from api.relay import Relay, forward
from neatpy import (
    Connection,
    ConnectionState,
    EstablishmentError,
    LocalEndpoint,
    Preconnection,
    Reason,
    SecurityParameters,
    TransportServicesError,
)
from neatpy.stacks._quic import resets
from neatpy.stacks._quic.engine import SMALLEST_DATAGRAM
from neatpy.stacks._quic.paths import OwnPath

__all__ = ["complaints", "everything_is_given_back", "foreign_server"]
pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("everything_is_given_back", "nothing_is_logged"),
]

ELSEWHERE = "127.0.0.2"

SOON = 1.5
"""Seconds in which a reset ends what would take the idle timeout otherwise."""


@pytest.fixture
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterable[None]:
    """Nobody logs that something is wrong with us."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []


def failing(*connections: Connection) -> asyncio.Future[list[TransportServicesError]]:
    """Why these Connections end, which must be soon."""

    def of(connection: Connection) -> asyncio.Future[TransportServicesError]:
        failed: asyncio.Future[TransportServicesError] = asyncio.get_running_loop().create_future()
        connection.on_connection_error = lambda _, error: failed.set_result(error)
        return failed

    both = asyncio.gather(*(of(each) for each in connections))
    return asyncio.ensure_future(asyncio.wait_for(both, SOON))


def unheard(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
    """Nothing comes from the server."""
    return (datagram,) if from_client else ()


# Listeners that have lost a connection


async def test_a_listener_that_has_lost_a_connection_resets_it() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await talk(client, server)
        clone = await client.clone()
        relay.decide = unheard
        server.abort_group()
        await until(lambda: not engine_room(listener)._by_id)
        sent, heard = len(relay.seen[True]), len(relay.seen[False])
        relay.decide = forward
        ends = failing(client, clone)
        client.send(b"Are you there?")
        for error in await ends:
            assert error.reason is Reason.CONNECTION_ABORTED
            assert "stateless reset" in str(error)
        assert client.state is clone.state is ConnectionState.CLOSED
        await until_still(lambda: len(relay.seen[True]))
        asked, answered = relay.seen[True][sent:], relay.seen[False][heard:]
        assert 1 <= len(answered) <= len(asked)
        assert max(map(len, answered)) < min(map(len, asked))


async def test_a_new_listener_resets_the_connections_of_the_one_before_at_its_place() -> None:
    async with listening() as before, Relay.to(port_of(before)) as relay:
        port = port_of(before)
        async with connected(going_to(relay.port), before) as (client, server):
            await talk(client, server)
            relay.decide = unheard
            server.abort_group()
            room = engine_room(before)
            await before.stop()
            await until(lambda: not room._by_id)
            local = LocalEndpoint(port, address=HOST, protocol="quic")
            async with Preconnection(local=local, security=offering()).listen():
                relay.decide = forward
                ends = failing(client)
                client.send(b"Are you there?")
                (error,) = await ends
                assert error.reason is Reason.CONNECTION_ABORTED


async def test_a_listener_that_has_stopped_resets_what_it_has_lost() -> None:
    async with (
        listening() as listener,
        connected(going_to(port_of(listener)), listener) as staying,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await listener.stop()
        lost = transport_of(server)
        relay.decide = unheard
        server.abort_group()
        await until(lambda: lost not in set(engine_room(listener)._by_id.values()))
        relay.decide = forward
        ends = failing(client)
        client.send(b"Are you there?")
        (error,) = await ends
        assert error.reason is Reason.CONNECTION_ABORTED
        await talk(*staying)


async def test_aioquics_client_gets_the_token_that_it_was_told() -> None:
    async with listening() as listener, stranger(listener) as sock:
        listener.on_connection_received = lambda _, server: None
        client = foreign()
        client.connect((HOST, 0), time.monotonic())
        await pumped(client, sock, lambda: client._handshake_confirmed and client._peer_cid_available)
        room = engine_room(listener)
        (transport,) = set(room._by_id.values())
        known = [client._peer_cid, *client._peer_cid_available]
        assert len(known) == 8
        transport.retire()  # lost, without a word
        for each in known:
            sock.send(b"\x55" + each.cid + bytes(40))
            (reset,) = await some(sock)
            assert reset[-16:] == each.stateless_reset_token


async def test_resets_are_smaller_than_what_they_answer_and_look_like_packets() -> None:
    async with listening() as listener, stranger(listener) as sock:
        unknown = bytes(range(8))
        tokens = set()
        for size in (22, 23, 40, 42, 43, 44, 100, 1200, 1472):
            sock.send(b"\x40" + unknown + bytes(size - 9))
            (reset,) = await some(sock)
            assert len(reset) == min(size - 1, 42)
            assert reset[0] & 0xC0 == 0x40
            tokens.add(reset[-16:])
        assert len(tokens) == 1
        sock.send(b"\x40" + bytes(50))
        (reset,) = await some(sock)
        assert reset[-16:] not in tokens, "each id has its own"


async def test_packets_too_small_for_a_smaller_reset_and_long_headers_are_not_reset() -> None:
    async with listening() as listener, stranger(listener) as sock:
        for size in (9, 15, 20, 21):
            sock.send(b"\x40" + bytes(size - 1))
        sock.send(b"\x00" + bytes(50))  # the fixed bit is missing
        for kind in (0xD0, 0xE0, 0xF0):  # 0-RTT, Handshake, Retry
            sock.send(bytes([kind]) + b"\0\0\0\1\x08" + bytes(8) + b"\0" + bytes(50))
        sock.send(b"\x40" + bytes(29))
        (reset,) = await some(sock)
        assert len(reset) == 29


async def test_two_that_reset_each_other_come_to_an_end() -> None:
    async with listening() as one, listening() as other, stranger(one) as left, stranger(other) as right:
        left.send(b"\x40" + bytes(1000))
        sizes: list[int] = []
        while not sizes or sizes[-1] > resets.SMALLEST_RESET:
            for here, there in ((left, right), (right, left)):
                (reset,) = await some(here)
                sizes.append(len(reset))
                there.send(reset)
                if sizes[-1] == resets.SMALLEST_RESET:
                    break
        assert sizes == list(range(42, 20, -1))
        async with connected(going_to(port_of(one)), one) as both:
            await talk(*both)
        assert answers(left) == answers(right) == []


async def test_the_resets_of_a_port_are_bounded_in_number() -> None:
    async with listening() as listener, stranger(listener) as sock:
        began = time.monotonic()
        for index in range(1000):
            sock.send(b"\x40" + index.to_bytes(8, "big") + bytes(40))
            if index % 50 == 0:
                await asyncio.sleep(0)
        async with connected(going_to(port_of(listener)), listener) as both:
            await talk(*both)  # what was sent before has been looked at by now
        seconds = time.monotonic() - began
        assert resets.RESETS <= len(answers(sock)) <= resets.RESETS * (1 + seconds)
        await until(lambda: not engine_room(listener)._by_id)


async def test_nothing_is_reset_where_other_protocols_may_begin_like_quic() -> None:
    opportunistic = SecurityParameters.opportunistic(server_certificate=IDENTITY)
    async with listening(opportunistic, stack=None) as listener, stranger(listener) as sock:
        binding = listener._binding
        assert binding is not None
        assert "sctp" in {place.stack for place in binding.places}
        sock.send(b"\x40" + bytes(60))
        async with connected(going_to(port_of(listener)), listener) as both:
            await talk(*both)  # what was sent before has been looked at by now
        assert answers(sock) == []


# Peers that have lost a connection


async def move(client: Connection, server: Connection) -> None:
    """Have the client go elsewhere, where it is addressed by another of its ids: its first one has no token."""
    here = transport_of(client).path.local_address.ip
    there = ELSEWHERE if here == HOST else HOST
    client.add_local(LocalEndpoint(address=there))
    client.remove_local(LocalEndpoint(address=here))
    await talk(client, server)


async def test_a_client_that_has_lost_its_connection_resets_the_servers_side() -> None:
    async with through_a_relay() as (client, server, relay):
        await talk(client, server)
        await move(client, server)
        ours, theirs = transport_of(client).engine, transport_of(server).engine
        (used,) = [each for each in ours._host_cids if each.cid == theirs._peer_cid.cid]
        assert used.sequence_number
        spare = next(each for each in ours._host_cids if each.sequence_number > used.sequence_number)
        relay.inject(b"\x41" + bytes(30) + spare.stateless_reset_token, True)  # of an id never used
        relay.inject(b"\x41" + bytes(3) + used.stateless_reset_token, True)  # too small
        relay.inject(b"\x41" + bytes(30) + bytes(16), True)
        relay.inject(b"\x41" + bytes(30), True)
        await talk(client, server)
        relay.decide = lambda *_: ()
        ends = failing(server)
        relay.inject(b"\x41" + bytes(30) + used.stateless_reset_token, True)
        (error,) = await ends
        assert error.reason is Reason.CONNECTION_ABORTED
        sent = len(relay.seen[False])
        await until_still(lambda: len(relay.seen[False]))
        assert len(relay.seen[False]) == sent


async def test_nothing_is_left_at_a_listener_of_a_connection_that_was_reset() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await talk(client, server)
        for _ in range(2):
            await move(client, server)
        room = engine_room(listener)
        assert len(room._by_reset) == 1
        ends = failing(server)
        relay.inject(b"\x41" + bytes(30) + next(iter(room._by_reset)), True)
        await ends
        assert not room._by_id
        assert not room._by_reset


async def test_a_client_is_reset_by_aioquics_server(foreign_server: ForeignServer) -> None:
    connection = going_to(foreign_server.port).initiate(timeout=TIME)
    await connection
    connection.send(b"a question")
    assert await exactly(connection, 10) == b"a question"
    ends = failing(connection)
    foreign_server.reset()
    (error,) = await ends
    assert error.reason is Reason.CONNECTION_ABORTED
    heard = foreign_server.heard
    await until_still(lambda: foreign_server.heard)
    assert foreign_server.heard == heard


async def test_what_only_resembles_a_reset_does_not_end_a_client() -> None:
    async with through_a_relay() as (client, server, relay):
        await talk(client, server)
        engine = transport_of(client).engine
        used, spare = engine._peer_cid, engine._peer_cid_available[0]
        token = used.stateless_reset_token
        for last in (
            spare.stateless_reset_token,  # of an id that was never used
            token[:-1] + bytes([token[-1] ^ 1]),
            token + b"\0",
            bytes(16),
        ):
            relay.inject(b"\x41" + bytes(30) + last, False)
        relay.inject(b"\x41" + bytes(3) + token, False)  # too small
        await talk(client, server)
        assert client.state is ConnectionState.ESTABLISHED
        await move(client, server)
        relay.inject(b"\x41" + bytes(30) + token, False)  # of an id that is retired
        await talk(client, server)


async def test_a_reset_while_the_peer_is_judged_refuses_it(foreign_server: ForeignServer) -> None:
    async def judge(_: object) -> bool:
        foreign_server.reset()
        await asyncio.Event().wait()
        return True

    security = SecurityParameters(trust_verification_callback=judge)
    began = time.monotonic()
    with pytest.raises(EstablishmentError, match="stateless reset"):
        await going_to(foreign_server.port, security).initiate(timeout=TIME)
    assert time.monotonic() - began < SOON


async def test_who_has_closed_says_no_more_when_the_peer_has_lost_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neatpy.stacks._quic.connection.ANSWERING", 60.0)
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await talk(client, server)
        token = transport_of(client).engine._peer_cid.stateless_reset_token
        ours, theirs = transport_of(client), transport_of(server)
        path = ours.path
        assert isinstance(path, OwnPath)
        client.abort_group()
        await until(lambda: ours.over and theirs.over)
        assert not path._closed
        relay.inject(b"\x41" + bytes(30) + token, False)
        await until(lambda: path._closed)


async def test_what_comes_late_after_a_peers_goodbye_is_not_answered() -> None:
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await talk(client, server)
        theirs = transport_of(server)
        ids, resets = set(theirs.engine.ids), engine_room(listener)._resets
        client.abort_group()
        await until(lambda: theirs.over)
        assert ids
        now = time.monotonic()
        assert all(resets.answer(bytes(100), one, now) is None for one in ids)
        assert resets.answer(bytes(100), b"stranger", now) is not None


# Garbage


def mangled(genuine: bytes, chance: random.Random) -> list[bytes]:
    """Copies of a datagram that something has happened to."""
    flipped = []
    for count in (1, 1, 3):
        copy = bytearray(genuine)
        for _ in range(count):
            copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
        flipped.append(bytes(copy))
    return [
        *flipped,
        genuine[: chance.randrange(len(genuine))],
        genuine[: chance.randrange(1, 40)],
        genuine[: len(genuine) // 2] + chance.randbytes(len(genuine) // 2),
        genuine[:9] + chance.randbytes(chance.randrange(100)),
        genuine + chance.randbytes(40),
        chance.randbytes(chance.randrange(1472)),
    ]


@pytest.mark.parametrize("seed", range(6))
async def test_mangled_copies_before_each_datagram_stop_no_handshake_and_no_transfer(seed: int) -> None:
    chance = random.Random(seed)

    def decide(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        return (*mangled(datagram, chance), datagram) if index < 40 else (datagram,)

    async with (
        listening() as listener,
        Relay.to(port_of(listener), decide) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await talk(client, server, 50_000)
        await talk(client, server, 50_000)
        assert client.state is server.state is ConnectionState.ESTABLISHED


# What strangers can have sent to others


async def test_whatever_a_stranger_sends_no_more_than_three_times_as_much_is_answered() -> None:
    chance = random.Random(9003)
    first = initial()
    sent = [first, *mangled(first, chance), *mangled(first, chance), b"\x40" + bytes(30)]
    async with listening() as listener, stranger(listener) as sock:
        for datagram in sent:
            sock.send(datagram)
        got = 0

        def more() -> int:
            nonlocal got
            got += sum(map(len, answers(sock)))
            return got

        await until_still(more, 0.6)  # retransmissions count too
        assert SMALLEST_DATAGRAM < got <= 3 * sum(map(len, sent))
