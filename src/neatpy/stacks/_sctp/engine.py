"""The loop's side of usrsctp: packets go in and come out by paths, timers run, and who has news is attended to.

The library keeps its state for the whole process and calls back with its locks held, so that a callback only notes
what has happened; everything is done afterwards, in :meth:`Engine.drain`. There is one Engine, :data:`ENGINE`, which
serves one event loop at a time. It knows what is attended to only by :class:`Attended`; a path is only a function that
takes packets.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neatpy.stacks._sctp import library
from neatpy.system.turns import Turn, turns

if TYPE_CHECKING:
    from neatpy.stacks._sctp.association import Association

FAST_TICK, SLOW_TICK = 0.010, 0.100
"""Seconds between two looks at the library's timers: while something is under way, and otherwise."""

RECEIVE_SPACE = 1 << 18
"""Bytes of a message that are taken from the library at once."""

_LIVELY_TICKS = 30  # fast ticks after the last packet: delayed acknowledgements and what they start
_SMALLEST_PACKET = 16  # common header and one chunk header
_FIRST_CHUNK, _ABORT = 12, 6
_FINISH_TRIES = 100


class Attended(ABC):
    """Something with a usrsctp socket that the library has news for. ``number`` is its name there."""

    __slots__ = ("number", "sock")

    number: int
    sock: Any

    @abstractmethod
    def attend(self) -> None:
        """See what the socket has to tell. Called from the loop, with no lock of the library held."""

    @abstractmethod
    def discard(self) -> None:
        """Close the socket at once and tell nobody: the loop is gone."""

    def revive(self) -> None:  # noqa: B027 - only associations stall
        """See that what is to be sent goes on; called after each exchange with those in :attr:`Engine.stalling`."""

    def busy(self) -> bool:
        """Whether timers are likely to be needed soon."""
        return False


class Path:
    """A way to one peer: packets sent go to ``send`` in batches; packets that come are given to :meth:`received`.

    ``mtu`` is the largest packet in bytes, all SCTP headers included. ``accept`` is called with each association that
    the peer opens by this path to a port listened on, and sets its observer before returning; without it, such
    associations are aborted.
    """

    __slots__ = ("_batch", "_engine", "accept", "associations", "mtu", "number", "send")

    def __init__(
        self,
        engine: Engine,
        number: int,
        send: Callable[[list[bytes]], None],
        mtu: int,
        accept: Callable[[Association], None] | None,
    ) -> None:
        self._engine = engine
        self._batch: list[bytes] = []
        self.number = number
        self.send = send
        self.mtu = mtu
        self.accept = accept
        self.associations: dict[Association, None] = {}

    def received(self, packet: bytes) -> None:
        """Take one packet of the peer, whatever it holds. Observers are told at :meth:`done`, which is to follow in the
        same turn."""
        if self.number and len(packet) >= _SMALLEST_PACKET:
            if packet[_FIRST_CHUNK] == _ABORT:
                self._engine.drain()  # what came before is told as it was
            self._engine.input(self.number, packet)

    def done(self) -> None:
        """No more packets come for now: answer them, and tell the observers, at once."""
        self._engine.drain()

    def close(self) -> None:
        """Abort the associations that are left, without telling their observers, and send no more. Idempotent."""
        if self.number:
            for association in list(self.associations):
                association.abort()
            self._engine.close_path(self)
            self.number = 0

    def put(self, packet: bytes) -> bool:
        """Add to what is sent next; True: it is the first."""
        self._batch.append(packet)
        return len(self._batch) == 1

    def flush(self) -> None:
        """Send what was put."""
        batch, self._batch = self._batch, []
        self.send(batch)


