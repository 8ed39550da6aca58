"""The stack quic on real sockets: networks that lose, double, reorder, go dark and rebind, and hostile clients."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable

import pytest

pytest.importorskip("aioquic")

from aioquic.quic import events
from aioquic.quic.packet import QuicProtocolVersion
from quic_wire import (
    answers,
    engine_room,
    foreign,
    initial,
    payload,
    some,
    stranger,
    strangers,
    talk,
    through_a_relay,
)

from api.conftest import complaints
from api.loopback import HOST, MIB, port_of, turns, until
from api.quic_loopback import (
    TIME,
    connected,
    everything_is_given_back,
    exactly,
    going_to,
    listening,
    to_the_end,
    told,
    transport_of,
)
from api.relay import Relay, forward
from neatpy import Connection, ConnectionState, MessageContext, Reason, ReceiveError
from neatpy.stacks._quic import port as quic_port
from neatpy.stacks._quic.engine import SMALLEST_DATAGRAM

__all__ = ["complaints", "everything_is_given_back", "told"]
pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("everything_is_given_back"),
]


# Bad networks


def by_chance(seed: int, *, lost: float = 0.0, doubled: float = 0.0) -> Callable[..., Iterable[bytes]]:
    chance = random.Random(seed).random

    def decide(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        if chance() < lost:
            return ()
        return (datagram, datagram) if chance() < doubled else (datagram,)

    return decide


@pytest.mark.parametrize("lost", [0.01, 0.05])
async def test_everything_arrives_though_datagrams_get_lost(lost: float) -> None:
    async with through_a_relay() as (client, server, relay):
        relay.decide = by_chance(1, lost=lost)
        await talk(client, server, MIB)


async def test_a_handshake_and_a_close_survive_loss() -> None:
    async with listening() as listener, Relay.to(port_of(listener), by_chance(3, lost=0.1)) as relay:
        client = await going_to(relay.port).initiate(timeout=TIME)
        client.send(payload(20_000))
        server = await asyncio.wait_for(listener.accept(), TIME)
        closing = client.close()
        assert await to_the_end(server) == payload(20_000)
        await asyncio.wait_for(closing, TIME)
        relay.decide = forward
        await asyncio.wait_for(server.close(), TIME)
        await until(lambda: not engine_room(listener)._by_id)


async def test_doubled_datagrams_are_received_once() -> None:
    async with through_a_relay() as (client, server, relay):
        relay.decide = by_chance(1, doubled=1.0)
        await talk(client, server, MIB)


async def test_datagrams_that_overtake_one_another_are_put_in_order() -> None:
    held: list[bytes] = []

    def swap(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        if not from_client:
            return (datagram,)
        if not held:
            held.append(datagram)
            return ()
        return (datagram, held.pop())

    async with through_a_relay() as (client, server, relay):
        relay.decide = swap
        await talk(client, server, MIB)


async def test_a_second_of_darkness_is_survived() -> None:
    async with through_a_relay() as (client, server, relay):
        client.send(payload(2 * MIB))
        assert await exactly(server, 100_000) == payload(2 * MIB)[:100_000]
        light = time.monotonic() + 1.0
        relay.decide = lambda datagram, *_: (datagram,) if time.monotonic() > light else ()
        assert await exactly(server, 2 * MIB - 100_000) == payload(2 * MIB)[100_000:]
        await talk(client, server)


async def test_a_nat_that_forgets_its_binding_is_survived() -> None:
    async with through_a_relay() as (client, server, relay):
        await talk(client, server)
        before = server.remote_endpoint
        changed: list[Connection] = []
        server.on_path_change = changed.append
        for _ in range(3):
            await relay.rebind()
            await talk(client, server, 100_000)
        assert server.remote_endpoint != before
        await until(lambda: changed)


async def test_a_nat_that_forgets_its_binding_amid_a_transfer_is_survived() -> None:
    async with through_a_relay() as (client, server, relay):
        for connection in (client, server):
            connection.send(payload(2 * MIB))
        both = asyncio.gather(exactly(server, 2 * MIB), exactly(client, 2 * MIB))
        for _ in range(3):
            seen = len(relay.seen[True])
            await until(lambda: len(relay.seen[True]) > seen + 20)  # noqa: B023 - it is called at once
            await relay.rebind()
        there, back = await both
        assert there == back == payload(2 * MIB)


# Large packets


async def test_datagrams_become_as_large_as_loopback_takes_them() -> None:
    async with through_a_relay() as (client, server, relay):
        await talk(client, server, MIB)
        for connection in (client, server):
            assert connection.statistics["path_mtu"] == 8952
        assert max(map(len, relay.seen[True])) == 8952


async def test_datagrams_stay_small_where_larger_ones_are_dropped() -> None:
    def decide(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        return (datagram,) if len(datagram) <= SMALLEST_DATAGRAM else ()

    async with (
        listening() as listener,
        Relay.to(port_of(listener), decide) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        await talk(client, server, MIB)
        for connection in (client, server):
            assert connection.statistics["path_mtu"] == SMALLEST_DATAGRAM


async def test_a_path_that_begins_to_drop_larger_datagrams_is_survived() -> None:
    async with through_a_relay() as (client, server, relay):
        await talk(client, server, MIB)
        relay.decide = lambda datagram, *_: (datagram,) if len(datagram) <= 1300 else ()
        await talk(client, server, MIB)
        assert client.statistics["path_mtu"] == SMALLEST_DATAGRAM


# Replays and garbage


async def test_replayed_and_garbled_datagrams_change_nothing() -> None:
    chance = random.Random(9001)
    async with through_a_relay() as (client, server, relay):
        await talk(client, server, 20_000)
        recorded = {from_client: list(seen) for from_client, seen in relay.seen.items()}
        for from_client in (True, False):
            for genuine in recorded[from_client]:
                for _ in range(5):
                    garbled = bytearray(genuine)
                    garbled[chance.randrange(len(garbled))] ^= 1 << chance.randrange(8)
                    relay.inject(bytes(garbled), from_client)
                relay.inject(genuine, from_client)
                relay.inject(genuine[: chance.randrange(len(genuine))], from_client)
                relay.inject(genuine + chance.randbytes(30), from_client)
                relay.inject(genuine[:9] + chance.randbytes(64), from_client)
            await talk(client, server)
        for size in (0, 1, 8, 9, 20, 500, 1200):
            relay.inject(chance.randbytes(size), True)
            relay.inject(chance.randbytes(size), False)
        await talk(client, server, 20_000)
        assert client.state is server.state is ConnectionState.ESTABLISHED


async def test_garbage_leaves_no_state_at_a_listener_and_gets_no_answer() -> None:
    chance = random.Random(9002)
    first = initial()
    async with listening() as listener, stranger(listener) as sock:
        for size in (0, 1, 8, 9, 20, 500, 1199, 1200, 1472):
            for _ in range(20):
                sock.send(bytes([chance.randrange(64)]) + chance.randbytes(size))
        sock.send(first[:1199])  # too small to begin anything
        sock.send(b"\xc0\0\0\0\0" + first[5:])  # a version negotiation, which only clients take
        async with connected(going_to(port_of(listener)), listener) as both:
            await talk(*both)  # what was sent before has been looked at by now
            assert answers(sock) == []
            room = engine_room(listener)
            assert len(room._handshakes) == 0
            assert set(room._by_id.values()) == {transport_of(both[1])}


async def test_what_a_stranger_sends_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[logging.LogRecord] = []
    last_resort = logging.Handler(logging.WARNING)
    monkeypatch.setattr(last_resort, "handle", printed.append)
    monkeypatch.setattr(logging, "lastResort", last_resort)
    monkeypatch.setattr(logging.root, "handlers", [])
    client = foreign()
    client.connect((HOST, 0), time.monotonic())
    client.datagrams_to_send(time.monotonic())
    client.close()
    ((goodbye, _),) = client.datagrams_to_send(time.monotonic())
    async with listening() as listener, stranger(listener) as sock:
        sock.send(goodbye.ljust(SMALLEST_DATAGRAM, b"\0"))
        async with connected(going_to(port_of(listener)), listener):
            pass  # what was sent before has been looked at by now
    assert printed == []


async def test_a_version_that_we_do_not_speak_is_answered_with_those_that_we_do() -> None:
    async with listening() as listener, stranger(listener) as sock:
        unknown = bytearray(initial())
        unknown[1:5] = b"\x1a\x2a\x3a\x4a"
        sock.send(unknown[:1199])  # a small one is not answered: it could be meant to make much of little
        sock.send(unknown)
        (answer,) = await some(sock)
        assert answer[0] & 0x80
        assert answer[1:5] == bytes(4)
        offered = {answer[at : at + 4] for at in range(len(answer) - 8, len(answer), 4)}
        assert offered == {
            version.to_bytes(4, "big")
            for version in (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2)
        }
        assert len(engine_room(listener)._by_id) == 0


# Clients that prove nothing


async def test_no_more_than_three_times_what_came_goes_to_an_address_that_is_not_proven() -> None:
    async with listening() as listener, stranger(listener) as sock:
        datagram = initial()
        sock.send(datagram)
        got = await some(sock)
        began = time.monotonic()
        while time.monotonic() - began < 1.5:  # retransmissions count too
            await asyncio.sleep(0.05)
            got += answers(sock)
        assert 0 < sum(map(len, got)) <= 3 * len(datagram)


async def test_a_flood_of_clients_that_prove_nothing_takes_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quic_port, "UNPROVEN", 8)
    datagrams = [initial() for _ in range(60)]
    async with listening() as listener:
        room = engine_room(listener)
        with strangers(listener, 12) as them:
            for index, datagram in enumerate(datagrams):
                them[index % 12].send(datagram)
                if index % 10 == 9:
                    await turns(20)
            await until(lambda: len(room._handshakes) == 8)
            retries = 0
            got: list[bytes] = []

            def every_other_one_was_told() -> bool:
                nonlocal retries
                for sock in them:
                    got.extend(answers(sock))
                retries = sum(datagram[0] & 0xB0 == 0xB0 for datagram in got)
                return retries == 60 - 8

            await until(every_other_one_was_told)
            assert len(set(room._by_id.values())) == 8
            # Who answers to the Retry gets in, flood or not.
            async with connected(going_to(port_of(listener)), listener) as both:
                await talk(*both)
                assert len(room._handshakes) == 8
        await listener.stop()
        await until(lambda: not room._by_id)


async def test_handshakes_that_go_nowhere_are_given_up_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_port, "HANDSHAKES", 5)
    async with listening() as listener, stranger(listener) as sock:
        for _ in range(20):
            sock.send(initial())
        room = engine_room(listener)
        await until(lambda: len(room._handshakes) == 5)
        async with connected(going_to(port_of(listener)), listener) as both:
            await talk(*both)


async def test_handshakes_that_go_nowhere_are_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, told: list[BaseException]
) -> None:
    monkeypatch.setattr(quic_port, "HANDSHAKE_TIME", 0.1)
    async with listening() as listener, stranger(listener) as sock:
        sock.send(initial())
        room = engine_room(listener)
        await until(lambda: len(room._handshakes) == 1)
        await until(lambda: len(room._handshakes) == 0 and not room._by_id)
        (error,) = told
        assert "more than 0.1 s" in str(error)


async def test_a_client_that_sends_early_and_vanishes_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, told: list[BaseException]
) -> None:
    async with listening() as listener, Relay.to(port_of(listener)) as relay:
        preconnection = going_to(relay.port)
        async with connected(preconnection, listener) as both:
            await talk(*both)  # by the end of which the session has come
        monkeypatch.setattr(quic_port, "HANDSHAKE_TIME", 0.2)
        relay.decide = lambda datagram, from_client, index: (datagram,) if from_client else ()
        client = preconnection.initiate_with_send(b"early", MessageContext(safely_replayable=True))
        server = await asyncio.wait_for(listener.accept(), TIME)
        client.abort()
        relay.decide = lambda *_: ()
        message = await asyncio.wait_for(server.receive(min_incomplete_length=5), TIME)
        assert message.context.early_data
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(server.receive(), TIME)
        assert caught.value.reason is Reason.TIMEOUT
        assert told == [], "it was not refused: it was accepted"
        await until(lambda: not engine_room(listener)._by_id)


async def test_a_client_that_was_accepted_early_outlives_the_listener() -> None:
    async with listening() as listener, Relay.to(port_of(listener)) as relay:
        preconnection = going_to(relay.port)
        async with connected(preconnection, listener) as both:
            await talk(*both)
        relay.decide = lambda datagram, from_client, index: (datagram,) if from_client else ()
        client = preconnection.initiate_with_send(b"early", MessageContext(safely_replayable=True))
        server = await asyncio.wait_for(listener.accept(), TIME)
        await listener.stop()
        relay.decide = forward
        await asyncio.wait_for(client.send(b"late"), TIME)
        assert await exactly(server, 9) == b"earlylate"
        await talk(client, server)
        client.abort()
        server.abort()


async def test_a_client_is_led_through_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_port, "UNPROVEN", 0)
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port), listener) as both,
    ):
        assert relay.seen[False][0][0] & 0xB0 == 0xB0
        await talk(*both, 100_000)


async def test_a_token_of_a_retry_is_of_no_use_from_another_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_port, "UNPROVEN", 0)
    async with listening() as listener, stranger(listener) as other:
        with_token: list[bytes] = []

        def hold(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
            if from_client and index:
                with_token.append(datagram)
                return ()
            return (datagram,)

        async with Relay.to(port_of(listener), hold) as relay:
            client = going_to(relay.port).initiate(timeout=TIME)
            await until(lambda: with_token)
            other.send(with_token[0])
            (answer,) = await some(other)
            assert answer[0] & 0xB0 == 0xB0, "it is asked to prove itself once more"
            assert not engine_room(listener)._by_id
            client.abort()


# Several connections of one client socket


async def test_connections_of_one_client_socket_are_told_apart_by_their_ids() -> None:
    async with listening() as listener, stranger(listener) as sock:
        listener.on_connection_received = lambda _, server: asyncio.ensure_future(_echo(server))
        clients = [foreign() for _ in range(5)]
        heard: dict[int, bytes] = {}
        for index, client in enumerate(clients):
            client.connect((HOST, 0), time.monotonic())
            client.send_stream_data(0, b"I am number %d" % index, end_stream=True)

        def pump() -> bool:
            now = time.monotonic()
            for datagram in answers(sock):
                for client in clients:
                    ids = [known.cid for known in client._host_cids]
                    if any(datagram[1:9] == each or datagram[6:14] == each for each in ids):
                        client.receive_datagram(datagram, (HOST, 0), now)
            for index, client in enumerate(clients):
                due = client.get_timer()
                if due is not None and due <= now:
                    client.handle_timer(now)
                while (event := client.next_event()) is not None:
                    if isinstance(event, events.StreamDataReceived):
                        heard[index] = heard.get(index, b"") + event.data
                for datagram, _ in client.datagrams_to_send(now):
                    sock.send(datagram)
            return sum(map(len, heard.values())) == 13 * 5

        await until(pump, TIME)
        assert heard == {index: b"I am number %d" % index for index in range(5)}
        for client in clients:
            client.close()
        await until(lambda: pump() or True)
        await until(lambda: not engine_room(listener)._by_id)


async def _echo(server: Connection) -> None:
    server.send(await to_the_end(server), final=True)
    await server.close()
