"""The lower half of the SCTP stack: associations of one process with each other, over pipes and over UDP sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from neatpy.stacks._sctp import library, packets
from neatpy.stacks._sctp.association import Association
from neatpy.stacks._sctp.engine import ENGINE, Path
from neatpy.stacks._sctp.listener import Listener
from neatpy.stacks._sctp.observer import AssociationObserver
from neatpy.stacks._sctp.options import Scheduler, Settings
from neatpy.system.datagram_options import SocketAddress
from neatpy.system.datagram_socket import DatagramObserver, DatagramSocket

pytestmark = pytest.mark.skipif(library.obstacle() is not None, reason=str(library.obstacle()))

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
PORT = 5000
MTU = 1452
MIB = 1 << 20


class Peer(AssociationObserver):
    """Notes what it is told, and lets tests wait for it."""

    def __init__(self) -> None:
        self.association: Association
        self.events: list[tuple[object, ...]] = []
        self.messages: list[tuple[int, bytes]] = []
        self.pieces: list[tuple[int, int, bool]] = []
        self.parts: defaultdict[int, list[bytes]] = defaultdict(list)
        self.marks: list[tuple[bool, int]] = []
        self.interleaving = False
        self.bytes = 0
        self.on_data: Callable[[int, bytes, bool], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self._news = asyncio.Event()

    def note(self, *event: object) -> None:
        self.events.append(event)
        self._news.set()

    def connected(self, streams_out: int, streams_in: int, interleaving: bool) -> None:
        self.interleaving = interleaving
        self.note("connected", streams_out, streams_in)

    def data(self, stream: int, payload: bytes, unordered: bool, ppid: int, complete: bool) -> None:
        self.pieces.append((stream, len(payload), complete))
        self.bytes += len(payload)
        self.parts[stream].append(payload)
        if complete:
            self.messages.append((stream, b"".join(self.parts.pop(stream))))
            self.marks.append((unordered, ppid))
        if self.on_data is not None:
            self.on_data(stream, payload, complete)
        self._news.set()

    def data_abandoned(self, stream: int) -> None:
        self.parts.pop(stream, None)
        self.note("abandoned", stream)

    def writable(self) -> None:
        if self.on_writable is not None:
            self.on_writable()
        self.note("writable")

    def send_failed(self, context: int, error: int) -> None:
        self.note("send_failed", context)

    def dry(self) -> None:
        self.note("dry")

    def stream_reset(self, incoming: tuple[int, ...], outgoing: tuple[int, ...]) -> None:
        self.note("stream_reset", incoming, outgoing)

    def stream_reset_failed(self, denied: bool) -> None:
        self.note("stream_reset_failed", denied)

    def streams_added(self, streams_in: int, streams_out: int) -> None:
        self.note("streams_added", streams_in, streams_out)

    def streams_denied(self) -> None:
        self.note("streams_denied")

    def path_changed(self, reachable: bool) -> None:
        self.note("path_changed", reachable)

    def peer_shutdown(self) -> None:
        self.note("peer_shutdown")

    def closed(self, error: OSError | None, reason: bytes) -> None:
        self.note("closed", type(error), reason)

    def saw(self, name: str) -> bool:
        return any(event[0] == name for event in self.events)

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def messages_are(self, count: int) -> None:
        await self.until(lambda: len(self.messages) == count)

    async def event(self, name: str) -> tuple[object, ...]:
        await self.until(lambda: self.saw(name))
        return next(event for event in self.events if event[0] == name)

    def send_all(self, stream: int, message: bytes) -> None:
        """Send one message of any size in pieces, as the window opens."""
        left = memoryview(message)

        def go_on() -> None:
            nonlocal left
            while left:
                taken = self.association.send(stream, left)
                left = left[taken:]
                if left and taken == 0:
                    return

        self.on_writable = go_on
        go_on()


class Pipe:
    """One direction between two paths, in memory; loses and swaps packets as it is told."""

    def __init__(self) -> None:
        self.target: Path
        self.loss = self.swaps = 0.0
        self.dead = False
        self.largest = self.count = 0
        self._random = random.Random(1)

    def send(self, batch: list[bytes]) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, batch)

    def _deliver(self, batch: list[bytes]) -> None:
        draw = self._random.random
        kept = [packet for packet in batch if not self.dead and draw() >= self.loss]
        for index in range(len(kept) - 1):
            if draw() < self.swaps:
                kept[index], kept[index + 1] = kept[index + 1], kept[index]
        for packet in kept:
            self.largest = max(self.largest, len(packet))
            self.count += 1
            self.target.received(packet)
        self.target.done()


class Net:
    """Two paths that lead to each other, and a port listened on."""

    def __init__(self, settings: Settings | None = None, mtu: int = MTU) -> None:
        ENGINE.acquire(asyncio.get_running_loop())
        self.settings = settings or Settings()
        self.accepted: list[Peer] = []
        self.there, self.back = Pipe(), Pipe()
        self.near = ENGINE.path(self.there.send, mtu)
        self.far = ENGINE.path(self.back.send, mtu, self._accept)
        self.there.target, self.back.target = self.far, self.near
        self.listener = Listener.open(PORT, self.settings)

    def _accept(self, association: Association) -> None:
        peer = Peer()
        peer.association = association
        association.observer = peer
        self.accepted.append(peer)

    def connect(self, port: int = PORT) -> Peer:
        peer = Peer()
        peer.association = Association.connect(self.near, port, peer, self.settings)
        return peer

    async def pair(self) -> tuple[Peer, Peer]:
        client = self.connect()
        await client.event("connected")
        server = self.accepted[-1]
        await server.event("connected")
        return client, server

    def close(self) -> None:
        self.listener.close()
        self.near.close()
        self.far.close()
        ENGINE.release()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test the tables are empty, and the library can be ended."""
    yield
    assert ENGINE.counts() == (0, 0)
    assert not ENGINE.waiting
    assert ENGINE.shut_down()


