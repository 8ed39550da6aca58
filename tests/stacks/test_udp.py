"""The stack udp, against plain sockets of the kernel and socat."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from neatpy.enumerations import CapacityProfile, Preference
from neatpy.errors import ConnectionError, Reason, SendError, TransportServicesError
from neatpy.message import MessageContext
from neatpy.properties import TransportProperties
from neatpy.stacks import _datagram
from neatpy.stacks._datagram import UdpFlow
from neatpy.stacks.contract import Address, Candidate, FlowObserver, ListenRequest
from neatpy.stacks.udp import UdpListener, UdpStack
from neatpy.system.datagram_options import bound_socket, traffic_class_control
from neatpy.system.datagram_socket import DatagramSocket
from neatpy.system.datagrams import DatagramPorts
from neatpy.system.pacing import Pacer

pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="control messages of Linux"),
]

LOOPBACK = {"v4": "127.0.0.1", "v6": "::1"}
NO_SECURITY: Any = None


class Recorder(FlowObserver):
    """Remembers what a Flow tells and wakes whoever waits for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, MessageContext | None, bool]] = []
        self.soft: list[TransportServicesError] = []
        self.sent_tokens: list[object] = []
        self.failures: list[tuple[object, TransportServicesError]] = []
        self.ends: list[TransportServicesError | None] = []
        self.writable_calls = 0
        self.changed = asyncio.Event()
        self.on_message: Callable[[bytes], None] | None = None

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        self.messages.append((data, context, end_of_message))
        if self.on_message is not None:
            self.on_message(data)
        self.changed.set()

    def sent(self, token: object) -> None:
        self.sent_tokens.append(token)
        self.changed.set()

    def failed(self, token: object, error: TransportServicesError) -> None:
        self.failures.append((token, error))
        self.changed.set()

    def writable(self) -> None:
        self.writable_calls += 1
        self.changed.set()

    def soft_error(self, error: TransportServicesError) -> None:
        self.soft.append(error)
        self.changed.set()

    def closed(self, error: TransportServicesError | None) -> None:
        self.ends.append(error)
        self.changed.set()

    @property
    def data(self) -> list[bytes]:
        return [message[0] for message in self.messages]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_count(self, things: Sequence[object], count: int) -> None:
        await self.until(lambda: len(things) >= count)


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


async def connect(address: Any, recorder: Recorder, **properties: Any) -> UdpFlow:
    remote = Address(address[0], address[1])
    hop_limit = properties.pop("hop_limit", None)
    candidate = Candidate(
        UdpStack(), remote, TransportProperties(**properties), NO_SECURITY, hop_limit=hop_limit
    )
    flow = await UdpStack().connect(candidate, recorder)
    assert isinstance(flow, UdpFlow)
    return flow


@pytest.fixture
async def flow(peer: socket.socket, recorder: Recorder) -> AsyncIterator[UdpFlow]:
    made = await connect(peer.getsockname(), recorder)
    yield made
    made.abort()


class Server:
    """A listening stack whose Flows are kept, each with a recorder."""

    def __init__(self, ip: str, admits: Callable[[str], bool] = lambda ip: True, **properties: Any) -> None:
        ports = DatagramPorts(asyncio.get_running_loop())
        self.request = ListenRequest(
            Address(ip, 0), None, TransportProperties(**properties), NO_SECURITY, ports, admits
        )
        self.flows: list[UdpFlow] = []
        self.recorder = Recorder()
        self.listener: UdpListener

    async def __aenter__(self) -> Server:
        listener = await UdpStack().listen(self.request, self.accepted)
        assert isinstance(listener, UdpListener)
        self.listener = listener
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        for flow in self.flows:
            flow.abort()

    def accepted(self, flow: Any) -> None:
        flow.observer = self.recorder
        self.flows.append(flow)

    @property
    def port(self) -> int:
        return self.listener.local_address.port


def plain(**properties: Any) -> MessageContext:
    return MessageContext(**properties)


async def receive(peer: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 65536), 5)


@pytest.mark.parametrize("size", [0, 1, 1200, 60000])
async def test_a_message_is_a_datagram_both_ways(
    peer: socket.socket, recorder: Recorder, flow: UdpFlow, size: int
) -> None:
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert flow.send(message, plain(), True, 1)
    assert await receive(peer) == message
    peer.sendto(message, (flow.local_address.ip, flow.local_address.port))
    await recorder.until(lambda: recorder.messages)
    [(received, context, end_of_message)] = recorder.messages
    assert context is not None
    assert (received, context.ecn, end_of_message) == (message, 0, True)
    assert flow.remote_address[:2] == peer.getsockname()[:2]