class Engine:
    """usrsctp, driven by one event loop at a time. Make none: use :data:`ENGINE`."""

    __slots__ = (
        "_attended",
        "_buffer",
        "_callbacks",
        "_clock",
        "_draining",
        "_fast",
        "_library",
        "_lively",
        "_loop",
        "_numbers",
        "_outgoing",
        "_paths",
        "_process",
        "_put_in",
        "_ready",
        "_soon",
        "_timer",
        "_turn",
        "_users",
        "buffers",
        "stalling",
        "waiting",
    )

    waiting: set[Attended]
    """Those for whom the timers must run fast, as far as is known."""

    stalling: set[Attended]
    """Those that must be looked after, lest they stop sending."""

    buffers: Buffers
    """Memory for single calls into the library."""

    def __init__(self) -> None:
        self._library: library.Library | None = None
        self._process = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = Turn()
        self._users = 0
        self._numbers = 0  # never used twice: a name of what is gone means nothing
        self._paths: dict[int, Path] = {}
        self._attended: dict[int, Attended] = {}
        self._ready: dict[Attended, None] = {}
        self._outgoing: list[Path] = []
        self._draining = False
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fast = False
        self._lively = 0
        self._clock = 0
        self._callbacks: tuple[Any, ...] = ()
        self._put_in: Callable[[int, bytes, int, int], None] = _nowhere
        self._buffer: Any = None
        self.waiting = set()
        self.stalling = set()

    # Users

    def acquire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be driven by ``loop`` until ``release``; paths and associations are only made in between.

        Raises OSError if there is no library, another loop that is not closed has it, or the process was forked."""
        if self._loop is not loop or self._library is None:
            reason = self.taken(loop)
            if reason is not None:
                raise OSError(errno.EBUSY, reason)
            if not self.shut_down():
                raise OSError(errno.EBUSY, "SCTP is still in use by an event loop that is closed")
            self._start()
            self._loop = loop
            self._turn = turns.of(loop)
        self._users += 1

    def taken(self, loop: asyncio.AbstractEventLoop | None) -> str | None:
        """Why this loop, or any if it is None, cannot have the engine now."""
        if self._library is not None and self._process not in (0, os.getpid()):
            return "SCTP was in use when this process was forked, and cannot be used in it"
        if self._loop is not loop and self._users and self._loop is not None and not self._loop.is_closed():
            return None if loop is None else "SCTP is in use by another event loop of this process"
        return None

    def release(self) -> None:
        """Undo one ``acquire``. The last one lets another loop have it."""
        self._users = max(0, self._users - 1)

    def path(
        self,
        send: Callable[[list[bytes]], None],
        mtu: int,
        accept: Callable[[Association], None] | None = None,
    ) -> Path:
        """A new way to a peer; see :class:`Path`. ``send`` never raises, and may be called until ``close`` returns."""
        path = Path(self, self._number(), send, mtu, accept)
        self._paths[path.number] = path
        self.library.c.usrsctp_register_address(path.number)
        return path

    def sockets(self) -> tuple[Attended, ...]:
        """All that is attended to."""
        return tuple(self._attended.values())

    def counts(self) -> tuple[int, int]:
        """How many paths there are, and how many sockets."""
        return len(self._paths), len(self._attended)

    @property
    def library(self) -> library.Library:
        """The library. Raises OSError when nobody has acquired it."""
        if self._library is None:
            raise OSError(errno.EBADF, "SCTP is not in use")
        return self._library

    def shut_down(self) -> bool:
        """Close whatever is open and end the library. False: it would not end. Harmless if it does not run."""
        if self._library is None:
            return True
        if self._process != os.getpid():
            return False
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()
        self._soon = self._timer = None
        self._fast = False
        self._lively = 0
        for attended in list(self._attended.values()):
            attended.discard()
        for path in list(self._paths.values()):
            self.close_path(path)
            path.number = 0
        self._users = 0
        self._loop = None
        self._ready.clear()
        self.waiting.clear()
        self.stalling.clear()
        return self._finish()

    # What is attended to

    def attach(self, attended: Attended) -> None:
        """Give it a number and hear of its socket's news from now on."""
        attended.number = self._number()
        self._attended[attended.number] = attended
        self.library.c.usrsctp_set_upcall(attended.sock, self._callbacks[1], attended.number)
        self.hasten()

    def detach(self, attended: Attended) -> None:
        """Forget it; its socket is closed by now, or by whoever calls."""
        self._attended.pop(attended.number, None)
        self._ready.pop(attended, None)
        self.waiting.discard(attended)
        self.stalling.discard(attended)

    def mark(self, attended: Attended) -> None:
        """Attend to it soon, though the library has not asked."""
        self._ready[attended] = None
        self.later()

    def path_of(self, number: int) -> Path | None:
        """The path of an AF_CONN address."""
        return self._paths.get(number)

    def close_path(self, path: Path) -> None:
        """Send what it holds, then know it no more."""
        if self._paths.pop(path.number, None) is not None:
            if path in self._outgoing:
                self._outgoing.remove(path)
                self._send(path)
            self.library.c.usrsctp_deregister_address(path.number)

    # What goes in and out

    def input(self, number: int, packet: bytes) -> None:
        """Give the library a packet of a path."""
        self._put_in(number, packet, len(packet), 0)
        self._lively = _LIVELY_TICKS
        if not self._fast:
            self.hasten()

    def sent(self, attended: Attended) -> None:
        """Something was handed to the library, whose packets leave at the end of what goes on."""
        self.waiting.add(attended)
        self._lively = _LIVELY_TICKS
        if not self._draining and self._soon is None:
            self.later()

    def await_timers(self, attended: Attended) -> None:
        """Look at it again when the timers run next, which they do fast."""
        self.waiting.add(attended)
        self.hasten()

    def later(self) -> None:
        """Drain soon."""
        if not self._fast:
            self.hasten()
        loop = self._loop
        if not self._draining and self._soon is None and loop is not None and not loop.is_closed():
            self._soon = loop.call_soon(self._drain_soon)

    def drain(self) -> None:
        """Send what the library has put out, attend to all that have news, and let those who wait for it go on.
        Called from the loop only; does nothing inside itself."""
        if self._draining:
            return
        self._draining = True
        turn = self._turn
        try:
            while self._ready:
                turn.active = True
                ready, self._ready = self._ready, {}
                for attended in ready:
                    self._attend(attended)
                turn.active = False
                if self._outgoing:
                    self._flush()
                if turn.waking:
                    turn.end()
            for attended in tuple(self.stalling) if self.stalling else ():
                attended.revive()
            if self._outgoing:
                self._flush()
        finally:
            turn.active = False
            self._draining = False
        if not self._fast and self._lively:
            self.hasten()

    def hasten(self) -> None:
        """Let the timers run fast for a while."""
        self._lively = _LIVELY_TICKS
        loop = self._loop
        if self._fast or loop is None or loop.is_closed() or not self._attended:
            return
        if self._timer is None:
            self._clock = _milliseconds()
        else:
            self._timer.cancel()
        self._fast = True
        self._timer = loop.call_later(FAST_TICK, self._tick)

    # Below

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _start(self) -> None:
        loaded = library.load()
        ffi = loaded.ffi
        if not self._callbacks:
            self._callbacks = (
                ffi.callback("conn_output", self._put_out, error=0),
                ffi.callback("upcall", self._has_news),
            )
            self.buffers = Buffers(loaded)
            atexit.register(self.shut_down)
        loaded.c.usrsctp_init_nothreads(0, self._callbacks[0], ffi.NULL)
        self._library = loaded
        self._put_in = loaded.c.usrsctp_conninput
        self._buffer = ffi.buffer
        self._process = os.getpid()

    def _finish(self) -> bool:
        """Sockets closed while their association ends are let go of by timers: a hundred such seconds are made."""
        c = self.library.c
        for _ in range(_FINISH_TRIES):
            if c.usrsctp_finish() == 0:
                self._library = None
                self._process = 0
                return True
            c.usrsctp_handle_timers(1000)
        return False

    def _put_out(self, number: int, packet: Any, length: int, tos: int, set_df: int) -> int:
        path = self._paths.get(number)
        if path is not None and path.put(self._buffer(packet, length)[:]):
            self._outgoing.append(path)
        return 0

    def _has_news(self, sock: Any, number: int, flags: int) -> None:
        attended = self._attended.get(number)
        if attended is not None:
            self._ready[attended] = None

    def _drain_soon(self) -> None:
        self._soon = None
        self.drain()

    def _flush(self) -> None:
        while self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            for path in outgoing:
                self._send(path)

    def _send(self, path: Path) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        try:
            path.flush()
        except Exception as error:
            self._complain("an SCTP path could not send", error)

    def _attend(self, attended: Attended) -> None:
        try:
            attended.attend()
        except Exception as error:
            self._complain("an SCTP observer failed", error)

    def _complain(self, message: str, error: Exception) -> None:
        if self._loop is not None:
            self._loop.call_exception_handler({"message": message, "exception": error})

    def _tick(self) -> None:
        self._timer = None
        if not self._attended:
            self._fast = False
            return
        now = _milliseconds()
        elapsed, self._clock = now - self._clock, now
        c = self.library.c
        c.usrsctp_handle_timers(elapsed)
        # What timers cause is only announced if it ends the association.
        for attended in self.waiting if self._fast else self._attended.values():
            if c.usrsctp_get_events(attended.sock) & (library.EVENT_READ | library.EVENT_ERROR):
                self._ready[attended] = None
        self.drain()
        self._lively -= 1
        if self._lively <= 0:
            self.waiting = {attended for attended in self.waiting if attended.busy()}
            self._lively = _LIVELY_TICKS if self.waiting else 0
        self._fast = self._lively > 0
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(FAST_TICK if self._fast else SLOW_TICK, self._tick)


