"""SCTP associations over one non-blocking usrsctp socket each, told of in Python's terms.

Whoever drives an :class:`Association` is its :class:`AssociationObserver`, which is only called from the loop, never
from inside a call it makes. Messages of any size are sent and received in pieces. This room knows the engine and its
paths; it knows nothing of what carries the packets or of Connections.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from neatpy.stacks._sctp import library as sctp
from neatpy.stacks._sctp import notifications, options
from neatpy.stacks._sctp.doubtful import Doubtful
from neatpy.stacks._sctp.engine import ENGINE, RECEIVE_SPACE, Attended
from neatpy.stacks._sctp.observer import AssociationObserver, Status

if TYPE_CHECKING:
    from neatpy.stacks._sctp.engine import Engine, Path
    from neatpy.stacks._sctp.options import Settings

LARGEST_REASON = 480
"""Most bytes of an abort's reason that are told."""

_REVIVALS = 64  # most heartbeats at once
_NUDGES = 16  # most heartbeats while one chunk, which may be lost, stays in flight
_MANY_PIECES = 64  # of one message
_SMALL_PIECE = 16384
_WAITS = (0.010, 0.040)  # seconds between reads from many pieces, and from twice as many
_MOST_RETRANSMISSIONS = 10000
_RCVINFO_SIZE = 28
_SPA_SIZE = 32
_CONN_SIZE = 16
_UNAVAILABLE = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM})
_MORE = sctp.EVENT_READ | sctp.EVENT_ERROR
_FULL = _UNAVAILABLE | {errno.EMSGSIZE}  # which says in addition that it is more than an empty buffer holds