def echo(peer: Peer) -> None:
    def send_back(stream: int, payload: bytes, complete: bool) -> None:
        assert peer.association.send(stream, payload, eor=complete) == len(payload)

    peer.on_data = send_back


# Packets


def test_the_checksum_is_crc32c() -> None:
    assert packets.crc32c(b"123456789") == 0xE3069283


async def test_an_init_is_recognised_and_what_only_resembles_one_is_not() -> None:
    sent: list[bytes] = []
    ENGINE.acquire(asyncio.get_running_loop())
    path = ENGINE.path(sent.extend, MTU)
    peer = Peer()
    association = Association.connect(path, PORT, peer, Settings())
    path.done()
    init = sent[0]
    assert packets.is_init(init)
    assert packets.destination_port(init) == PORT
    for position in range(len(init)):
        changed = bytearray(init)
        changed[position] ^= 1
        assert not packets.is_init(bytes(changed))
    assert not packets.is_init(init[:-4])
    assert not packets.is_init(init + bytes(4))
    assert not packets.is_init(b"")
    association.abort()
    path.close()
    ENGINE.release()


# Messages


@BOTH_LOOPS
async def test_a_message_comes_back_with_its_stream_and_payload_protocol() -> None:
    net = Net()
    client, server = await net.pair()
    echo(server)
    assert client.association.send(3, b"hello", ppid=46) == 5
    await client.until(lambda: bool(client.messages))
    assert client.messages == [(3, b"hello")]
    assert server.marks == [(False, 46)]
    assert client.interleaving
    assert server.interleaving
    net.close()


@pytest.mark.parametrize("mebibytes", [1, 16])
async def test_a_message_larger_than_all_buffers_comes_in_pieces_with_one_end(mebibytes: int) -> None:
    net = Net()
    client, server = await net.pair()
    message = random.Random(2).randbytes(mebibytes * MIB)
    client.send_all(0, message)
    await server.until(lambda: bool(server.messages))
    assert server.messages == [(0, message)]
    assert [complete for _, _, complete in server.pieces].count(True) == 1
    assert len(server.pieces) > 1
    assert client.saw("writable")
    assert net.there.largest == MTU
    net.close()


@pytest.mark.parametrize(
    ("mtu", "largest"), [(600, 600), (1280, 1280), (1451, 1448), (9000, 9000), (65000, 65000)]
)
async def test_the_mtu_of_the_path_holds_for_what_is_accepted_too(mtu: int, largest: int) -> None:
    net = Net(mtu=mtu)
    client, server = await net.pair()
    for peer, other in ((server, client), (client, server)):
        peer.send_all(0, bytes(200_000))
        await other.until(lambda peer=other: bool(peer.messages))  # type: ignore[misc]
    assert (net.there.largest, net.back.largest) == (largest, largest)
    net.close()


