"""What the tests of QUIC's lower half share: engines on a network in memory, with a clock of its own."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from neatpy.properties import TransportProperties
from neatpy.security import SecurityParameters
from neatpy.stacks._quic.engine import Engine, EngineObserver
from neatpy.stacks._quic.packets import read_header
from neatpy.stacks._quic.settings import QuicSettings
from pki import Authority

AUTHORITY = Authority()
IDENTITY = AUTHORITY.issue("localhost", "127.0.0.1")
CLIENT, SERVER = ("192.0.2.1", 1000), ("192.0.2.2", 443)
DELAY = 0.01
"""Seconds that a datagram takes."""

TICK = 1e-9
"""Seconds that pass at least, as with any clock: what is due after a difference of two times may be due for ever."""

Fate = Callable[[bytes, bool, int], Iterable[float]]
"""Of a datagram, whether it is the client's, and its number there: the delays with which copies of it arrive."""


def arrives(datagram: bytes, from_client: bool, index: int) -> Iterable[float]:
    """What the network does by default."""
    return (DELAY,)


class Lossy:
    """A network that loses, doubles and reorders by chance."""

    def __init__(self, seed: int, *, lost: float = 0.0, doubled: float = 0.0, late: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._lost, self._doubled, self._late = lost, doubled, late

    def __call__(self, datagram: bytes, from_client: bool, index: int) -> Iterable[float]:
        chance = self._random.random
        if chance() < self._lost:
            return ()
        delays = [DELAY * 4 if chance() < self._late else DELAY]
        if chance() < self._doubled:
            delays.append(DELAY * 2)
        return delays


class End(EngineObserver):
    """One side: an engine, and what it has told."""

    __slots__ = (
        "address",
        "complete",
        "data",
        "datagrams",
        "delivered",
        "ended",
        "engine",
        "events",
        "received",
        "sent",
        "stopped",
        "takes",
    )

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.engine: Engine
        self.complete = False
        self.data: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.datagrams: list[bytes] = []
        self.ended: set[int] = set()
        self.delivered: set[int] = set()
        self.events: list[tuple[Any, ...]] = []
        self.takes: Callable[[int], bool] = lambda stream: True
        self.sent = self.received = 0

    def handshake_complete(self, early_data_accepted: bool, resumed: bool) -> bool:
        self.complete = True
        return True

    def stream_opened(self, stream: int) -> None:
        self.events.append(("opened", stream))

    def stream_data(self, stream: int, data: bytes, ended: bool) -> None:
        self.data[stream] += data
        if ended:
            self.ended.add(stream)
        if self.takes(stream):
            self.engine.taken(stream, len(data))

    def datagram(self, data: bytes) -> None:
        self.datagrams.append(data)

    def stream_reset(self, stream: int, code: int) -> None:
        self.events.append(("reset", stream, code))

    def stop_asked(self, stream: int, code: int) -> None:
        self.events.append(("stop", stream, code))

    def stream_delivered(self, stream: int) -> None:
        self.delivered.add(stream)

    def open(self, unidirectional: bool = False) -> int:
        """A new stream."""
        return self.engine.open_stream(unidirectional)


class Network:
    """A client, a server and what lies between them. Time passes only in ``run``."""

    def __init__(
        self,
        fate: Fate = arrives,
        *,
        properties: TransportProperties | None = None,
        client: SecurityParameters | None = None,
        server: SecurityParameters | None = None,
    ) -> None:
        self.fate = fate
        self.now = 1000.0
        self.client, self.server = End(CLIENT), End(SERVER)
        self.counts = {True: 0, False: 0}
        self.datagrams: dict[bool, list[bytes]] = {True: [], False: []}
        self._properties = properties or TransportProperties()
        self._offering = server or SecurityParameters(server_certificate=IDENTITY)
        self._waiting: list[tuple[float, int, bool, bytes, tuple[str, int]]] = []
        self._sequence = 0
        self._has_server = False
        trusting = client or SecurityParameters(trusted_certificates=AUTHORITY.root)
        settings = QuicSettings(trusting, False)
        engine = settings.client_engine("localhost", self._properties, None, None, True)
        engine.observer = self.client
        self.client.engine = engine
        engine.send_to(SERVER, self.now)
        self.flush()

    def run(self, until: Callable[[], object], seconds: float = 60.0) -> None:
        """Let time pass until this holds, which must be within so many seconds of the network's clock."""
        limit = self.now + seconds
        while not until():
            at = min((each.engine.wake_at() or limit for each in self._ends()), default=limit)
            if self._waiting:
                at = min(at, self._waiting[0][0])
            assert at < limit, f"it did not come true within {seconds} s"
            self.now = max(self.now + TICK, at)
            self._deliver()
            for end in self._ends():
                due = end.engine.wake_at()
                if due is not None and due <= self.now:
                    end.engine.wake(self.now)
                end.engine.tell(end)
            self.flush()

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now + seconds
        try:
            self.run(lambda: False, seconds)
        except AssertionError:
            self.now = until

    def shake(self) -> Network:
        """Let the handshake complete, and be known to be on both sides."""
        self.run(lambda: self.client.engine.is_confirmed and self.server.complete)
        return self

    def inject(self, datagram: bytes, to_server: bool, source: tuple[str, int] | None = None) -> None:
        """A datagram arrives now, from the other side or from somewhere else."""
        end, other = (self.server, self.client) if to_server else (self.client, self.server)
        end.engine.take(datagram, source or other.address, self.now)
        end.engine.tell(end)

    def flush(self) -> None:
        """Send what there is to send."""
        for end in self._ends():
            from_client = end is self.client
            for datagram, _ in end.engine.datagrams(self.now):
                end.sent += 1
                index = self.counts[from_client]
                self.counts[from_client] += 1
                self.datagrams[from_client].append(datagram)
                for delay in self.fate(datagram, from_client, index):
                    self._sequence += 1
                    entry = (self.now + delay, self._sequence, from_client, datagram, end.address)
                    heapq.heappush(self._waiting, entry)

    def _ends(self) -> list[End]:
        return [self.client, self.server] if self._has_server else [self.client]

    def _deliver(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.now:
            _, _, to_server, datagram, source = heapq.heappop(self._waiting)
            if to_server and not self._has_server:
                header = read_header(datagram)
                assert header is not None
                settings = QuicSettings(self._offering, True)
                engine = settings.server_engine(self._properties, header.destination_id, None, True)
                engine.observer = self.server
                self.server.engine = engine
                self._has_server = True
            end = self.server if to_server else self.client
            end.received += 1
            end.engine.take(datagram, source, self.now)


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def transfer(network: Network, size: int, seconds: float = 60.0) -> float:
    """Send so much both ways on one stream, with its end; how long that took on the network's clock."""
    client, server = network.client, network.server
    stream = client.open()
    began = network.now
    client.engine.write(stream, payload(size), True)
    network.flush()
    network.run(lambda: stream in server.ended, seconds)
    server.engine.write(stream, payload(size + 1), True)
    network.flush()
    network.run(lambda: stream in client.ended and stream in server.delivered, seconds)
    assert hashlib.sha256(server.data[stream]).digest() == hashlib.sha256(payload(size)).digest()
    assert hashlib.sha256(client.data[stream]).digest() == hashlib.sha256(payload(size + 1)).digest()
    return network.now - began