class Buffers:
    """Memory that is used in one call into the library at a time, and the calls that are made for each Message.

    ``plain`` says how a whole, ordered, reliable message travels: only its ``plain_info.sid`` is ever changed."""

    __slots__ = (
        "address",
        "address_size",
        "flags",
        "info",
        "info_size",
        "info_type",
        "null",
        "plain",
        "plain_info",
        "receive",
        "send",
        "sending",
        "space",
        "status",
        "tell_events",
        "view",
    )

    def __init__(self, loaded: library.Library) -> None:
        new = loaded.ffi.new
        self.space = new("char[]", RECEIVE_SPACE)
        self.view = memoryview(loaded.ffi.buffer(self.space))
        self.info = new("struct sctp_rcvinfo *")
        self.info_size = new("socklen_t *")
        self.info_type = new("unsigned int *")
        self.flags = new("int *")
        self.address = new("struct sockaddr_conn *")
        self.address_size = new("socklen_t *")
        self.sending = new("struct sctp_sendv_spa *")
        self.status = new("struct sctp_status *")
        self.plain = new("struct sctp_sendv_spa *")
        self.plain.flags = library.SNDINFO_VALID
        self.plain_info = self.plain.sndinfo
        self.plain_info.flags = library.SEND_EOR
        self.null = loaded.ffi.NULL
        self.send = loaded.c.usrsctp_sendv
        self.receive = loaded.c.usrsctp_recvv
        self.tell_events = loaded.c.usrsctp_get_events


def _nowhere(number: int, packet: bytes, length: int, ecn: int) -> None:
    """Where packets go before the library is started."""


def _milliseconds() -> int:
    return int(time.monotonic() * 1000)


ENGINE = Engine()