async def test_whole_messages_of_eight_streams_are_interleaved() -> None:
    net = Net(Settings(send_buffer=4 * MIB))
    client, server = await net.pair()
    messages = {stream: bytes([stream]) * 300_000 for stream in range(8)}
    for stream, message in messages.items():
        assert client.association.send(stream, message) == len(message)
    await server.until(lambda: len(server.messages) == 8)
    assert dict(server.messages) == messages
    first_end = next(index for index, piece in enumerate(server.pieces) if piece[2])
    assert len({stream for stream, _, _ in server.pieces[:first_end]}) > 1
    net.close()


async def test_the_send_buffer_can_be_made_to_hold_a_whole_message() -> None:
    net = Net()
    client, server = await net.pair()
    client.association.set_send_buffer(MIB)
    assert client.association.send(0, bytes(600_000)) == 600_000
    await server.until(lambda: server.bytes == 600_000)
    net.close()


@BOTH_LOOPS
async def test_messages_of_eight_streams_that_are_open_at_the_same_time_all_arrive() -> None:
    net = Net()
    client, server = await net.pair()
    messages = {stream: bytes([stream]) * 300_000 for stream in range(8)}
    left = {stream: memoryview(message) for stream, message in messages.items()}

    def go_on() -> None:
        for stream in list(left):
            piece = left[stream][:20_000]
            taken = client.association.send(stream, piece, eor=len(piece) == len(left[stream]))
            left[stream] = left[stream][taken:]
            if not left[stream]:
                del left[stream]
            if taken < len(piece):
                return
        if left:
            asyncio.get_running_loop().call_soon(go_on)

    client.on_writable = go_on
    go_on()
    await server.until(lambda: len(server.messages) == 8)
    assert dict(server.messages) == messages
    net.close()


async def test_an_open_message_with_nothing_to_send_holds_no_other_stream_up() -> None:
    net = Net()
    client, server = await net.pair()
    for stream in (1, 2, 3):
        client.association.send(stream, b"begun", eor=False)
    for number in range(50):
        client.association.send(10 + number % 2, b"whole")
        await server.messages_are(number + 1)
    for stream in (3, 2, 1):
        client.association.send(stream, b", ended")
    await server.until(lambda: len(server.messages) == 53)
    assert sorted(server.messages[-3:]) == [(stream, b"begun, ended") for stream in (1, 2, 3)]
    net.close()


async def test_an_unordered_message_overtakes_a_lost_one() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.dead = True
    client.association.send(0, b"lost first")
    net.near.done()
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    net.there.dead = False
    client.association.send(0, b"ordered")
    client.association.send(0, b"unordered", unordered=True)
    await server.until(lambda: len(server.messages) == 3)
    assert [message for _, message in server.messages] == [b"unordered", b"lost first", b"ordered"]
    assert [unordered for unordered, _ in server.marks] == [True, False, False]
    net.close()


async def test_messages_arrive_whole_and_in_order_over_a_lossy_reordering_path() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.loss = net.back.loss = 0.05
    net.there.swaps = 0.2
    sent = [random.Random(number).randbytes(1 + number * 97 % 9000) for number in range(60)]
    for message in sent:
        assert client.association.send(1, message) == len(message) or pytest.fail("the buffer is too small")
    await server.until(lambda: len(server.messages) == len(sent))
    assert [message for _, message in server.messages] == sent
    net.close()


# Partial reliability


async def test_a_message_without_retransmissions_is_given_up_and_the_next_one_arrives() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.dead = True
    client.association.send(0, b"never", max_retransmissions=0, context=7)
    net.near.done()
    assert await client.event("send_failed") == ("send_failed", 7)
    net.there.dead = False
    client.association.send(0, b"ever")
    await server.until(lambda: bool(server.messages))
    assert server.messages == [(0, b"ever")]
    net.close()


async def test_a_message_past_its_lifetime_is_given_up() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.dead = True
    client.association.send(2, b"stale", lifetime_ms=20, context=9)
    assert await client.event("send_failed") == ("send_failed", 9)
    net.there.dead = False
    client.association.send(2, b"fresh")
    await server.until(lambda: bool(server.messages))
    assert server.messages == [(2, b"fresh")]
    net.close()


# Streams


async def test_a_reset_stream_is_told_on_both_sides_and_serves_again() -> None:
    net = Net()
    client, server = await net.pair()
    client.association.send(4, b"before")
    client.association.reset((4,))
    assert await server.event("stream_reset") == ("stream_reset", (4,), ())
    assert await client.event("stream_reset") == ("stream_reset", (), (4,))
    assert server.messages == [(4, b"before")]
    client.association.send(4, b"after")
    await server.until(lambda: len(server.messages) == 2)
    assert server.messages[1] == (4, b"after")
    net.close()