class Association(Attended):
    """One association. Made by :meth:`connect`, or accepted by a path (:attr:`Path.accept`)."""

    __slots__ = (
        "_blocked",
        "_closing",
        "_engine",
        "_established",
        "_nudges",
        "_open",
        "_over",
        "_paused",
        "_pieces",
        "_read_at",
        "_used",
        "observer",
        "path",
    )

    observer: AssociationObserver
    path: Path

    def __init__(self, engine: Engine, sock: Any, path: Path, observer: AssociationObserver) -> None:
        self._engine = engine
        self.sock = sock
        self.number = 0
        self.path = path
        self.observer = observer
        self._blocked = self._closing = self._established = self._over = self._paused = False
        self._nudges = _NUDGES
        self._open: set[int] = set()  # streams with a message that was begun
        self._pieces: dict[int, int] = {}  # how many were read of the message that a stream is amid
        self._read_at = 0.0
        self._used: set[int] = set()  # streams that were sent on while there were any

    @classmethod
    def connect(
        cls, path: Path, port: int, observer: AssociationObserver, settings: Settings, local_port: int = 0
    ) -> Association:
        """Begin an association with an SCTP port of the peer; ``connected`` or ``closed`` follows. Raises OSError."""
        engine = ENGINE
        c = engine.library.c
        sock = options.new_socket(engine.library, settings, path.mtu)
        association = cls(engine, sock, path, observer)
        try:
            name = engine.library.conn_address(path.number, local_port)
            options.check(engine.library, c.usrsctp_bind(sock, name, _CONN_SIZE))
            engine.attach(association)
            name = engine.library.conn_address(path.number, port)
            if (
                c.usrsctp_connect(sock, name, _CONN_SIZE) < 0
                and engine.library.ffi.errno != errno.EINPROGRESS
            ):
                raise options.error(engine.library)
        except BaseException:
            engine.detach(association)
            c.usrsctp_close(sock)
            raise
        path.associations[association] = None
        engine.sent(association)
        return association

    @classmethod
    def adopt(cls, engine: Engine, sock: Any, path: Path) -> Association:
        """One that was accepted; its observer is still to be set."""
        association = cls(engine, sock, path, AssociationObserver())
        engine.library.c.usrsctp_set_non_blocking(sock, 1)
        options.set_path_mtu(engine.library, sock, path)
        engine.attach(association)
        path.associations[association] = None
        return association

    # Sending

    def send(
        self,
        stream: int,
        data: bytes | bytearray | memoryview,
        *,
        eor: bool = True,
        unordered: bool = False,
        ppid: int = 0,
        context: int = 0,
        lifetime_ms: int | None = None,
        max_retransmissions: int | None = None,
    ) -> int:
        """Hand over a piece of a message; ``eor``: its last. Gives the number of bytes taken, which may be 0; if that
        is less than all, the message goes on with the rest, and ``writable`` will say when.

        ``lifetime_ms`` or ``max_retransmissions``, of the first piece, makes the message partially reliable (RFC 3758);
        the lifetime counts from the first transmission at the earliest. Raises OSError: EINVAL for a stream that does
        not exist or that another stream's open message bars, else because the association is ending.
        """
        engine = self._engine
        if self._over or self._closing:
            raise OSError(errno.EPIPE, "the SCTP association is closed")
        ffi = engine.library.ffi
        how = engine.buffers.sending
        info = how.sndinfo
        info.sid = stream
        info.flags = (sctp.SEND_EOR if eor else 0) | (sctp.SEND_UNORDERED if unordered else 0)
        info.ppid = socket.htonl(ppid)
        info.context = context
        if lifetime_ms is None and max_retransmissions is None:
            how.flags = sctp.SNDINFO_VALID
        else:
            how.flags = sctp.SNDINFO_VALID | sctp.PRINFO_VALID
            by_time = max_retransmissions is None
            how.prinfo.policy = sctp.PR_TTL if by_time else sctp.PR_RTX
            how.prinfo.value = lifetime_ms if by_time else max_retransmissions
        size = len(data)
        memory = data if type(data) is bytes else ffi.from_buffer(data)
        taken: int = engine.library.c.usrsctp_sendv(
            self.sock, memory, size, ffi.NULL, 0, how, _SPA_SIZE, sctp.SENDV_SPA, 0
        )
        if taken < 0:
            if ffi.errno not in _FULL:
                raise options.error(engine.library)
            taken = 0
        if taken < size:
            self._blocked = True
        if taken and (self._open or taken < size or not eor):
            self._note_open(stream, taken == size and eor)
        engine.sent(self)
        return taken

    def send_whole(self, stream: int, data: bytes) -> int:
        """Like ``send`` of a whole ordered and reliable message without anything else: the quick way."""
        if self._over or self._closing or self._open:
            return self.send(stream, data)
        engine = self._engine
        memory = engine.buffers
        memory.plain_info.sid = stream
        size = len(data)
        null = memory.null
        taken: int = memory.send(self.sock, data, size, null, 0, memory.plain, _SPA_SIZE, sctp.SENDV_SPA, 0)
        if taken != size:
            return self._partly_taken(stream, taken)
        engine.sent(self)
        return taken

    def _partly_taken(self, stream: int, taken: int) -> int:
        engine = self._engine
        if taken < 0:
            if engine.library.ffi.errno not in _FULL:
                raise options.error(engine.library)
            taken = 0
        self._blocked = True
        if taken:
            self._note_open(stream, False)
        engine.sent(self)
        return taken

    def set_send_buffer(self, size: int) -> None:
        """How many bytes are taken that are not acknowledged yet; beyond what a whole message needs, more latency."""
        options.set_send_buffer(self._engine.library, self.sock, size)

    def ask_dry(self) -> None:
        """Ask for one call of the observer's ``dry``."""
        self._listen_for(sctp.SENDER_DRY_EVENT, True)
        self._engine.mark(self)

    def set_scheduler(self, scheduler: int) -> None:
        """Which stream's message is sent next (:class:`~neatpy.stacks._sctp.options.Scheduler`). Raises OSError."""
        options.set_value(self._engine.library, self.sock, sctp.PLUGGABLE_SS, scheduler, sctp.CURRENT_ASSOC)

    def set_stream_value(self, stream: int, value: int) -> None:
        """What the scheduler goes by: with PRIORITY, lower is sooner; with FAIR_BANDWIDTH it has no effect.
        Raises OSError."""
        options.set_stream_value(self._engine.library, self.sock, stream, value)

    def amid(self, stream: int) -> bool:
        """Whether a message was begun on this stream and not ended."""
        return stream in self._open

    @property
    def amid_any(self) -> bool:
        """Whether a message was begun on any stream and not ended."""
        return bool(self._open)

    # Receiving

    def pause(self) -> None:
        """Stop calling ``data``, which fills the window; other news waits behind it, except the end. Idempotent."""
        self._paused = True

    def resume(self) -> None:
        """Undo ``pause``. Idempotent."""
        if self._paused:
            self._paused = False
            if not self._over:
                self._engine.mark(self)

    # Streams

    def reset(self, streams: tuple[int, ...]) -> None:
        """Let outgoing streams start anew once all that was sent on them is delivered (RFC 6525); ``stream_reset``
        follows. Raises OSError: EALREADY while an earlier reset is under way, EOPNOTSUPP if the peer cannot."""
        options.reset_streams(self._engine.library, self.sock, streams)
        self._engine.sent(self)

    def add_streams(self, count: int) -> None:
        """Ask for so many more outgoing streams; ``streams_added`` or ``streams_denied`` follows. Raises OSError."""
        options.add_streams(self._engine.library, self.sock, count)
        self._engine.sent(self)

    # State

    def status(self) -> Status | None:
        """What is measured, or None when there is nothing to measure yet or any more."""
        if self._over:
            return None
        found = options.read_status(self._engine.library, self.sock, self._engine.buffers.status)
        if found is None:
            return None
        primary = found.primary
        return Status(
            established=self._established,
            rtt=primary.srtt / 1000,
            rto=primary.rto / 1000,
            congestion_window=primary.cwnd,
            peer_window=found.rwnd,
            mtu=primary.mtu,
            fragmentation_point=found.fragmentation_point,
            unacknowledged=found.unackdata,
            incomplete=found.penddata,
            streams_in=found.instrms,
            streams_out=found.outstrms,
        )

    def undelivered(self) -> int:
        """Bytes that the peer has not acknowledged yet, sent or not."""
        return 0 if self._over else options.read_undelivered(self._engine.library, self.sock)

    def set_heartbeat(self, seconds: float | None) -> None:
        """How often an idle peer is asked whether it is there; None: never."""
        options.set_heartbeat(self._engine.library, self.sock, self.path, seconds)

    def set_timeout(self, seconds: float | None) -> None:
        """How long a peer may leave what was sent unacknowledged before it is given up, which is looked at with each
        retransmission; None: the time of the ``Settings``."""
        settings = options.Settings()
        count, waited, timeout = 0, 0.0, settings.rto_min / 1000
        while seconds is not None and waited < seconds and count < _MOST_RETRANSMISSIONS:
            count += 1
            waited += timeout
            timeout = min(2 * timeout, settings.rto_max / 1000)
        options.set_retransmissions(
            self._engine.library,
            self.sock,
            settings.retransmissions if seconds is None else max(1, count - 1),
        )

    def revive(self) -> None:
        """Have the library go on sending where it has stopped for no reason.

        Its schedulers stop at a stream whose open message has nothing left to send, though others have, and go on with
        the next stream at the next occasion. Without anything in flight there is none, and with one chunk it is a
        delayed acknowledgement: a heartbeat is one, and brings the acknowledgement with its answer."""
        for _ in range(min(len(self._open), _REVIVALS) + 1):
            found = options.read_status(self._engine.library, self.sock, self._engine.buffers.status)
            if found is None or found.unackdata > 1:
                return
            if found.unackdata:
                self._nudges -= 1
                if self._nudges >= 0:
                    options.demand_heartbeat(self._engine.library, self.sock, self.path)
                return
            self._nudges = _NUDGES
            options.demand_heartbeat(self._engine.library, self.sock, self.path)
        self._used = set(self._open)
        self._engine.stalling.discard(self)

    def busy(self) -> bool:
        if not self._established or self._closing:
            return True
        found = options.read_status(self._engine.library, self.sock, self._engine.buffers.status)
        return found is not None and bool(found.unackdata)

    # Ending

    def close(self) -> None:
        """Deliver what was sent, discard what comes, then ``closed``. The path must stay a while longer than that, to
        answer a peer that has missed the last packet. What is not established is aborted. Idempotent."""
        if self._closing or self._over:
            return
        if not self._established:
            self.abort()
            return
        self._closing = True
        self._engine.library.c.usrsctp_shutdown(self.sock, socket.SHUT_WR)
        self._engine.sent(self)
        self._engine.mark(self)

    def abort(self, reason: bytes = b"") -> None:
        """End at once; the peer is told the reason. ``closed`` is not called. Idempotent."""
        if self._over:
            return
        engine = self._engine
        if reason and self._established:
            how = engine.buffers.sending
            how.flags = sctp.SNDINFO_VALID
            how.sndinfo.sid = 0
            how.sndinfo.flags = sctp.SEND_ABORT
            reason = reason[:LARGEST_REASON]
            engine.library.c.usrsctp_sendv(
                self.sock, reason, len(reason), engine.library.ffi.NULL, 0, how, _SPA_SIZE, sctp.SENDV_SPA, 0
            )
        self._release()
        engine.later()

    def discard(self) -> None:
        self._release()

    # News

    def attend(self) -> None:
        if self._over:
            return
        events = self._engine.buffers.tell_events(self.sock)
        # A broken association says so at once: there is no more than one window of data to tell first.
        if events & sctp.EVENT_READ and (not self._paused or self._closing or events & sctp.EVENT_ERROR):
            broken = bool(events & sctp.EVENT_ERROR)
            if broken or not self._pieces or not self._better_later():
                self._read(broken)
        if self._blocked and not self._over and not self._closing and events & sctp.EVENT_WRITE:
            self._blocked = False
            self.observer.writable()

    def _read(self, to_the_end: bool) -> None:
        engine = self._engine
        memory = engine.buffers
        receive, tell_events, null = memory.receive, memory.tell_events, memory.null
        space, view, flags, info = memory.space, memory.view, memory.flags, memory.info
        info_size, info_type = memory.info_size, memory.info_type
        doubtful: Doubtful | None = None
        failure = 0
        while not self._paused or self._closing or to_the_end:
            info_size[0] = _RCVINFO_SIZE
            flags[0] = 0
            size = receive(self.sock, space, RECEIVE_SPACE, null, null, info, info_size, info_type, flags)
            if size < 0:
                failure = engine.library.ffi.errno
                break
            how = flags[0]
            if how & sctp.MSG_NOTIFICATION:
                news = bytes(view[:size])
                if doubtful is not None:
                    doubtful.news_follow(news)
                if not self._over:
                    self._notified(news, to_the_end)
            elif not size:
                break  # the peer has shut down; what follows is a notification
            elif not self._closing:
                stream, payload = info.sid, bytes(view[:size])
                unordered, ppid = bool(info.flags & sctp.SEND_UNORDERED), socket.ntohl(info.ppid)
                complete = bool(how & sctp.MSG_EOR)
                if doubtful is not None:
                    doubtful.data_follow(stream)
                if not complete or stream in self._pieces:
                    self._note_piece(stream, size, complete)
                more = not self._over and tell_events(self.sock) & _MORE
                if complete and (more or to_the_end):
                    if doubtful is None:
                        doubtful = Doubtful(self._tell_data, broken=to_the_end)
                    doubtful.add((stream, payload, unordered, ppid))
                else:
                    self._tell_data(stream, payload, unordered, ppid, complete)
                if not more:
                    break
                continue
            if self._over or not tell_events(self.sock) & _MORE:
                break
        if doubtful is not None:
            doubtful.nothing_follows()
        if failure and failure not in _UNAVAILABLE and not self._over:
            self._broken(failure)

    def _note_piece(self, stream: int, size: int, complete: bool) -> None:
        if complete:
            del self._pieces[stream]
            return
        count = self._pieces[stream] = self._pieces.get(stream, 0) + 1
        if count >= _MANY_PIECES and size < _SMALL_PIECE:
            self._read_at = time.monotonic() + (_WAITS[1] if count >= 2 * _MANY_PIECES else _WAITS[0])

    def _better_later(self) -> bool:
        """The library counts in a byte how often it was read from a message, and leaves one whose count is 0 again for
        when all others before it have ended: where pieces are small, let some come together first."""
        if time.monotonic() >= self._read_at:
            return False
        self._engine.await_timers(self)
        return True

    def _tell_data(self, stream: int, payload: bytes, unordered: bool, ppid: int, complete: bool) -> None:
        if not self._over:
            self.observer.data(stream, payload, unordered, ppid, complete)

    def _notified(self, notification: bytes, broken: bool) -> None:
        kind, flags = notifications.kind_of(notification)
        handler = _HANDLERS.get(kind)
        if handler is not None and not (broken and kind == sctp.PARTIAL_DELIVERY_EVENT):
            handler(self, notification, flags)

    def _association_changed(self, notification: bytes, flags: int) -> None:
        change = notifications.association_change(notification)
        if change.state == sctp.COMM_UP:
            self._established = True
            interleaving = sctp.SUPPORTS_INTERLEAVING in change.info
            self.observer.connected(change.streams_out, change.streams_in, interleaving)
        elif change.state == sctp.SHUTDOWN_COMP:
            self._ended(None)
        elif change.state == sctp.RESTART:
            self._ended(OSError(errno.ECONNABORTED, "the SCTP peer was started anew"))
        elif change.state in (sctp.COMM_LOST, sctp.CANT_STR_ASSOC):
            number = options.pending_error(self._engine.library, self.sock)
            _, reason = notifications.abort_reason(change.info)
            self._broken(number or errno.ECONNABORTED, reason)

    def _path_changed(self, notification: bytes, flags: int) -> None:
        state = notifications.path_state(notification)
        if state in (sctp.ADDR_AVAILABLE, sctp.ADDR_UNREACHABLE):
            self.observer.path_changed(state == sctp.ADDR_AVAILABLE)

    def _remote_error(self, notification: bytes, flags: int) -> None:
        self.observer.remote_error(notifications.remote_error(notification))

    def _peer_shut_down(self, notification: bytes, flags: int) -> None:
        self._engine.waiting.add(self)
        if not self._closing:
            self.observer.peer_shutdown()

    def _delivery_aborted(self, notification: bytes, flags: int) -> None:
        stream = notifications.unended(notification)
        if stream is not None:
            self.observer.data_abandoned(stream)

    def _streams_reset(self, notification: bytes, flags: int) -> None:
        if flags & (sctp.RESET_DENIED | sctp.RESET_FAILED):
            self.observer.stream_reset_failed(bool(flags & sctp.RESET_DENIED))
            return
        streams = notifications.streams_reset(notification) or (-1,)
        self.observer.stream_reset(
            streams if flags & sctp.RESET_INCOMING else (), streams if flags & sctp.RESET_OUTGOING else ()
        )

    def _ran_dry(self, notification: bytes, flags: int) -> None:
        self._listen_for(sctp.SENDER_DRY_EVENT, False)
        self.observer.dry()

    def _streams_changed(self, notification: bytes, flags: int) -> None:
        if flags & (sctp.CHANGE_DENIED | sctp.CHANGE_FAILED):
            self.observer.streams_denied()
            return
        self.observer.streams_added(*notifications.stream_counts(notification))

    def _send_failed(self, notification: bytes, flags: int) -> None:
        failed = notifications.send_failed(notification)
        self.observer.send_failed(failed.context, failed.error)

    def _broken(self, number: int, reason: bytes = b"") -> None:
        text = os.strerror(number)
        if reason:
            text = f"{text}: {reason.decode('utf-8', 'replace')}"
        self._ended(OSError(number, text), reason)

    def _ended(self, error: OSError | None, reason: bytes = b"") -> None:
        self._release()
        self.observer.closed(error, reason)

    # Below

    def _note_open(self, stream: int, complete: bool) -> None:
        if complete:
            self._open.discard(stream)
        else:
            self._open.add(stream)
        self._used.add(stream)
        self._nudges = _NUDGES
        if len(self._used) > 1:
            self._engine.stalling.add(self)
        if not self._open:
            self._used.clear()
            self._engine.stalling.discard(self)

    def _listen_for(self, event: int, on: bool) -> None:
        options.subscribe(self._engine.library, self.sock, event, on, sctp.CURRENT_ASSOC)

    def _release(self) -> None:
        if not self._over:
            self._over = True
            self._engine.detach(self)
            self.path.associations.pop(self, None)
            library = self._engine.library
            sock, self.sock = self.sock, library.ffi.NULL  # any later use of it is an error, not a crash
            options.close_at_once(library, sock)


_HANDLERS = {
    sctp.ASSOC_CHANGE: Association._association_changed,
    sctp.PEER_ADDR_CHANGE: Association._path_changed,
    sctp.REMOTE_ERROR: Association._remote_error,
    sctp.SHUTDOWN_EVENT: Association._peer_shut_down,
    sctp.PARTIAL_DELIVERY_EVENT: Association._delivery_aborted,
    sctp.STREAM_RESET_EVENT: Association._streams_reset,
    sctp.SENDER_DRY_EVENT: Association._ran_dry,
    sctp.STREAM_CHANGE_EVENT: Association._streams_changed,
    sctp.SEND_FAILED_EVENT: Association._send_failed,
}