async def test_connecting_sends_nothing(peer: socket.socket, flow: UdpFlow) -> None:
    with pytest.raises(BlockingIOError):
        peer.recv(10)


async def test_what_can_never_be_one_datagram_is_refused(
    peer: socket.socket, recorder: Recorder, flow: UdpFlow, version: str
) -> None:
    largest = flow.read("send_msg_max_len")
    assert largest == (65507 if version == "v4" else 65527)
    assert isinstance(largest, int)
    context = plain()
    with pytest.raises(SendError) as caught:
        flow.send(bytes(largest + 1), context, True, 1)
    assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
    assert caught.value.context is context
    assert flow.send(bytes(largest), plain(), True, 2)
    assert len(await receive(peer)) == largest


async def test_parts_leave_as_one_datagram(peer: socket.socket, flow: UdpFlow) -> None:
    context = plain()
    assert flow.send(b"one ", context, False, 1)
    assert flow.send(bytearray(b"datagram "), context, False, 2)
    assert flow.send(memoryview(b"only"), context, True, 3)
    assert await receive(peer) == b"one datagram only"


async def test_every_later_part_of_a_message_that_is_too_large_is_refused(
    peer: socket.socket, flow: UdpFlow
) -> None:
    context = plain()
    assert flow.send(bytes(60000), context, False, 1)
    for end in (False, True):
        with pytest.raises(SendError, match="do not fit"):
            flow.send(bytes(10000), context, end, 2)
    assert flow.send(b"next", plain(), True, 3)
    assert await receive(peer) == b"next"


async def test_the_ecn_field_of_a_datagram_is_in_its_context(
    peer: socket.socket, recorder: Recorder, flow: UdpFlow
) -> None:
    local = (flow.local_address.ip, flow.local_address.port)
    peer.sendmsg([b"congested"], [traffic_class_control(peer.family, 3)], 0, local)
    peer.sendto(b"not", local)
    await recorder.until(lambda: len(recorder.messages) == 2)
    context = recorder.messages[0][1]
    assert context is not None
    assert context.ecn == 3
    second = recorder.messages[1][1]
    assert second is not None
    assert second.ecn == 0


async def traffic_class(peer: socket.socket) -> int:
    await asyncio.sleep(0)
    _, control, _, _ = peer.recvmsg(100, 100)
    (value,) = (value for _, kind, value in control if kind in (socket.IP_TOS, socket.IPV6_TCLASS))
    return value[0]


def show_traffic_class(peer: socket.socket) -> None:
    if peer.family == socket.AF_INET6:
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    else:
        peer.setsockopt(socket.IPPROTO_IP, 13, 1)


async def test_capacity_profiles_mark_datagrams(peer: socket.socket, recorder: Recorder) -> None:
    show_traffic_class(peer)
    flow = await connect(peer.getsockname(), recorder, conn_capacity_profile=CapacityProfile.SCAVENGER)
    flow.send(b"as the connection", plain(), True, 1)
    assert await traffic_class(peer) == CapacityProfile.SCAVENGER << 2
    profile = CapacityProfile.LOW_LATENCY_INTERACTIVE
    flow.send(b"as the message", plain(msg_capacity_profile=profile), True, 2)
    assert await traffic_class(peer) == profile << 2
    flow.apply("conn_capacity_profile", CapacityProfile.DEFAULT)
    flow.send(b"changed", plain(), True, 3)
    assert await traffic_class(peer) == 0
    flow.abort()


async def test_flows_of_a_listener_mark_datagrams_each_for_itself(peer: socket.socket, version: str) -> None:
    show_traffic_class(peer)
    async with Server(LOOPBACK[version]) as server:
        peer.sendto(b"hello", (LOOPBACK[version], server.port))
        await server.recorder.until(lambda: server.flows)
        (flow,) = server.flows
        flow.send(b"plain", plain(), True, 1)
        assert await traffic_class(peer) == 0
        flow.apply("conn_capacity_profile", CapacityProfile.CAPACITY_SEEKING)
        flow.send(b"marked", plain(), True, 2)
        assert await traffic_class(peer) == CapacityProfile.CAPACITY_SEEKING << 2


async def test_a_message_not_to_be_fragmented_is_refused_when_it_exceeds_the_path(recorder: Recorder) -> None:
    with bound_socket(Address("::1", 0), None) as peer:  # whose MTU is 65536, headers included
        flow = await connect(peer.getsockname(), recorder)
        assert flow.read("singular_transmission_msg_max_len") == 65536 - 48
        with pytest.raises(SendError) as caught:
            flow.send(bytes(65500), plain(no_fragmentation=True), True, 1)
        assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
        assert flow.send(bytes(65488), plain(no_fragmentation=True), True, 2)
        assert flow.send(bytes(65500), plain(), True, 3)
        assert [len(peer.recv(65536)), len(peer.recv(65536))] == [65488, 65500]
        flow.abort()