async def test_streams_can_be_added() -> None:
    net = Net(Settings(streams=4))
    client, server = await net.pair()
    with pytest.raises(OSError, match="Invalid") as refused:
        client.association.send(5, b"there is no such stream")
    assert refused.value.errno == errno.EINVAL
    client.association.add_streams(6)
    assert await client.event("streams_added") == ("streams_added", 4, 10)
    assert await server.event("streams_added") == ("streams_added", 10, 4)
    client.association.send(9, b"the tenth")
    await server.until(lambda: bool(server.messages))
    assert server.messages == [(9, b"the tenth")]
    net.close()


async def test_streams_beyond_what_the_peer_allows_are_denied() -> None:
    net = Net(Settings(streams=4, most_streams=8))
    client, _ = await net.pair()
    client.association.add_streams(20)
    await client.event("streams_denied")
    net.close()


async def test_with_the_priority_scheduler_the_lower_value_is_sent_first() -> None:
    net = Net()
    client, server = await net.pair()
    client.association.set_scheduler(Scheduler.PRIORITY)
    client.association.set_stream_value(1, 9)
    client.association.set_stream_value(2, 1)
    for stream in (1, 2):
        assert client.association.send(stream, bytes(100_000)) == 100_000
    await server.until(lambda: len(server.messages) == 2)
    assert [stream for stream, _ in server.messages] == [2, 1]
    net.close()


# Flow control


async def test_a_paused_peer_stops_the_sender_and_resuming_lets_everything_through() -> None:
    net = Net(Settings(send_buffer=131072, receive_buffer=131072))
    client, server = await net.pair()
    server.association.pause()
    taken = []

    def fill() -> None:
        while (count := client.association.send(0, bytes(1000))) == 1000:
            taken.append(count)
        if count:
            taken.append(count)

    client.on_writable = fill
    fill()
    quiet = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.5, quiet.set_result, None)
    await quiet
    stuck = sum(taken)
    assert not server.messages
    assert stuck < 400_000
    client.on_writable = None
    server.association.resume()
    await server.until(lambda: server.bytes == stuck)
    client.association.ask_dry()
    await client.event("dry")
    net.close()


async def test_dry_comes_once_everything_is_acknowledged() -> None:
    net = Net()
    client, server = await net.pair()
    client.send_all(0, bytes(100_000))
    client.association.ask_dry()
    await client.event("dry")
    assert server.bytes == 100_000
    status = client.association.status()
    assert status is not None
    assert (status.unacknowledged, status.incomplete, status.established) == (0, 0, True)
    net.close()


# Ending


@BOTH_LOOPS
async def test_closing_delivers_what_was_sent_on_a_lossy_path() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.loss = 0.05
    message = random.Random(3).randbytes(200_000)
    assert client.association.send(0, message) == len(message)
    client.association.close()
    assert await client.event("closed") == ("closed", type(None), b"")
    assert await server.event("closed") == ("closed", type(None), b"")
    assert server.messages == [(0, message)]
    assert [event[0] for event in server.events] == ["connected", "peer_shutdown", "closed"]
    net.close()


async def test_closing_with_unread_data_does_not_abort() -> None:
    net = Net()
    client, server = await net.pair()
    server.association.pause()
    client.association.send(0, b"nobody reads this")
    client.association.ask_dry()
    await client.event("dry")
    server.association.close()
    assert await server.event("closed") == ("closed", type(None), b"")
    assert await client.event("closed") == ("closed", type(None), b"")
    net.close()


async def test_an_abort_tells_the_peer_its_reason() -> None:
    net = Net()
    client, server = await net.pair()
    client.association.abort(b"out of tea")
    assert await server.event("closed") == ("closed", ConnectionResetError, b"out of tea")
    assert not client.saw("closed")
    with pytest.raises(OSError, match="closed"):
        client.association.send(0, b"too late")
    net.close()


async def test_an_abort_reaches_a_paused_peer() -> None:
    net = Net()
    client, server = await net.pair()
    server.association.pause()
    client.association.send(0, b"last words")
    client.association.ask_dry()
    await client.event("dry")
    client.association.abort()
    assert await server.event("closed") == ("closed", ConnectionResetError, b"")
    net.close()


async def test_a_port_nobody_listens_on_refuses() -> None:
    net = Net()
    client = net.connect(port=5001)
    assert (await client.event("closed"))[1] is ConnectionRefusedError
    net.close()


