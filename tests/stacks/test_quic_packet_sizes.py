"""The size of the packets of QUIC's lower half: as large as the path carries them, without anybody telling, and small
again where it does not any more."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

pytest.importorskip("aioquic")

from quic_tools import DELAY, Network, arrives, payload, transfer

from neatpy.stacks._quic.engine import SMALLEST_DATAGRAM

KIB = 1024


def _below(limit: int) -> Network:
    def fate(datagram: bytes, from_client: bool, index: int) -> Iterable[float]:
        return (DELAY,) if len(datagram) <= limit else ()

    return Network(fate).shake()


@pytest.mark.parametrize("size", [1452, 8952])
def test_larger_datagrams_are_used_where_the_path_takes_them(size: int) -> None:
    network = _below(size)
    for end in (network.client, network.server):
        end.engine.try_mtu(size)
    transfer(network, 200 * KIB)
    for end in (network.client, network.server):
        assert end.engine.statistics()["path_mtu"] == size
    assert max(map(len, network.datagrams[True])) == size


def test_smaller_datagrams_are_kept_where_the_path_drops_larger_ones() -> None:
    network = _below(SMALLEST_DATAGRAM)
    for end in (network.client, network.server):
        end.engine.try_mtu(1452)
    transfer(network, 300 * KIB)
    network.pass_time(5.0)
    for datagrams in network.datagrams.values():
        probes = sum(len(datagram) > SMALLEST_DATAGRAM for datagram in datagrams)
        assert 1 <= probes <= 3
    assert network.client.engine.statistics()["path_mtu"] == SMALLEST_DATAGRAM


@pytest.mark.parametrize("size", [600, 100 * KIB])
def test_a_path_that_begins_to_drop_larger_datagrams_is_survived(size: int) -> None:
    network = Network().shake()
    for end in (network.client, network.server):
        end.engine.try_mtu(8952)
    transfer(network, 100 * KIB)
    assert network.client.engine.statistics()["path_mtu"] == 8952
    network.fate = lambda datagram, *_: (DELAY,) if len(datagram) <= 1300 else ()
    for _ in range(20):
        transfer(network, size)
    if size > 1300:
        assert network.client.engine.statistics()["path_mtu"] == SMALLEST_DATAGRAM


def test_larger_datagrams_are_used_again_after_a_second_of_darkness() -> None:
    network = Network().shake()
    network.client.engine.try_mtu(1452)
    transfer(network, 100 * KIB)
    stream = network.client.open()
    network.client.engine.write(stream, payload(100 * KIB), True)
    network.fate = lambda *_: ()
    network.flush()
    network.pass_time(1.0)
    assert network.client.engine.statistics()["path_mtu"] == SMALLEST_DATAGRAM
    network.fate = arrives
    network.run(lambda: stream in network.server.ended)
    transfer(network, 100 * KIB)
    assert network.client.engine.statistics()["path_mtu"] == 1452


def test_large_datagrams_are_not_tried_on_an_address_that_is_not_proven() -> None:
    network = Network().shake()
    transfer(network, 1000)
    moved = ("192.0.2.1", 2000)
    network.client.engine.ping()
    (datagram, _), *_ = network.client.engine.datagrams(network.now)
    network.inject(datagram, True, moved)
    network.server.engine.try_mtu(8952)
    sent = network.server.engine.datagrams(network.now)
    assert {address for _, address in sent} == {moved}
    assert sum(len(each) for each, _ in sent) <= max(3 * len(datagram), SMALLEST_DATAGRAM)


def test_datagrams_that_fit_no_more_do_not_stop_those_that_do() -> None:
    network = Network().shake()
    client, server = network.client.engine, network.server
    client.try_mtu(8952)
    transfer(network, 100 * KIB)
    network.fate = lambda datagram, *_: ()
    for _ in range(100):
        client.send_unreliably(bytes(5000))
    network.flush()
    assert client.datagrams_waiting
    network.run(lambda: client.statistics()["path_mtu"] == SMALLEST_DATAGRAM)
    network.fate = lambda datagram, *_: (DELAY,) if len(datagram) <= 1300 else ()
    client.send_unreliably(b"small")
    network.flush()
    network.run(lambda: server.datagrams == [b"small"])
