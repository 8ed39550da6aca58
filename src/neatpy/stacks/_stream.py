"""A Flow over one kernel byte stream (TCP, and what looks like it), on a non-blocking socket of our own.

The loop says when the socket can be read or written; everything else happens here. So what the kernel has not taken is
known exactly, which is what Sent means, and a connection costs no more turns of the loop than the network takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from typing import TYPE_CHECKING, Any

from neatpy.errors import ConnectionError, PropertyError, Reason, TransportServicesError
from neatpy.stacks.contract import Address, Data, Flow, FlowObserver
from neatpy.system import options
from neatpy.system.streams import OpenStreams

if TYPE_CHECKING:
    from neatpy.message import MessageContext
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Stack

LINGER = 10.0
"""Seconds that ``close`` waits for the peer to acknowledge more of what was sent before it gives up."""

LINGER_IN_ALL = 120.0
"""Seconds after which ``close`` gives up even on a peer that acknowledges a little now and then."""

_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)
"""What a kernel says of an established connection that timed out when it knows why the peer did not answer: by
themselves these end no connection (RFC 9293 section 3.9.2.2)."""

_JOIN_LIMIT = 64 * 1024
_MOST_PIECES = 64
_LEAST_READ = 479
"""Bytes asked for while only little comes at a time: an object so small costs the interpreter no search for memory."""
_FIRST_READ, _LARGE_READ = _LEAST_READ << 5, 256 * 1024

_QUIET_READS = 6
"""Reads after which a connection counts as busy, so that it pays to have the loop itself read it."""

_FIRST_POLL, _SLOWEST_POLL = 0.001, 0.1
_UNBOUND = FlowObserver()


class StreamFlow(Flow):
    """One TCP connection."""

    __slots__ = (
        "_closing",
        "_corked",
        "_error",
        "_finishing",
        "_hung_up",
        "_local",
        "_loop",
        "_open",
        "_paused",
        "_properties",
        "_quiet_reads",
        "_read_size",
        "_remote",
        "_remote_finished",
        "_sock",
        "_stack",
        "_streams",
        "_tokens",
        "_turn",
        "_unsent",
        "writable",
    )

    def __init__(
        self,
        stack: Stack,
        observer: FlowObserver,
        properties: TransportProperties,
        loop: asyncio.AbstractEventLoop,
        streams: OpenStreams,
        sock: socket.socket,
        remote: tuple[Any, ...],
        local: tuple[Any, ...] | None = None,
    ) -> None:
        """Take over this connected socket, whose own name is ``local`` if that is known. Reading begins with
        :meth:`start`."""
        self._stack = stack
        self._loop = loop
        self._streams = streams
        self._turn = streams.turn
        self.observer = observer
        self._properties = properties
        self._sock = sock
        self._local = local
        self._remote = remote
        self._read_size = _FIRST_READ
        self._quiet_reads = _QUIET_READS
        self.writable = self._open = True
        self._tokens: list[object] | None = None
        self._corked: list[bytes] | None = None
        self._unsent: list[bytes | memoryview] | None = None
        self._closing: _Closing | None = None
        self._error: OSError | None = None
        self._finishing = self._paused = self._hung_up = False
        self._remote_finished = False

    def start(self) -> None:
        """Read from now on."""
        descriptor = self._sock.fileno()
        self._streams.add(descriptor, self)
        if not self._streams.watches:
            self._have_the_loop_read()

    @property
    def stack(self) -> Stack:
        return self._stack

    @property
    def socket(self) -> socket.socket:
        """The socket, for options; nobody else sends, receives or closes."""
        return self._sock

    @property
    def local_address(self) -> Address:
        if self._local is None:
            self._local = self._sock.getsockname()
        return Address.of(self._local)

    @property
    def remote_address(self) -> Address:
        return Address.of(self._remote)

    # Sending

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        if type(data) is not bytes:
            data = bytes(data)
        if self._corked is not None:
            self._corked.append(data)
        else:
            try:
                taken = self._sock.send(data)
            except OSError as error:
                taken = self._not_taken(error)
            if taken == len(data):
                return True
            self._keep([memoryview(data)[taken:] if taken > 0 else data])
        if self._tokens is None:
            self._tokens = [token]
        else:
            self._tokens.append(token)
        return False

    @property
    def coalesces(self) -> bool:
        return True

    def cork(self) -> None:
        if self._corked is None:
            self._corked = []

    def uncork(self) -> None:
        corked, self._corked = self._corked, None
        if corked:
            unsent = self._write([*joined(corked)])
            if unsent:
                self._keep(unsent)
            else:
                self._all_taken()

    def _write(self, pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """Hand over as much as the kernel takes; returns the rest."""
        while pieces:
            run = pieces[:_MOST_PIECES]
            try:
                taken = self._sock.sendmsg(run) if len(run) > 1 else self._sock.send(run[0])
            except OSError as error:
                self._not_taken(error)
                return pieces
            for whole, piece in enumerate(run):
                if taken < len(piece):
                    return [memoryview(piece)[taken:], *pieces[whole + 1 :]]
                taken -= len(piece)
            pieces = pieces[len(run) :]
        return pieces

    def _not_taken(self, error: OSError) -> int:
        """The kernel takes nothing now. If it never will, reading goes on to the end: what came before still counts."""
        if self._error is None and not isinstance(error, BlockingIOError | InterruptedError):
            self._error = error
            self._loop.call_soon(self._broke, error)
        return -1

    def _keep(self, unsent: list[bytes | memoryview]) -> None:
        self.writable = False
        self._unsent = unsent
        if not self._hung_up:
            self._loop.add_writer(self._sock.fileno(), self._write_on)

    def _write_on(self) -> None:
        """The kernel takes more."""
        unsent = self._write(self._unsent or [])
        self._unsent = unsent or None
        if unsent or not self._open:
            return
        self._loop.remove_writer(self._sock.fileno())
        self.writable = True
        if self._finishing:
            self._shut_down()
        self._all_taken()
        if self.writable and self._closing is None:
            self.observer.writable()

    def _all_taken(self) -> None:
        tokens, self._tokens = self._tokens, None
        if tokens:
            sent = self.observer.sent
            for token in tokens:
                sent(token)

    # Receiving

    def pause_receiving(self) -> None:
        if not self._paused and self._closing is None:
            self._paused = True
            if self._open and not self._remote_finished:
                self._read_on(False)

    def resume_receiving(self) -> None:
        if not self._paused:
            return
        self._paused = False
        if self._hung_up:
            self._loop.call_soon(self._read_to_the_end)
        elif self._open and not self._remote_finished:
            self._read_on(True)

    def _read_on(self, wanted: bool) -> None:
        descriptor = self._sock.fileno()
        if self._quiet_reads:
            self._streams.watch_reading(descriptor, wanted)
        elif wanted:
            self._loop.add_reader(descriptor, self._read)
        else:
            self._loop.remove_reader(descriptor)

    def _have_the_loop_read(self) -> None:
        self._quiet_reads = 0
        self._loop.add_reader(self._sock.fileno(), self._read)

    def readable(self) -> None:
        """See :class:`OpenStreams`, which watches a connection as long as it is quiet."""
        if not self._open:
            return
        self._quiet_reads -= 1
        if not self._quiet_reads:
            self._streams.watch_reading(self._sock.fileno(), False)
            self._have_the_loop_read()
        self._read()

    def _read(self) -> None:
        limit = self._read_size
        try:
            data = self._sock.recv(limit)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        if not data:
            self._end_of_stream()
            return
        if limit != _LEAST_READ or len(data) == limit:
            self._adapt_to(len(data), limit)
        if self._closing is None:
            turn = self._turn
            turn.active = True
            self.observer.received(data, None, False, True)
            turn.active = False
            if turn.waking:
                turn.end()

    def _adapt_to(self, size: int, limit: int) -> None:
        """Ask for more when all that was asked for has come, for less when far less has."""
        if size == limit:
            self._read_size = min(limit * 4, _LARGE_READ)
        elif size < limit >> 3:
            self._read_size = max(limit >> 1, _LEAST_READ)

    def read_early(self) -> bytes:
        """What there is to read before anything was told; nothing once the Flow is closing, or not to be read."""
        if not self._open or self._closing is not None or self._paused:
            return b""
        try:
            return self._sock.recv(self._read_size)
        except OSError:
            return b""  # the usual way of reading meets it again

    def _end_of_stream(self) -> None:
        self._remote_finished = True
        if self._error is not None:
            self._lost(self._error)  # the kernel tells of it once, and has told the one who wrote
            return
        if self._closing is not None and self._closing.reported:
            self._release()
            return
        self._read_on(False)
        if self._closing is None:
            self.observer.finished()

    def hung_up(self) -> None:
        """The kernel has given the connection up (see :class:`OpenStreams`): read what there is, then the error. The
        loop may not tell any more when there is something to read."""
        if not self._hung_up and self._open:
            self._hung_up = True
            descriptor = self._sock.fileno()
            self._streams.watch_reading(descriptor, False)
            if not self._quiet_reads:
                self._loop.remove_reader(descriptor)
            if self._unsent is not None:
                self._loop.remove_writer(descriptor)
            self._read_to_the_end()

    def abandon(self) -> None:
        """See :class:`OpenStreams`."""
        if self._open:
            self._release()

    def _read_to_the_end(self) -> None:
        if self._remote_finished:
            self._lost(self._error)
        elif self._open and not self._paused:
            self._read()
            if self._open:
                self._loop.call_soon(self._read_to_the_end)

    def _broke(self, error: OSError) -> None:
        """A write has failed. Whoever is not reading hears of it now."""
        if self._open and (self._paused or self._remote_finished):
            self._lost(error)

    # Ending

    def finish(self) -> None:
        if not self._finishing:
            self._finishing = True
            if self._unsent is None:
                self._shut_down()

    def close(self) -> None:
        if self._closing is None:
            self.resume_receiving()
            self._closing = _Closing(self)
            if self._open:
                self._streams.closing(self._sock)
            if not self._remote_finished:  # else closing the socket says all there is to say
                self.finish()

    def abort(self) -> None:
        self.observer = _UNBOUND
        if self._closing is not None:
            self._closing.cancel()
        if self._open:
            with contextlib.suppress(OSError):  # the connection may be gone already
                options.abort_on_close(self._sock)
            self._release()

    def _shut_down(self) -> None:
        try:  # noqa: SIM105 - at every close, and a context manager costs more than the system call
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer has reset the connection already

    def _release(self) -> None:
        """Give the socket back."""
        self.writable = self._open = False
        sock, loop = self._sock, self._loop
        if self._local is None:
            try:
                self._local = sock.getsockname()
            except OSError:
                self._local = ()
        descriptor = sock.fileno()
        if not self._quiet_reads:
            loop.remove_reader(descriptor)
        if self._unsent is not None:
            loop.remove_writer(descriptor)
            self._unsent = None
        self._streams.remove(descriptor)
        sock.close()

    def _lost(self, error: OSError | None) -> None:
        """The connection is no more."""
        closing, observer = self._closing, self.observer
        self.observer = _UNBOUND
        self._release()
        if closing is not None:
            closing.cancel()
            if closing.reported:
                return
        observer.closed(broken(error))

    # Properties

    def apply(self, name: str, value: object) -> None:
        option = options.STREAM_OPTIONS.get(name)
        if option is None:
            return
        changed = self._properties.snapshot()
        changed.set(name, value)
        try:
            option(self._sock, value, changed)
        except OSError as error:
            raise PropertyError(
                f"{name} = {value!r}: the kernel refuses it ({error.strerror or error})"
            ) from error
        self._properties = changed

    def backlog(self) -> int:
        if not self._open:
            return 0
        kept = sum(map(len, self._unsent)) if self._unsent else 0
        return kept + options.unacknowledged(self._sock.fileno())

    def read(self, name: str) -> object:
        return sys.maxsize if name in ("send_msg_max_len", "recv_msg_max_len") else None

    def statistics(self) -> dict[str, float]:
        return options.tcp_statistics(self._sock) if self._open else {}


class _Closing:
    """The last part of a Flow's life: what was sent is delivered, what arrives is discarded.

    Closed is reported once the peer has acknowledged all data; the socket lives on for a while if the peer is still
    sending, because closing it then would reset the peer and could destroy what it has not read yet.
    """

    __slots__ = ("_deadline", "_flow", "_handle", "_interval", "_last", "_started", "reported")

    def __init__(self, flow: StreamFlow) -> None:
        self._flow = flow
        self.reported = False
        self._interval = 0.0
        self._handle: asyncio.Handle = flow._loop.call_soon(self._poll)

    def cancel(self) -> None:
        self._handle.cancel()

    def _poll(self) -> None:
        flow = self._flow
        outstanding = flow.backlog()
        loop = flow._loop
        if outstanding <= 1:  # the FIN itself may still be on its way
            self._report(None)
            if flow._remote_finished:
                flow._release()
            else:
                flow._streams.linger(flow._sock)
            return
        now = loop.time()
        if not self._interval:
            self._interval, self._last, self._started = _FIRST_POLL, -1, now
        if outstanding != self._last:
            self._last = outstanding
            self._deadline = min(now + LINGER, self._started + LINGER_IN_ALL)
        if now >= self._deadline:
            self._report(
                ConnectionError(
                    f"the peer did not acknowledge the last {outstanding} bytes in time", Reason.TIMEOUT
                )
            )
            flow.abort()
            return
        self._handle = loop.call_later(self._interval, self._poll)
        self._interval = min(self._interval * 2, _SLOWEST_POLL)

    def _report(self, error: TransportServicesError | None) -> None:
        self.reported = True
        observer, self._flow.observer = self._flow.observer, _UNBOUND
        observer.closed(error)


def joined(pieces: list[bytes]) -> list[bytes]:
    """Small pieces joined and large ones left alone, so that neither system calls nor copies are wasted."""
    if len(pieces) == 1:
        return pieces
    result: list[bytes] = []
    run: list[bytes] = []
    for piece in pieces:
        if len(piece) < _JOIN_LIMIT:
            run.append(piece)
            continue
        if run:
            result.append(b"".join(run))
            run = []
        result.append(piece)
    if run:
        result.append(b"".join(run))
    return result


def broken(error: BaseException | None) -> TransportServicesError:
    """The end of a TCP connection as a ConnectionError with its reason."""
    if isinstance(error, TransportServicesError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
        reason, text = Reason.TIMEOUT, "the connection timed out"
    elif isinstance(error, OSError) and error.errno in _UNREACHABLE:
        reason, text = Reason.TIMEOUT, f"the connection timed out: {error.strerror}"
    elif error is None or isinstance(error, ConnectionResetError | BrokenPipeError):
        reason, text = Reason.CONNECTION_ABORTED, "the peer aborted the connection"
    else:
        reason, text = Reason.PROTOCOL_FAILED, f"the connection broke: {error}"
    result = ConnectionError(text, reason)
    result.__cause__ = error
    return result