async def test_a_path_that_accepts_nothing_aborts_what_the_peer_opens() -> None:
    net = Net()
    net.far.accept = None
    client = net.connect()
    await client.event("closed")
    assert not net.accepted
    net.close()


async def test_a_silent_peer_times_an_attempt_out() -> None:
    net = Net(Settings(rto_initial=60, rto_max=60, attempts=2))
    net.there.dead = True
    client = net.connect()
    assert (await client.event("closed"))[1] is TimeoutError
    net.close()


async def test_a_peer_that_falls_silent_breaks_the_association() -> None:
    net = Net(Settings(rto_initial=60, rto_max=100, retransmissions=3))
    client, server = await net.pair()
    net.there.dead = net.back.dead = True
    client.association.send(0, b"anybody?", context=5)
    assert (await client.event("closed"))[1] is ConnectionAbortedError
    assert ("send_failed", 5) in client.events
    server.association.abort()
    net.close()


async def test_an_observer_may_abort_in_the_middle_of_what_it_is_told() -> None:
    net = Net()
    client, server = await net.pair()
    for _ in range(5):
        client.association.send(0, b"one of five")
    server.on_data = lambda *_: server.association.abort(b"enough")
    assert await client.event("closed") == ("closed", ConnectionResetError, b"enough")
    assert len(server.messages) == 1
    assert not server.saw("closed")
    net.close()


async def test_closing_an_attempt_ends_it_and_tells_nobody() -> None:
    net = Net()
    client = net.connect()
    client.association.close()
    await net.pair()
    assert not client.events
    assert ENGINE.counts() == (2, 3)
    net.close()


async def test_those_who_listen_on_one_port_share_it_until_the_last_stops() -> None:
    net = Net()
    shared = Listener.open(PORT, Settings())
    net.listener.close()
    await net.pair()
    shared.close()
    client = net.connect()
    assert (await client.event("closed"))[1] is ConnectionRefusedError
    net.listener = Listener.open(PORT, Settings())
    net.close()


async def test_a_peer_that_is_silent_for_a_while_is_told_of_and_the_association_lives_on() -> None:
    net = Net(Settings(rto_initial=60, rto_max=60, retransmissions=20))
    client, _ = await net.pair()
    client.association.set_heartbeat(0.02)
    net.there.dead = True
    assert await client.event("path_changed") == ("path_changed", False)
    net.there.dead = False
    await client.until(lambda: ("path_changed", True) in client.events)
    assert not client.saw("closed")
    net.close()


async def test_an_association_that_is_over_takes_no_more_orders() -> None:
    net = Net()
    client, server = await net.pair()
    client.association.abort()
    await server.event("closed")
    for association in (client.association, server.association):
        for order in (
            lambda a=association: a.send(0, b"late"),
            lambda a=association: a.reset((0,)),
            lambda a=association: a.add_streams(1),
            lambda a=association: a.set_scheduler(Scheduler.PRIORITY),
            lambda a=association: a.set_heartbeat(None),
            lambda a=association: a.ask_dry(),
        ):
            with pytest.raises(OSError):  # noqa: PT011 - which one does not matter
                order()  # type: ignore[no-untyped-call]
        assert association.status() is None
        association.resume()
        association.close()
        association.abort()
    net.close()


async def test_garbage_changes_nothing() -> None:
    net = Net()
    client, server = await net.pair()
    echo(server)
    noise = random.Random(4)
    for size in [*range(64), 1452, 9000]:
        net.far.received(noise.randbytes(size))
        packet = struct.pack("!HHII", 5000, 5000, 0, 0) + noise.randbytes(size)
        checksum = packets.crc32c(packet)
        net.far.received(packet[:8] + checksum.to_bytes(4, "little") + packet[12:])
    net.far.done()
    client.association.send(0, b"still there")
    await client.until(lambda: bool(client.messages))
    assert len(net.accepted) == 1
    net.close()


async def test_an_observer_that_fails_is_reported_and_harms_nobody_else() -> None:
    net = Net()
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    client, server = await net.pair()
    other, _ = await net.pair()

    def fail(stream: int, payload: bytes, complete: bool) -> None:
        raise RuntimeError("of the test")

    server.on_data = fail
    echo(net.accepted[1])
    client.association.send(0, b"one")
    other.association.send(0, b"two")
    await other.until(lambda: bool(other.messages))
    assert complaints == ["an SCTP observer failed"]
    net.close()


