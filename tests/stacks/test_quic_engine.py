"""The adapter to QUIC's engine, without sockets or a real clock: bad networks, hostile peers, credit, many streams."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

pytest.importorskip("aioquic")

from aioquic import tls
from aioquic.quic.connection import QuicReceiveContext
from quic_tools import AUTHORITY, CLIENT, DELAY, End, Lossy, Network, arrives, payload, transfer

from neatpy.enumerations import Scheduler
from neatpy.properties import TransportProperties
from neatpy.security import SecurityParameters
from neatpy.stacks._quic import packets
from neatpy.stacks._quic.engine import (
    CONNECTION_WINDOW,
    LARGEST_STREAM_WINDOW,
    STREAM_WINDOW,
    Engine,
    EngineObserver,
)
from neatpy.stacks._quic.order import Order
from neatpy.stacks._quic.resets import RESETS, Resets

KIB, MIB = 1024, 1024 * 1024


# Bad networks


@pytest.mark.parametrize("lost", [0.01, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_everything_arrives_though_datagrams_get_lost(lost: float, seed: int) -> None:
    network = Network(Lossy(seed, lost=lost)).shake()
    transfer(network, 300 * KIB)
    assert network.client.engine.statistics()["retransmissions"] > 0


@pytest.mark.parametrize("seed", range(20))
def test_a_handshake_survives_the_loss_of_every_fifth_datagram(seed: int) -> None:
    Network(Lossy(seed, lost=0.2)).shake()


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("from_client", [True, False], ids=["client", "server"])
def test_a_handshake_survives_the_loss_of_any_one_datagram(index: int, from_client: bool) -> None:
    def fate(datagram: bytes, came_from_client: bool, number: int) -> Iterable[float]:
        return () if (came_from_client, number) == (from_client, index) else (DELAY,)

    network = Network(fate).shake()
    transfer(network, 1000)


def test_datagrams_that_come_twice_are_received_once() -> None:
    network = Network(Lossy(1, doubled=1.0)).shake()
    transfer(network, 200 * KIB)


def test_datagrams_that_overtake_one_another_are_put_in_order() -> None:
    network = Network(Lossy(1, late=0.2)).shake()
    transfer(network, 200 * KIB)


def test_everything_at_once_is_survived() -> None:
    network = Network(Lossy(5, lost=0.03, doubled=0.05, late=0.1)).shake()
    transfer(network, 200 * KIB)


def test_a_second_of_darkness_is_survived() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    stream = client.open()
    client.engine.write(stream, payload(MIB), True)
    network.flush()
    network.run(lambda: len(server.data[stream]) > 100 * KIB)
    network.fate = lambda *_: ()
    network.pass_time(1.0)
    network.fate = arrives
    began = network.now
    network.run(lambda: stream in server.ended)
    assert bytes(server.data[stream]) == payload(MIB)
    assert network.now - began < 5


def test_silence_ends_the_connection_after_the_idle_timeout() -> None:
    network = Network(properties=TransportProperties(conn_timeout=2.0)).shake()
    network.fate = lambda *_: ()
    network.client.engine.ping()
    network.flush()
    began = network.now
    network.run(lambda: network.client.engine.closing)
    closing = network.client.engine.closing
    assert closing is not None
    assert closing.idle
    assert 1.5 < network.now - began < 4


# Hostile datagrams


def test_garbled_replayed_and_truncated_datagrams_change_nothing() -> None:
    chance = random.Random(9000)
    network = Network().shake()
    transfer(network, 20 * KIB)
    recorded = {side: list(datagrams) for side, datagrams in network.datagrams.items()}
    for from_client in (True, False):
        for genuine in recorded[from_client]:
            for _ in range(5):
                garbled = bytearray(genuine)
                garbled[chance.randrange(len(garbled))] ^= 1 << chance.randrange(8)
                network.inject(bytes(garbled), from_client)
            network.inject(genuine, from_client)
            network.inject(genuine[: chance.randrange(len(genuine))], from_client)
            network.inject(genuine + chance.randbytes(30), from_client)
            network.inject(genuine[:9] + chance.randbytes(64), from_client)
        for size in (0, 1, 8, 9, 20, 21, 500, 1200):
            network.inject(chance.randbytes(size), from_client)
    network.flush()
    transfer(network, 20 * KIB)
    for end in (network.client, network.server):
        assert end.engine.closing is None


def test_strangers_datagrams_do_not_take_a_client_elsewhere() -> None:
    network = Network().shake()
    elsewhere = ("203.0.113.9", 9)
    for datagram in list(network.datagrams[False])[-5:]:
        network.inject(datagram, False, elsewhere)
    network.flush()
    transfer(network, 10 * KIB)
    assert network.server.engine.peer_address == CLIENT


def test_garbage_is_no_header_or_one_that_begins_nothing() -> None:
    chance = random.Random(8999)
    for size in (0, 1, 7, 8, 9, 21, 100, 1200):
        for _ in range(200):
            datagram = chance.randbytes(size)
            header = packets.read_header(datagram)
            if header is not None and header.is_long and header.is_known_version:
                assert not packets.is_initial(header, datagram[:1199])


def test_small_initials_begin_nothing() -> None:
    first = Network().datagrams[True][0]
    header = packets.read_header(first)
    assert header is not None
    assert packets.is_initial(header, first)
    assert not packets.is_initial(header, first[:1199])


def test_a_retry_token_is_good_for_its_own_address_only() -> None:
    tokens = packets.RetryTokens()
    first = Network().datagrams[True][0]
    header = packets.read_header(first)
    assert header is not None
    new_id = b"\1" * 8
    token = tokens.make(header, CLIENT, new_id, 1000.0)
    again = packets.read_header(first)
    assert again is not None
    again.token, again.destination_id = token, new_id
    assert tokens.original_id(again, CLIENT, 1001.0) == header.destination_id
    assert tokens.original_id(again, ("192.0.2.77", 1000), 1001.0) is None
    assert tokens.original_id(again, CLIENT, 5000.0) is None
    again.token = token[:-1] + bytes([token[-1] ^ 1])
    assert tokens.original_id(again, CLIENT, 1001.0) is None
    assert packets.RetryTokens().original_id(again, CLIENT, 1001.0) is None


# Stateless resets


def test_two_ports_do_not_tell_each_others_tokens() -> None:
    one, same, other = (Resets(place) for place in ("one", "one", "other"))
    assert one.token(b"id") == same.token(b"id") != other.token(b"id")


def test_resets_are_allowed_again_as_time_passes() -> None:
    port = Resets("a port")

    def answered(count: int, now: float) -> int:
        return sum(port.answer(bytes(50), b"id", now) is not None for _ in range(count))

    assert answered(1000, 10.0) == RESETS
    assert answered(1000, 10.5) == RESETS // 2
    assert answered(1000, 1000.0) == RESETS


# Amplification


def test_a_server_sends_three_times_what_it_got_before_the_client_is_proven() -> None:
    network = Network(lambda datagram, from_client, index: (DELAY,) if from_client and not index else ())
    network.run(lambda: network.server.sent)
    network.pass_time(10.0)
    received = sum(map(len, network.datagrams[True][:1]))
    sent = sum(map(len, network.datagrams[False]))
    assert 0 < sent <= 3 * received


def test_a_refusal_too_is_no_more_than_three_times_what_came() -> None:
    network = Network(
        lambda datagram, from_client, index: (DELAY,) if from_client and not index else (),
        client=SecurityParameters(trusted_certificates=AUTHORITY.root, alpn="something else"),
    )
    network.run(lambda: network.server.sent)
    network.pass_time(10.0)
    assert sum(map(len, network.datagrams[False])) <= 3 * len(network.datagrams[True][0])


# When packets leave


def test_small_packets_are_paced_by_their_size() -> None:
    network = Network().shake()
    client = network.client
    stream = client.open()
    network.pass_time(0.1)
    left = []
    for _ in range(40):
        client.engine.write(stream, b"small", False)
        left += client.engine.datagrams(network.now)
    assert len(left) == 40


def test_large_packets_do_not_leave_in_one_burst() -> None:
    network = Network().shake()
    transfer(network, MIB)  # so that the window is large
    client = network.client
    stream = client.open()
    client.engine.write(stream, bytes(MIB), False)
    burst = sum(len(datagram) for datagram, _ in client.engine.datagrams(network.now))
    assert burst <= 17 * client.engine.statistics()["path_mtu"]
    wake_at = client.engine.wake_at()
    assert wake_at is not None
    assert wake_at - network.now < DELAY
    assert client.engine.datagrams(wake_at)


def test_what_came_is_acknowledged_along_with_data_and_else_a_moment_later() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    stream = client.open()
    client.engine.write(stream, b"question", False)
    network.flush()
    network.run(lambda: server.data[stream])
    assert not server.engine.datagrams(network.now)  # an answer may come
    server.engine.write(stream, b"answer", False)
    network.flush()
    network.run(lambda: client.data[stream])
    assert client.engine.undelivered(stream) == 0
    assert not client.engine.datagrams(network.now)
    network.run(lambda: server.engine.undelivered(stream) == 0, seconds=0.1)


# Credit


def test_a_peer_sends_no_more_than_the_window_of_a_stream_that_nobody_takes() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    stalled, other = client.open(), client.open()
    server.takes = lambda stream: stream != stalled
    client.engine.write(stalled, bytes(4 * MIB), False)
    network.flush()
    network.pass_time(5.0)
    assert len(server.data[stalled]) == STREAM_WINDOW
    client.engine.write(other, payload(3 * MIB), True)
    network.flush()
    network.run(lambda: other in server.ended)
    assert bytes(server.data[other]) == payload(3 * MIB)
    assert len(server.data[stalled]) == STREAM_WINDOW
    server.takes = lambda stream: True
    server.engine.taken(stalled, STREAM_WINDOW)
    network.flush()
    network.run(lambda: len(server.data[stalled]) == 4 * MIB)


@pytest.mark.parametrize(("taken", "held"), [(3 * MIB, STREAM_WINDOW), (32 * MIB, LARGEST_STREAM_WINDOW)])
def test_the_window_of_a_stream_grows_where_the_application_has_kept_up_for_long(
    taken: int, held: int
) -> None:
    network = Network().shake()
    client, server = network.client, network.server
    stream = client.open()
    client.engine.write(stream, bytes(taken), False)
    network.flush()
    network.run(lambda: len(server.data[stream]) == taken)
    server.takes = lambda stream: False
    client.engine.write(stream, bytes(2 * LARGEST_STREAM_WINDOW), False)
    network.flush()
    network.pass_time(5.0)
    assert 0.75 * held <= len(server.data[stream]) - taken <= held


def test_a_window_does_not_grow_where_the_path_is_not_held_up_by_it() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    stream = client.open()
    for _ in range(150):  # 128 KiB in each round trip: the sender is what is slow
        client.engine.write(stream, bytes(128 * KIB), False)
        network.flush()
        network.pass_time(2 * DELAY)
    server.takes = lambda stream: False
    taken = len(server.data[stream])
    client.engine.write(stream, bytes(2 * LARGEST_STREAM_WINDOW), False)
    network.flush()
    network.pass_time(5.0)
    assert len(server.data[stream]) - taken <= 2 * STREAM_WINDOW


def test_a_peer_sends_no_more_than_the_window_of_the_connection() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    server.takes = lambda stream: False
    streams = [client.open() for _ in range(2 * CONNECTION_WINDOW // STREAM_WINDOW)]
    for stream in streams:
        client.engine.write(stream, bytes(2 * MIB), False)
    network.flush()
    network.pass_time(5.0)
    assert sum(map(len, server.data.values())) == CONNECTION_WINDOW


def test_what_was_lost_of_credit_is_told_again() -> None:
    network = Network(Lossy(3, lost=0.3)).shake()
    client, server = network.client, network.server
    stream = client.open()
    client.engine.write(stream, bytes(3 * MIB), True)
    network.flush()

    def only_data(datagram: bytes, from_client: bool, index: int) -> Iterable[float]:
        return (DELAY,) if from_client or index % 3 else ()

    network.fate = only_data
    network.run(lambda: stream in server.ended)


def test_credit_of_streams_that_were_reset_comes_back() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    server.takes = lambda stream: stream >= 80
    for _ in range(20):
        stream = client.open()
        client.engine.write(stream, bytes(MIB // 2), False)
        network.flush()
        network.run(lambda: len(server.data[stream]) == MIB // 2)  # noqa: B023 - it is called at once
        client.engine.reset(stream, 1)
        server.engine.reset(stream, 1)
        network.flush()
        network.run(lambda: not server.engine.knows(stream))  # noqa: B023
    last = client.open()
    client.engine.write(last, payload(5 * MIB), True)
    network.flush()
    network.run(lambda: last in server.ended)


# Streams


def test_an_announced_stream_is_seen_before_its_first_byte() -> None:
    network = Network().shake()
    stream = network.client.open()
    network.client.engine.announce(stream)
    network.flush()
    network.run(lambda: ("opened", stream) in network.server.events)
    network.server.engine.write(stream, b"you first", False)
    network.flush()
    network.run(lambda: network.client.data[stream] == b"you first")


def test_an_announcement_that_gets_lost_is_made_again() -> None:
    network = Network().shake()
    stream = network.client.open()
    network.fate = lambda *_: ()
    network.client.engine.announce(stream)
    network.flush()
    network.fate = arrives
    network.run(lambda: ("opened", stream) in network.server.events)


def test_a_reset_and_a_stop_are_told_with_their_codes() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    stream = client.open()
    client.engine.write(stream, b"x", False)
    network.flush()
    network.run(lambda: server.data[stream])
    client.engine.reset(stream, 7)
    client.engine.stop(stream, 9)
    network.flush()
    network.run(
        lambda: (
            ("reset", stream, 7) in server.events
            and ("stop", stream, 9) in server.events
            and not client.engine.knows(stream)
            and not server.engine.knows(stream)
        )
    )


def test_streams_beyond_the_peers_limit_wait_for_room() -> None:
    network = Network(properties=TransportProperties(group_conn_limit=2)).shake()
    client, server = network.client, network.server
    streams = [client.open() for _ in range(10)]
    assert not client.engine.may_open(False)
    for stream in streams:
        client.engine.write(stream, b"x", True)
    network.flush()
    network.pass_time(1.0)
    assert server.ended == set(streams[:3])  # two beside the first
    for stream in streams:
        network.run(lambda: stream in server.ended)  # noqa: B023
        server.engine.write(stream, b"y", True)
        network.flush()
    network.run(lambda: client.ended == set(streams))
    network.run(lambda: client.engine.may_open(False))


def test_the_walk_over_streams_stays_short_however_many_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = _looks_for_one_request(monkeypatch, idle=0), _looks_for_one_request(monkeypatch, idle=1000)
    assert looks[1] == looks[0]


def _looks_for_one_request(monkeypatch: pytest.MonkeyPatch, idle: int) -> int:
    """How many times sending looks at a stream, for one request and its answer beside so many idle streams."""
    network = Network().shake()
    client, server = network.client, network.server
    streams = [client.open() for _ in range(idle)]
    for stream in streams:
        client.engine.write(stream, b"x", False)
    network.flush()
    network.run(lambda: len(server.data) == idle)
    network.pass_time(1.0)
    counted = 0
    genuine = Engine._write_application

    def counting(engine: Engine, *arguments: Any) -> None:
        nonlocal counted
        counted += len(engine._table.active) + len(engine._table.values())
        genuine(engine, *arguments)

    monkeypatch.setattr(Engine, "_write_application", counting)
    stream = client.open()
    client.engine.write(stream, b"question", False)
    network.flush()
    network.run(lambda: server.data[stream] == b"question")
    server.engine.write(stream, b"answer", False)
    network.flush()
    network.run(lambda: client.data[stream] == b"answer")
    monkeypatch.undo()
    return counted


def test_each_of_many_streams_is_asked_for_its_bytes_about_once_however_many_packets_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network().shake()
    streams = [network.client.open() for _ in range(1000)]
    asked = 0
    genuine = Engine._write_stream_frame

    def counting(engine: Engine, *arguments: Any, **more: Any) -> Any:
        nonlocal asked
        asked += engine is network.client.engine
        return genuine(engine, *arguments, **more)

    monkeypatch.setattr(Engine, "_write_stream_frame", counting)
    for stream in streams:
        network.client.engine.write(stream, bytes(64), False)
    network.flush()
    network.run(lambda: len(network.server.data) == len(streams))
    assert all(network.server.data[stream] == bytes(64) for stream in streams)
    assert asked < 2 * len(streams)


def test_the_order_of_service_is_asked_before_each_packet() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    first, urgent = client.open(), client.open()
    client.engine.order = lambda stream, sent: -stream
    client.engine.write(first, bytes(200 * KIB), True)
    client.engine.write(urgent, bytes(200 * KIB), True)
    network.flush()
    network.run(lambda: urgent in server.ended)
    assert len(server.data[first]) < 40 * KIB
    network.run(lambda: first in server.ended)


@pytest.mark.parametrize(
    ("scheduler", "priorities", "least", "most"),
    [
        (Scheduler.WEIGHTED_FAIR_QUEUEING, (1, 3), 0.45, 0.55),
        (Scheduler.WEIGHTED_FAIR_QUEUEING, (0, 9), 0.05, 0.15),
        (Scheduler.FAIR_CAPACITY, (1, 3), 0.95, 1.0),
        (Scheduler.ROUND_ROBIN, (1, 3), 0.95, 1.0),
        (Scheduler.PRIORITY, (1, 3), 0.0, 0.01),
        (Scheduler.FIRST_COME_FIRST_SERVED, (3, 1), 0.0, 0.01),
    ],
)
def test_streams_have_the_shares_that_the_scheduler_gives_them(
    scheduler: Scheduler, priorities: tuple[float, float], least: float, most: float
) -> None:
    network = Network().shake()
    client, server = network.client, network.server
    order = Order(scheduler)
    streams = [client.open() for _ in priorities]
    for stream, priority in zip(streams, priorities, strict=True):
        order.prioritise(stream, priority)
        order.begins(stream, 0, {})
    client.engine.order = order.key if order.matters else None
    for stream in streams:
        client.engine.write(stream, bytes(400 * KIB), True)
    network.flush()
    network.run(lambda: streams[0] in server.ended)
    # The engine hands over whole datagrams, several at a time.
    assert least * 400 * KIB - 16 * KIB <= len(server.data[streams[1]]) <= most * 400 * KIB + 16 * KIB
    network.run(lambda: streams[1] in server.ended)


# Ends


def test_data_of_a_stream_that_is_over_do_not_hide_what_follows_them() -> None:
    network = Network().shake()
    transfer(network, 10)
    server = network.server
    network.run(lambda: not server.engine.knows(0))
    late, new = b"\x0b\x00\x04late", b"\x0b\x04\x03new"  # STREAM frames of streams 0 and 4
    path = server.engine._network_paths[0]
    packet = QuicReceiveContext(tls.Epoch.ONE_RTT, b"", path, None, network.now, None)
    server.engine._payload_received(packet, late + new)
    server.engine.tell(server)
    assert (bytes(server.data[4]), 4 in server.ended) == (b"new", True)


def test_the_packet_that_closes_says_what_has_come() -> None:
    network = Network().shake()
    client, server = network.client, network.server
    stream = client.open()
    client.engine.write(stream, b"last words", True)
    network.flush()
    network.run(lambda: stream in server.ended)
    server.engine.end(0)
    network.flush()
    network.run(lambda: client.engine.closing is not None)
    assert not client.engine.undelivered(stream)
    closing = client.engine.closing
    assert closing is not None
    assert (closing.code, closing.application) == (0, True)


def test_a_packet_that_closes_holds_however_many_gaps_there_were() -> None:
    network = Network(lambda datagram, from_client, index: (DELAY,) if index < 20 or index % 2 else ())
    network.shake()
    client, server = network.client, network.server
    stream = client.open()
    for _ in range(400):
        client.engine.write(stream, b"x" * 1000, False)
        network.flush()
        network.pass_time(0.002)
    server.engine.end(0)
    network.fate = arrives
    network.flush()
    network.run(lambda: client.engine.closing is not None)


def test_observers_need_not_care() -> None:
    nobody = EngineObserver()
    nobody.handshake_complete(False, False)
    for told in (nobody.stream_opened, nobody.stream_delivered):
        told(0)
    for told_with_code in (nobody.stream_reset, nobody.stop_asked):
        told_with_code(0, 0)
    nobody.stream_data(0, b"", False)
    nobody.datagram(b"")
    for about_ids in (nobody.connection_id_issued, nobody.connection_id_retired):
        about_ids(b"")
    nobody.pong()


def test_both_ends_agree_on_what_was_negotiated() -> None:
    network = Network().shake()
    ends: list[End] = [network.client, network.server]
    assert {end.engine.alpn() for end in ends} == {"neatpy"}
    (suite,) = {end.engine.ciphersuite() for end in ends}
    assert str(suite).startswith("TLS_")
    assert len(network.client.engine.peer_chain()) == 1
    assert network.server.engine.peer_chain() == ()