async def test_a_hop_limit_is_kept(peer: socket.socket, recorder: Recorder, version: str) -> None:
    flow = await connect(peer.getsockname(), recorder, hop_limit=7)
    if version == "v4":
        peer.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
    else:
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    flow.send(b"x", plain(), True, 1)
    _, ((_, _, value),), _, _ = peer.recvmsg(10, 100)
    assert value[0] == 7
    flow.abort()


@pytest.mark.parametrize("preference", [Preference.REQUIRE, Preference.NO_PREFERENCE])
async def test_an_unreachable_port_is_a_soft_error_for_those_who_ask_and_never_the_end(
    version: str, recorder: Recorder, preference: Preference
) -> None:
    gone = bound_socket(Address(LOOPBACK[version], 0), None)
    address = Address(LOOPBACK[version], gone.getsockname()[1])
    flow = await connect(address, recorder, soft_error_notify=preference)
    gone.close()
    assert flow.send(b"anyone?", plain(), True, 1)
    async with asyncio.timeout(5):
        while not flow.statistics()["errors"]:
            await asyncio.sleep(0)
    with bound_socket(address, None) as revived:
        assert flow.send(b"hello", plain(), True, 2)
        assert await receive(revived) == b"hello"
        revived.sendto(b"back", (flow.local_address.ip, flow.local_address.port))
        await recorder.until(lambda: recorder.messages)
    assert not recorder.ends
    assert bool(recorder.soft) is (preference is Preference.REQUIRE)
    if recorder.soft:
        assert isinstance(recorder.soft[0], ConnectionError)
        assert "refused" in str(recorder.soft[0])
    flow.abort()


async def test_a_paused_flow_leaves_datagrams_in_the_kernel(
    peer: socket.socket, recorder: Recorder, flow: UdpFlow
) -> None:
    flow.pause_receiving()
    flow.pause_receiving()
    local = (flow.local_address.ip, flow.local_address.port)
    for data in (b"1", b"2"):
        peer.sendto(data, local)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not recorder.messages
    flow.resume_receiving()
    await recorder.until(lambda: len(recorder.messages) == 2)


async def test_closing_reports_once_and_discards_what_arrives(
    peer: socket.socket, recorder: Recorder, flow: UdpFlow
) -> None:
    assert flow.send(b"last words", plain(), True, 1)
    peer.sendto(b"too late", (flow.local_address.ip, flow.local_address.port))
    flow.close()
    flow.close()
    assert not recorder.ends
    await recorder.until(lambda: recorder.ends)
    assert recorder.ends == [None]
    assert not recorder.messages
    assert await receive(peer) == b"last words"
    assert flow.local_address.port
    flow.abort()


async def test_aborting_says_nothing(recorder: Recorder, flow: UdpFlow) -> None:
    flow.abort()
    flow.abort()
    await asyncio.sleep(0)
    assert not recorder.ends