async def test_two_hundred_associations_leave_nothing_behind() -> None:
    net = Net()
    for _ in range(200):
        client, server = await net.pair()
        client.association.close()
        await client.event("closed")
        await server.event("closed")
    assert ENGINE.counts() == (2, 1)
    net.close()


async def test_associations_of_one_path_end_with_it() -> None:
    net = Net()
    _, server = await net.pair()
    _, other = await net.pair()
    net.near.close()
    await server.event("closed")
    await other.event("closed")
    net.close()


# The engine


async def exchange() -> None:
    net = Net()
    client, server = await net.pair()
    echo(server)
    client.association.send(0, b"hello")
    await client.until(lambda: bool(client.messages))
    net.close()


def test_a_second_loop_can_use_the_engine_after_the_first() -> None:
    for _ in range(3):
        asyncio.run(exchange())


def test_what_a_closed_loop_left_open_does_not_hinder_the_next() -> None:
    async def leave() -> None:
        net = Net()
        await net.pair()

    asyncio.run(leave())
    assert ENGINE.counts() == (2, 3)
    asyncio.run(exchange())


async def test_a_second_loop_at_the_same_time_is_told_that_it_is_busy() -> None:
    net = Net()
    other = asyncio.new_event_loop()
    with pytest.raises(OSError, match="another event loop"):
        ENGINE.acquire(other)
    other.close()
    net.close()


def test_a_process_that_ends_with_everything_open_ends_well() -> None:
    script = """
import asyncio
from neatpy.stacks._sctp.association import Association
from neatpy.stacks._sctp.listener import Listener
from neatpy.stacks._sctp.observer import AssociationObserver
from neatpy.stacks._sctp.engine import ENGINE
from neatpy.stacks._sctp.options import Settings

async def main():
    loop = asyncio.get_running_loop()
    ENGINE.acquire(loop)
    up = asyncio.Event()
    class Observer(AssociationObserver):
        def connected(self, *ignored):
            up.set()
    def give(path, batch):
        for packet in batch:
            path.received(packet)
    near = ENGINE.path(lambda batch: loop.call_soon(give, far, batch), 1452)
    far = ENGINE.path(lambda batch: loop.call_soon(give, near, batch), 1452, lambda association: None)
    Listener.open(5000, Settings())
    Association.connect(near, 5000, Observer(), Settings())
    await up.wait()
    print("up")

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "up\n", "")


async def test_a_forked_child_is_told_that_it_cannot_use_what_its_parent_uses() -> None:
    net = Net()
    await net.pair()
    child = os.fork()
    if not child:
        try:
            ENGINE.acquire(asyncio.new_event_loop())
        except OSError as error:
            os._exit(0 if "forked" in str(error) else 1)
        os._exit(2)
    try:
        async with asyncio.timeout(10):
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(status) == 0
    net.close()


# UDP


class Wire(DatagramObserver):
    """A path over a UDP socket."""

    batches = True

    def __init__(self, accept: Callable[[Association], None] | None = None) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        self.address: SocketAddress = sock.getsockname()
        self.peer: SocketAddress = ()
        self._socket = DatagramSocket(asyncio.get_running_loop(), sock, self)
        self._socket.resume_receiving()
        self.path = ENGINE.path(self._send, MTU, accept)

    def datagram_received(self, data: bytes, source: SocketAddress, ecn: int, destination: bytes) -> None:
        self.path.received(data)

    def datagrams_done(self) -> None:
        self.path.done()

    def close(self) -> None:
        self.path.close()
        self._socket.close()

    def _send(self, batch: list[bytes]) -> None:
        self._socket.send_batch(batch, self.peer)


@BOTH_LOOPS
async def test_a_large_message_comes_back_over_udp() -> None:
    ENGINE.acquire(asyncio.get_running_loop())
    server, client = Peer(), Peer()

    def accept(association: Association) -> None:
        server.association = association
        association.observer = server

    near, far = Wire(), Wire(accept)
    near.peer, far.peer = far.address, near.address
    listener = Listener.open(PORT, Settings())
    client.association = Association.connect(near.path, PORT, client, Settings())
    await client.event("connected")
    message = random.Random(5).randbytes(2 * MIB)
    client.send_all(0, message)
    await server.until(lambda: bool(server.messages))
    server.send_all(0, server.messages[0][1])
    await client.until(lambda: bool(client.messages))
    assert client.messages == [(0, message)]
    client.association.close()
    await server.event("closed")
    await client.event("closed")
    listener.close()
    near.close()
    far.close()
    ENGINE.release()
