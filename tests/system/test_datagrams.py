"""The datagram socket and the shared ports, against plain sockets of the kernel."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from neatpy.enumerations import Preference
from neatpy.properties import TransportProperties
from neatpy.stacks.contract import Address
from neatpy.system import datagram_socket, datagrams
from neatpy.system.datagram_options import bound_socket, source_control, traffic_class_control
from neatpy.system.datagram_socket import DatagramObserver, DatagramSocket
from neatpy.system.datagrams import DatagramPort, DatagramPorts
from neatpy.system.icmp import IcmpError, parse_extended_error

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control messages of Linux"),
]

LOOPBACK = {"v4": "127.0.0.1", "v6": "::1"}
WILDCARD = {"v4": "0.0.0.0", "v6": "::"}


class Recorder(DatagramObserver):
    """Remembers what it is told and wakes whoever waits for it."""

    batches = True

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Any, int, bytes]] = []
        self.errors: list[OSError] = []
        self.bursts = 0
        self.writable_calls = 0
        self.changed = asyncio.Event()
        self.on_datagram: Callable[[bytes], None] | None = None

    def datagram_received(self, data: bytes, source: Any, ecn: int, destination: bytes) -> None:
        self.datagrams.append((data, source, ecn, destination))
        if self.on_datagram is not None:
            self.on_datagram(data)
        self.changed.set()

    def datagrams_done(self) -> None:
        self.bursts += 1
        self.changed.set()

    def datagram_error(self, error: OSError) -> None:
        self.errors.append(error)
        self.changed.set()

    def datagrams_writable(self) -> None:
        self.writable_calls += 1
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_count(self, things: Sequence[object], count: int) -> None:
        await self.until(lambda: len(things) >= count)


class Fussy(socket.socket):
    """A UDP socket that fails as it is told to."""

    failures: list[int]

    def _maybe_fail(self) -> None:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, "as told")

    def send(self, *arguments: Any) -> int:
        self._maybe_fail()
        return super().send(*arguments)

    def sendmsg(self, buffers: Any, control: Any = (), *rest: Any) -> int:
        if any(kind == 103 for _, kind, _ in control):
            self.segmented += 1
        self._maybe_fail()
        return super().sendmsg(buffers, control, *rest)

    segmented = 0


@pytest.fixture(params=["v4", "v6"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def peer(version: str) -> Iterator[socket.socket]:
    sock = bound_socket(Address(LOOPBACK[version], 0), None)
    yield sock
    sock.close()


@pytest.fixture
async def recorder() -> Recorder:
    return Recorder()


def connected(peer: socket.socket, recorder: Recorder, kind: Any = socket.socket, **options: bool) -> Any:
    sock = kind(peer.family, socket.SOCK_DGRAM)
    sock.connect(peer.getsockname())
    if isinstance(sock, Fussy):
        sock.failures = []
    return DatagramSocket(asyncio.get_running_loop(), sock, recorder, **options)


async def test_datagrams_arrive_with_their_source_in_bursts(peer: socket.socket, recorder: Recorder) -> None:
    under_test = connected(peer, recorder)
    under_test.resume_receiving()
    for number in range(200):
        peer.sendto(b"%d" % number, under_test.socket.getsockname())
    await recorder.until(lambda: len(recorder.datagrams) == 200)
    assert [entry[0] for entry in recorder.datagrams] == [b"%d" % number for number in range(200)]
    assert recorder.datagrams[0][1] == peer.getsockname()
    assert 200 / datagram_socket.BURST <= recorder.bursts < 100
    under_test.close()


async def test_the_ecn_field_is_seen(peer: socket.socket, recorder: Recorder) -> None:
    under_test = connected(peer, recorder)
    under_test.resume_receiving()
    control = traffic_class_control(peer.family, 0x03)
    peer.sendmsg([b"congested"], [control], 0, under_test.socket.getsockname())
    await recorder.until(lambda: recorder.datagrams)
    assert recorder.datagrams[0][2] == 3
    under_test.close()


async def test_a_paused_socket_delivers_later(peer: socket.socket, recorder: Recorder) -> None:
    under_test = connected(peer, recorder)
    recorder.on_datagram = lambda _: under_test.pause_receiving()
    under_test.resume_receiving()
    for _ in range(3):
        peer.sendto(b"x", under_test.socket.getsockname())
    for expected in (1, 2, 3):
        await recorder.until_count(recorder.datagrams, expected)
        under_test.resume_receiving()
    under_test.close()


async def test_an_unreachable_port_is_an_error_and_not_the_end(version: str, recorder: Recorder) -> None:
    for errors in (False, True):
        peer = bound_socket(Address(LOOPBACK[version], 0), None)
        address = peer.getsockname()
        under_test = connected(peer, recorder, errors=errors)
        under_test.resume_receiving()
        peer.close()
        recorder.errors.clear()
        recorder.datagrams.clear()
        for attempt in range(3):
            assert under_test.try_send(b"anyone there?")
            await recorder.until_count(recorder.errors, attempt + 1)
        assert {error.errno for error in recorder.errors} == {errno.ECONNREFUSED}
        if errors:
            (error, *_) = recorder.errors
            assert isinstance(error, IcmpError)
            assert error.port_unreachable
            assert error.offender == LOOPBACK[version]
            assert error.remote[:2] == address[:2]
        with bound_socket(Address(LOOPBACK[version], address[1]), None) as revived:
            revived.sendto(b"now I am", under_test.socket.getsockname())
            await recorder.until(lambda: recorder.datagrams)
            assert under_test.try_send(b"welcome")
            assert revived.recv(100) == b"welcome"
        under_test.close()


async def test_a_refusal_seen_by_send_neither_spoils_that_datagram_nor_stops_receiving(
    version: str, recorder: Recorder
) -> None:
    peer = bound_socket(Address(LOOPBACK[version], 0), None)
    address = Address(LOOPBACK[version], peer.getsockname()[1])
    under_test = connected(peer, recorder, errors=True)
    under_test.resume_receiving()
    peer.close()
    under_test.try_send(b"lost")
    with bound_socket(address, None) as revived:
        assert under_test.try_send(b"arrives")  # the pending error was that of the first
        assert revived.recv(100) == b"arrives"
        await recorder.until(lambda: recorder.errors)
        revived.sendto(b"reply", under_test.socket.getsockname())
        await recorder.until(lambda: recorder.datagrams)
    under_test.close()


async def test_an_error_does_not_keep_the_loop_busy(version: str, recorder: Recorder) -> None:
    for errors in (False, True):
        peer = bound_socket(Address(LOOPBACK[version], 0), None)
        under_test = connected(peer, recorder, errors=errors)
        under_test.resume_receiving()
        peer.close()
        recorder.errors.clear()
        under_test.try_send(b"?")
        await recorder.until(lambda: recorder.errors)
        before = recorder.bursts
        loop = asyncio.get_running_loop()
        pause = loop.create_future()
        loop.call_later(0.05, pause.set_result, None)
        await pause
        assert recorder.bursts - before <= 2
        under_test.close()


async def test_what_the_kernel_does_not_take_waits_and_follows_in_order(
    peer: socket.socket, recorder: Recorder
) -> None:
    under_test = connected(peer, recorder, Fussy)
    under_test.socket.failures = [errno.EAGAIN]
    assert not under_test.try_send(b"not taken")
    under_test.socket.failures = [errno.EAGAIN]
    assert not under_test.send(b"first")
    assert not under_test.send(b"second")
    assert not under_test.try_send(b"must not overtake")
    await recorder.until(lambda: recorder.writable_calls)
    assert [peer.recv(100), peer.recv(100)] == [b"first", b"second"]
    assert recorder.writable_calls == 1
    under_test.close()


async def test_the_queue_is_bounded(peer: socket.socket, recorder: Recorder) -> None:
    under_test = connected(peer, recorder, Fussy)
    under_test.socket.failures = [errno.EAGAIN]
    for _ in range(datagram_socket.QUEUE_DATAGRAMS):
        under_test.send(b"x")
    with pytest.raises(BlockingIOError):
        under_test.send(b"one too many")
    under_test.close()


async def test_a_datagram_that_fails_in_the_queue_is_reported_and_the_next_goes_out(
    peer: socket.socket, recorder: Recorder
) -> None:
    under_test = connected(peer, recorder, Fussy)
    under_test.socket.failures = [errno.EAGAIN, errno.EPERM]
    under_test.send(b"fails")
    under_test.send(b"goes")
    await recorder.until(lambda: recorder.writable_calls)
    assert recorder.errors[0].errno == errno.EPERM
    assert peer.recv(100) == b"goes"
    under_test.close()


async def test_a_datagram_that_is_too_large_is_an_error_of_its_own(
    peer: socket.socket, recorder: Recorder
) -> None:
    under_test = connected(peer, recorder)
    with pytest.raises(OSError, match="too long") as caught:
        under_test.try_send(bytes(65600))
    assert caught.value.errno == errno.EMSGSIZE
    assert under_test.try_send(b"fits")
    assert peer.recv(100) == b"fits"
    assert not recorder.errors
    under_test.close()


@pytest.mark.parametrize("sizes", [[1200] * 100 + [7], [1, 2, 3], [5, 5, 2, 5, 0, 5]])
async def test_a_batch_arrives_as_single_datagrams(
    peer: socket.socket, recorder: Recorder, sizes: list[int]
) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    under_test = connected(peer, recorder, Fussy)
    batch = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    assert under_test.send_batch(batch)
    assert [peer.recv(65536) for _ in batch] == batch
    assert bool(under_test.socket.segmented) == any(a >= b > 0 for a, b in itertools.pairwise(sizes))
    under_test.close()


async def test_a_batch_goes_singly_where_segmentation_is_not_supported(
    peer: socket.socket, recorder: Recorder
) -> None:
    under_test = connected(peer, recorder, Fussy)
    under_test.socket.failures = [errno.EIO]
    assert under_test.send_batch([b"a", b"b"])
    assert under_test.send_batch([b"c", b"d"])
    assert [peer.recv(10) for _ in range(4)] == [b"a", b"b", b"c", b"d"]
    assert under_test.socket.segmented == 1
    under_test.close()


async def test_merged_datagrams_are_parted_again(version: str, recorder: Recorder) -> None:
    loop = asyncio.get_running_loop()
    receiver = DatagramSocket(loop, bound_socket(Address(LOOPBACK[version], 0), None), recorder)
    sender = connected(receiver.socket, Recorder())
    batch = [bytes([index]) * 1000 for index in range(40)] + [b"end"]
    sender.send_batch(batch)
    receiver.resume_receiving()
    await recorder.until(lambda: len(recorder.datagrams) == len(batch))
    assert [entry[0] for entry in recorder.datagrams] == batch
    sender.close()
    receiver.close()


async def test_closing_in_the_middle_of_a_burst_ends_it(peer: socket.socket, recorder: Recorder) -> None:
    under_test = connected(peer, recorder)
    address = under_test.socket.getsockname()
    recorder.on_datagram = lambda _: under_test.close()
    for _ in range(5):
        peer.sendto(b"x", address)
    under_test.resume_receiving()
    await recorder.until(lambda: recorder.datagrams)
    await asyncio.sleep(0)
    assert len(recorder.datagrams) == 1
    under_test.close()


def open_port(ports: DatagramPorts, ip: str, port: int = 0, **properties: Any) -> DatagramPort:
    return ports.open(Address(ip, port), None, TransportProperties(**properties))


async def test_one_listener_gets_one_socket_for_each_address(version: str) -> None:
    ports = DatagramPorts(asyncio.get_running_loop())
    first = open_port(ports, LOOPBACK[version])
    number = first.local_address.port
    assert number
    assert open_port(ports, LOOPBACK[version], number) is first
    assert open_port(ports, LOOPBACK[version]) is first
    first.release()
    first.release()
    assert first.socket.fileno() >= 0
    first.release()
    assert first.socket.fileno() < 0
    again = open_port(ports, LOOPBACK[version], number)
    assert again is not first
    again.release()


async def test_a_port_that_nobody_listens_on_any_more_goes_on_with_the_next_listener(version: str) -> None:
    def knows_nobody(data: bytes, source: Any, destination: bytes) -> None:
        return None

    level, option = {
        "v4": (socket.IPPROTO_IP, socket.IP_TTL),
        "v6": (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    }[version]
    loop = asyncio.get_running_loop()
    first = DatagramPorts(loop).open(Address(LOOPBACK[version], 0), None, TransportProperties(), hop_limit=7)
    usual = open_port(DatagramPorts(loop), LOOPBACK[version])
    first.register(knows_nobody, 1)
    number = first.local_address.port
    with pytest.raises(OSError, match="in use"):
        open_port(DatagramPorts(loop), LOOPBACK[version], number)
    first.retire(knows_nobody)
    assert not first.has_successor(1)
    again = open_port(DatagramPorts(loop), LOOPBACK[version], number, soft_error_notify=Preference.REQUIRE)
    assert again is first
    assert again.socket.getsockopt(level, option) == usual.socket.getsockopt(level, option) != 7
    assert again._socket._errors
    again.register(lambda data, source, destination: None, 1)
    assert first.has_successor(1)
    usual.release()
    first.release()
    assert again.is_open
    again.release()
    assert not again.is_open


async def test_protocols_are_asked_in_rank_order_and_own_what_they_take(
    peer: socket.socket, recorder: Recorder, version: str
) -> None:
    port = open_port(DatagramPorts(asyncio.get_running_loop()), LOOPBACK[version])
    target = port.socket.getsockname()
    asked: list[str] = []

    def plain(data: bytes, source: Any, destination: bytes) -> DatagramObserver | None:
        asked.append("plain")
        return recorder

    def picky(data: bytes, source: Any, destination: bytes) -> DatagramObserver | None:
        asked.append("picky")
        return None

    port.register(plain, 100)
    port.register(picky, 10)
    for _ in range(3):
        peer.sendto(b"x", target)
    await recorder.until(lambda: len(recorder.datagrams) == 3)
    assert asked == ["picky", "plain"]
    assert len(port) == 1
    port.unregister(plain)
    port.disown(peer.getsockname(), b"")
    port.claim(peer.getsockname(), b"", recorder)
    peer.sendto(b"x", target)
    await recorder.until(lambda: len(recorder.datagrams) == 4)
    port.release()
    assert port.socket.fileno() >= 0  # a four-tuple is still owned
    port.disown(peer.getsockname(), b"")
    assert port.socket.fileno() < 0


async def test_a_full_table_drops_new_peers_and_keeps_the_old(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder, version: str
) -> None:
    monkeypatch.setattr(datagrams, "FOUR_TUPLES", 2)
    port = open_port(DatagramPorts(asyncio.get_running_loop()), LOOPBACK[version])
    port.register(lambda data, source, destination: recorder, 100)
    peers = [bound_socket(Address(LOOPBACK[version], 0), None) for _ in range(3)]
    for peer in (*peers, peers[0]):
        peer.sendto(b"x", port.socket.getsockname())
    await recorder.until(lambda: len(recorder.datagrams) == 3)
    assert port.dropped == 1
    assert recorder.datagrams[2][1] == peers[0].getsockname()
    assert not port.claim(peers[2].getsockname(), b"", recorder)
    for peer in peers:
        port.disown(peer.getsockname(), b"")
        peer.close()
    port.release()


async def test_a_wildcard_socket_knows_where_a_datagram_went_and_answers_from_there(
    recorder: Recorder,
) -> None:
    port = open_port(DatagramPorts(asyncio.get_running_loop()), "0.0.0.0")
    port.register(lambda data, source, destination: recorder, 100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.connect(("127.0.0.2", port.local_address.port))
        peer.setblocking(False)
        peer.send(b"hello")
        await recorder.until(lambda: recorder.datagrams)
        _, source, _, destination = recorder.datagrams[0]
        assert destination == socket.inet_aton("127.0.0.2")
        port.try_send(b"reply", source, (source_control(destination),))
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 100), 5) == b"reply"
        port.disown(source, destination)
    port.release()


async def test_an_icmp_error_on_a_shared_socket_reaches_the_right_endpoint(version: str) -> None:
    port = open_port(
        DatagramPorts(asyncio.get_running_loop()), WILDCARD[version], soft_error_notify=Preference.REQUIRE
    )
    endpoints: dict[Any, Recorder] = {}

    def recognise(data: bytes, source: Any, destination: bytes) -> DatagramObserver:
        endpoints[source] = Recorder()
        endpoints[source].changed = changed
        return endpoints[source]

    changed = asyncio.Event()
    observer = Recorder()
    observer.changed = changed
    port.register(recognise, 100)
    target = (LOOPBACK[version], port.local_address.port)
    gone, here = (bound_socket(Address(LOOPBACK[version], 0), None) for _ in range(2))
    for peer in (gone, here):
        peer.sendto(b"hello", target)
    await observer.until(lambda: len(endpoints) == 2)
    gone_address, here_address = gone.getsockname(), here.getsockname()
    gone.close()
    destination = endpoints[gone_address].datagrams[0][3]
    control = (source_control(destination),)
    assert port.try_send(b"?", gone_address, control)
    assert port.try_send(b"!", here_address, control)  # another peer's error is not in the way
    assert here.recv(10) == b"!"
    await observer.until(lambda: endpoints[gone_address].errors)
    assert not endpoints[here_address].errors
    for address in endpoints:
        port.disown(address, destination)
    port.release()
    here.close()


async def test_the_error_queue_is_understood() -> None:
    offender = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton("192.0.2.1"))
    error = parse_extended_error(struct.pack("=IBBBxII", errno.EMSGSIZE, 2, 3, 4, 1400, 0) + offender)
    assert error is not None
    assert error.packet_too_big
    assert not error.port_unreachable
    assert (error.mtu, error.offender) == (1400, "192.0.2.1")
    assert "ICMP type 3 code 4 from 192.0.2.1" in str(error)
    offender = struct.pack(
        "=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, "2001:db8::1"), 0
    )
    error = parse_extended_error(struct.pack("=IBBBxII", errno.ECONNREFUSED, 3, 1, 4, 0, 0) + offender)
    assert error is not None
    assert error.port_unreachable
    assert error.offender == "2001:db8::1"
    assert parse_extended_error(b"short") is None
    local = parse_extended_error(struct.pack("=IBBBxII", errno.EMSGSIZE, 1, 0, 0, 1500, 0))
    assert local is not None
    assert local.offender is None
