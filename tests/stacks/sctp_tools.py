"""Associations of one process with each other, over pipes that lose and delay what a test tells them to."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from neatpy.stacks._sctp.association import Association
from neatpy.stacks._sctp.engine import ENGINE, Path
from neatpy.stacks._sctp.listener import Listener
from neatpy.stacks._sctp.observer import AssociationObserver
from neatpy.stacks._sctp.options import Settings

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


async def all_delivered(peer: Peer) -> None:
    """Wait until all is acknowledged; an association never runs dry of a message without an end."""
    async with asyncio.timeout(10):
        while peer.association.undelivered():
            await asyncio.sleep(0.001)


def echo(peer: Peer) -> None:
    def send_back(stream: int, payload: bytes, complete: bool) -> None:
        assert peer.association.send(stream, payload, eor=complete) == len(payload)

    peer.on_data = send_back


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """After each test the tables are empty, and the library can be ended."""
    yield
    assert ENGINE.counts() == (0, 0)
    assert not ENGINE.waiting
    assert ENGINE.shut_down()
