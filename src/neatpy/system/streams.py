"""The stream sockets of one loop: watched, kept alive as long as they are open, and told when the peer resets them.

Giving a descriptor to an event loop is expensive (seven system calls with libuv), and a loop refers only to those that
it reads from or writes to: a connection that is not read from, because the application is slow or the peer has
finished, would neither be kept nor learn of a reset. And libuv stops watching a descriptor at the first error, without
a word. So all of them are in one epoll object that the loop watches. A connection that turns out to be busy is read by
the loop itself, which is one step shorter; the epoll object then tells of errors only.

Knows sockets; knows no protocol.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, finalize, ref

from neatpy.system.turns import turns

_READING = getattr(select, "EPOLLIN", 0)
_ERRORS_ONLY = getattr(select, "EPOLLET", 0)
_ERROR = getattr(select, "EPOLLERR", 0)
_AT_ONCE = 64

LINGER = 5.0
"""Seconds for which a socket whose Connection is Closed still reads and discards, so that a peer that was sending is
not reset."""


if TYPE_CHECKING:
    from typing import Protocol

    class Stream(Protocol):
        """Whose socket is watched."""

        def readable(self) -> None:
            """There is something to read: data, or the end. Not for a stream that has just been closed."""
            ...

        def hung_up(self) -> None:
            """The kernel has an error for this socket; what arrived before it can still be read."""
            ...

        def abandon(self) -> None:
            """Nothing came for too long. Only called of those that linger."""
            ...


class OpenStreams:
    """The open stream sockets of one loop, and its turn. ``watches``: whether it can tell when they are readable."""

    __slots__ = (
        "__weakref__",
        "_closing_sockets",
        "_epoll",
        "_lingering",
        "_loop",
        "_streams",
        "_timer",
        "turn",
        "watches",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.turn = turns.of(loop)
        self._streams: dict[int, Stream] = {}
        self._lingering: dict[int, float] = {}
        self._closing_sockets: dict[int, socket.socket] = {}
        finalize(loop, _close_all, self._closing_sockets)
        self._timer: asyncio.TimerHandle | None = None
        self._epoll: select.epoll | None = None
        self.watches = hasattr(select, "epoll")
        if self.watches:
            self._epoll = select.epoll()
            loop.add_reader(self._epoll.fileno(), self._report)

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, descriptor: int, stream: Stream) -> None:
        """Keep this stream until ``remove``, and tell it what happens to its socket."""
        self._streams[descriptor] = stream
        if self._epoll is not None:
            self._epoll.register(descriptor, _READING)

    def watch_reading(self, descriptor: int, watched: bool) -> None:
        """Whether the stream is told when it is readable; of errors it is told in any case."""
        if self._epoll is not None:
            self._epoll.modify(descriptor, _READING if watched else _ERRORS_ONLY)

    def closing(self, sock: socket.socket) -> None:
        """The application is done with this stream, and its socket is closed when the loop is gone, at the latest."""
        self._closing_sockets[sock.fileno()] = sock

    def linger(self, sock: socket.socket) -> None:
        """Nothing more is to be delivered on this stream, which is closing: it is abandoned after :data:`LINGER`."""
        descriptor = sock.fileno()
        self._lingering[descriptor] = time.monotonic() + LINGER
        if self._timer is None:
            self._timer = self._loop.call_later(LINGER, self._abandon)

    def remove(self, descriptor: int) -> None:
        """The socket is about to be closed, which ends the watching too."""
        self._streams.pop(descriptor, None)
        self._lingering.pop(descriptor, None)
        self._closing_sockets.pop(descriptor, None)

    def _abandon(self) -> None:
        """One timer serves all: they are in the order of their ends."""
        self._timer = None
        now = time.monotonic()
        while self._lingering:
            descriptor, end = next(iter(self._lingering.items()))
            if end > now + 1e-3:
                self._timer = self._loop.call_later(end - now, self._abandon)
                return
            del self._lingering[descriptor]
            self._streams[descriptor].abandon()

    def _report(self) -> None:
        assert self._epoll is not None
        streams = self._streams
        # Found before any of them runs: one may close another, whose number may at once belong to a third.
        ready = [(streams[descriptor], events) for descriptor, events in self._epoll.poll(0, _AT_ONCE)]
        for stream, events in ready:
            if events & _ERROR:
                stream.hung_up()
            elif events & _READING:
                stream.readable()


def _close_all(sockets: dict[int, socket.socket]) -> None:
    for sock in sockets.values():
        sock.close()
    sockets.clear()


class OpenStreamsOfLoops:
    """Finds the open streams of a loop. The loop owns them: what is left when it is gone goes with it."""

    __slots__ = ("_by_loop",)

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[OpenStreams]] = WeakKeyDictionary()

    def of(self, loop: asyncio.AbstractEventLoop) -> OpenStreams:
        """The open streams of this loop."""
        known = self._by_loop.get(loop)
        streams = None if known is None else known()
        if streams is None:
            streams = OpenStreams(loop)
            self._by_loop[loop] = ref(streams)
        return streams


open_streams = OpenStreamsOfLoops()