class Stubborn:
    """Stands in for a kernel that takes nothing until it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: OSError | None = BlockingIOError(errno.EAGAIN, "full")
        original = DatagramSocket._hand_over

        def hand_over(below: Any, *arguments: Any) -> None:
            if self.error is not None:
                raise self.error
            original(below, *arguments)

        monkeypatch.setattr(DatagramSocket, "_hand_over", hand_over)


async def test_a_full_kernel_delays_sent_and_closed(
    peer: socket.socket, recorder: Recorder, flow: UdpFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Stubborn(monkeypatch)
    assert not flow.send(b"waits", plain(), True, "token")
    assert not flow.writable
    assert flow.backlog() == 5
    flow.close()
    await asyncio.sleep(0)
    assert not recorder.ends
    kernel.error = None
    await recorder.until(lambda: recorder.ends)
    assert recorder.sent_tokens == ["token"]
    assert recorder.ends == [None]
    assert await receive(peer) == b"waits"


async def test_a_flow_is_writable_again_when_the_kernel_has_room(
    peer: socket.socket, recorder: Recorder, flow: UdpFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Stubborn(monkeypatch)
    assert not flow.send(b"waits", plain(), True, 1)
    kernel.error = None
    await recorder.until(lambda: recorder.writable_calls)
    assert flow.writable
    assert recorder.sent_tokens == [1]


async def test_a_message_that_fails_while_it_waits_is_reported(
    recorder: Recorder, flow: UdpFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Stubborn(monkeypatch)
    assert not flow.send(b"waits", plain(), True, 1)
    kernel.error = PermissionError(errno.EPERM, "filtered")
    await recorder.until(lambda: recorder.failures)
    ((token, error),) = recorder.failures
    assert token == 1
    assert error.reason is Reason.PROTOCOL_FAILED


async def test_closing_does_not_wait_for_a_full_kernel_for_ever(
    recorder: Recorder, flow: UdpFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_datagram, "LINGER", 0.01)
    Stubborn(monkeypatch)
    assert not flow.send(b"waits", plain(), True, 1)
    flow.close()
    await recorder.until(lambda: recorder.ends)
    assert recorder.ends[0] is not None
    assert recorder.ends[0].reason is Reason.TIMEOUT


async def test_a_rate_limit_makes_a_flow_wait_after_a_datagram(
    peer: socket.socket, recorder: Recorder
) -> None:
    flow = await connect(peer.getsockname(), recorder, max_send_rate=8_000_000.0)
    assert flow.send(bytes(10_000), plain(), True, 1)  # the burst of 10 ms
    assert flow.writable
    assert flow.send(bytes(20_000), plain(), True, 2)
    assert not flow.writable
    await recorder.until(lambda: recorder.writable_calls)
    assert flow.writable
    flow.apply("max_send_rate", math.inf)
    for _ in range(10):
        assert flow.send(bytes(20_000), plain(), True, 3)
        assert flow.writable
    flow.abort()


async def test_a_pacer_keeps_its_rate_on_average_after_a_small_burst() -> None:
    pacer = Pacer(8000)  # 1000 bytes a second
    assert pacer.spend(10, 0.0) == 0
    assert pacer.spend(500, 0.0) == pytest.approx(0.5)
    assert pacer.spend(1000, 0.5) == pytest.approx(1.0)
    assert pacer.spend(10, 100.0) == pytest.approx(0.0)
    assert pacer.spend(10, 100.0) == pytest.approx(0.01)


# Listening


async def test_each_peer_is_a_flow_and_gets_its_replies(version: str) -> None:
    async with Server(LOOPBACK[version]) as server:
        peers = [bound_socket(Address(LOOPBACK[version], 0), None) for _ in range(3)]
        for index, peer in enumerate(peers):
            peer.sendto(b"%d" % index, (LOOPBACK[version], server.port))
            peer.sendto(b"again", (LOOPBACK[version], server.port))
        await server.recorder.until(lambda: len(server.recorder.messages) == 6)
        assert server.recorder.data == [b"0", b"again", b"1", b"again", b"2", b"again"]
        assert [flow.remote_address.port for flow in server.flows] == [p.getsockname()[1] for p in peers]
        for index, (flow, peer) in enumerate(zip(server.flows, peers, strict=True)):
            assert flow.send(b"reply %d" % index, plain(), True, index)
            assert await receive(peer) == b"reply %d" % index
            peer.close()


async def test_a_reply_leaves_from_the_address_that_was_spoken_to() -> None:
    async with Server("0.0.0.0") as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.setblocking(False)
            peer.connect(("127.0.0.2", server.port))
            peer.send(b"hello")
            await server.recorder.until(lambda: server.flows)
            (flow,) = server.flows
            assert flow.local_address == Address("127.0.0.2", server.port)
            flow.send(b"reply", plain(), True, 1)
            assert await receive(peer) == b"reply"


async def test_a_peer_that_is_not_admitted_gets_no_flow(recorder: Recorder) -> None:
    async with Server("127.0.0.1", admits=lambda ip: ip == "127.0.0.3") as server:
        for ip in ("127.0.0.1", "127.0.0.3"):
            with bound_socket(Address(ip, 0), None) as peer:
                peer.sendto(ip.encode(), ("127.0.0.1", server.port))
        await server.recorder.until(lambda: server.recorder.messages)
        assert server.recorder.data == [b"127.0.0.3"]


async def test_a_flow_that_is_aborted_when_accepted_gets_nothing(peer: socket.socket, version: str) -> None:
    async with Server(LOOPBACK[version]) as server:
        original = server.accepted
        refused: list[object] = []

        def refuse(flow: Any) -> None:
            refused.append(flow)
            flow.abort()
            server.listener._accepted = original

        server.listener._accepted = refuse
        for _ in range(2):
            peer.sendto(b"x", (LOOPBACK[version], server.port))
        await server.recorder.until(lambda: server.recorder.messages)
        assert len(refused) == len(server.flows) == len(server.recorder.messages) == 1


async def test_after_stop_accepted_flows_live_on_and_the_last_closes_the_socket(
    peer: socket.socket, version: str
) -> None:
    async with Server(LOOPBACK[version]) as server:
        target = (LOOPBACK[version], server.port)
        peer.sendto(b"hello", target)
        await server.recorder.until(lambda: server.flows)
        (flow,) = server.flows
        server.listener.close()
        server.listener.close()
        with bound_socket(Address(LOOPBACK[version], 0), None) as late:
            late.sendto(b"too late", target)
            peer.sendto(b"still here", target)
            await server.recorder.until(lambda: len(server.recorder.messages) == 2)
        assert len(server.flows) == 1
        flow.send(b"so am I", plain(), True, 1)
        assert await receive(peer) == b"so am I"
        flow.close()
        await server.recorder.until(lambda: server.recorder.ends)
        bound_socket(Address(LOOPBACK[version], target[1]), None).close()  # the port is free


async def test_a_closed_four_tuple_starts_anew(peer: socket.socket, version: str) -> None:
    async with Server(LOOPBACK[version]) as server:
        target = (LOOPBACK[version], server.port)
        for count in (1, 2):
            peer.sendto(b"hello", target)
            await server.recorder.until_count(server.flows, count)
            server.flows[-1].close()
            await server.recorder.until_count(server.recorder.ends, count)


async def test_a_paused_flow_of_a_listener_keeps_some_datagrams_in_order_and_drops_the_rest(
    peer: socket.socket, version: str
) -> None:
    async with Server(LOOPBACK[version]) as server:
        target = (LOOPBACK[version], server.port)
        server.recorder.on_message = lambda data: server.flows[0].pause_receiving()
        for number in range(_datagram.HELD_DATAGRAMS + 11):
            peer.sendto(b"%d" % number, target)
        await server.recorder.until(lambda: server.flows)
        (flow,) = server.flows
        async with asyncio.timeout(5):
            while flow.statistics()["datagrams_dropped"] < 10:
                await asyncio.sleep(0)
        assert server.recorder.data == [b"0"]
        flow.resume_receiving()
        flow.pause_receiving()
        await asyncio.sleep(0)
        assert server.recorder.data == [b"0"]
        flow.resume_receiving()
        await server.recorder.until_count(server.recorder.messages, 2)  # which pauses again
        server.recorder.on_message = None
        flow.resume_receiving()
        flow.resume_receiving()
        await server.recorder.until(lambda: len(server.recorder.messages) == _datagram.HELD_DATAGRAMS + 1)
        assert server.recorder.data == [b"%d" % number for number in range(_datagram.HELD_DATAGRAMS + 1)]
        peer.sendto(b"after", target)
        await server.recorder.until(lambda: server.recorder.data[-1] == b"after")


async def test_statistics_count_what_passed(peer: socket.socket, recorder: Recorder, flow: UdpFlow) -> None:
    flow.send(b"four", plain(), True, 1)
    peer.sendto(b"seventy", (flow.local_address.ip, flow.local_address.port))
    await recorder.until(lambda: recorder.messages)
    assert flow.statistics() == {
        "datagrams_sent": 1,
        "datagrams_received": 1,
        "datagrams_dropped": 0,
        "bytes_sent": 4,
        "bytes_received": 7,
        "errors": 0,
    }


@pytest.mark.needs_program("socat")
async def test_socat_echoes(version: str, recorder: Recorder) -> None:
    with bound_socket(Address(LOOPBACK[version], 0), None) as probe:
        port = probe.getsockname()[1]
    family = "UDP4" if version == "v4" else "UDP6"
    host = "127.0.0.1" if version == "v4" else "[::1]"
    process = subprocess.Popen(["socat", f"{family}-RECVFROM:{port},bind={host},fork", "EXEC:cat"])
    try:
        flow = await connect((LOOPBACK[version], port), recorder)
        async with asyncio.timeout(10):
            while not recorder.messages:  # socat may not be there yet
                flow.send(b"hello socat", plain(), True, 1)
                recorder.changed.clear()
                try:
                    await asyncio.wait_for(recorder.changed.wait(), 0.1)
                except TimeoutError:
                    continue
        assert recorder.data[0] == b"hello socat"
        flow.abort()
    finally:
        process.terminate()
        process.wait(5)


async def test_the_stack_says_what_it_is() -> None:
    features = UdpStack.features
    assert (features.handshake, features.secure, features.may_duplicate) == (False, False, True)
    assert features.preserves_boundaries
    assert not {"reliability", "preserve_order", "congestion_control"} & set(features.selection)
    assert UdpStack().available().available
