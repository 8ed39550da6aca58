"""The lower half of the SCTP stack: how associations end, and what the engine does for loops, forks and UDP."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest
from sctp_tools import MIB, MTU, PORT, Net, Peer, all_delivered, echo, nothing_is_left

from api.loopback import BOTH_LOOPS
from neatpy.stacks._sctp import library, packets
from neatpy.stacks._sctp.association import Association
from neatpy.stacks._sctp.engine import ENGINE
from neatpy.stacks._sctp.listener import Listener
from neatpy.stacks._sctp.options import Scheduler, Settings
from neatpy.system.datagram_options import SocketAddress
from neatpy.system.datagram_socket import DatagramObserver, DatagramSocket

__all__ = ["nothing_is_left"]
pytestmark = [
    pytest.mark.skipif(library.obstacle() is not None, reason=str(library.obstacle())),
    pytest.mark.usefixtures("nothing_is_left"),
]


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


@pytest.mark.parametrize("paused", [False, True])
async def test_a_message_that_an_abort_cuts_short_has_no_end_and_the_others_have(paused: bool) -> None:
    net = Net()
    client, server = await net.pair()
    if paused:
        server.association.pause()
    whole, cut = bytes(20_000), bytes(150_000)
    client.association.send(0, whole)
    client.association.send(2, whole)
    client.association.send(2, whole)
    assert client.association.send(4, cut, eor=False) == len(cut)
    await all_delivered(client)
    client.association.abort()
    await server.event("closed")
    # What a paused peer had not read of a stream before is not known to have ended, unless something followed on it.
    assert sorted(server.messages) == ([(2, whole)] if paused else [(0, whole), (2, whole), (2, whole)])
    assert server.bytes == len(whole) * 3 + len(cut)
    assert not server.saw("abandoned")
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
