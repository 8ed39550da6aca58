"""The adapter to aioquic's protocol engine: with its :mod:`~neatpy.stacks._quic.engine_streams` the only room that
touches the engine, its private names included.

An :class:`Engine` is one QUIC connection without socket and clock. What it lacks for a transport system is added here:
receive credit by what the application has taken (the engine's own doubles by itself), a walk over the streams that have
something to do instead of all of them, an order of service, peers that must show certificates, larger packets where the
path takes them. Another engine needs another such room, and nothing else.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.connection import QuicConnection, QuicConnectionAdapter
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop
from cryptography.hazmat.primitives.serialization import Encoding

from neatpy.stacks._quic.engine_streams import (
    LARGEST_STREAM_WINDOW,
    SMALLEST_DATAGRAM,
    STREAM_WINDOW,
    Credit,
    EngineStream,
    StreamQueue,
    StreamTable,
)
from neatpy.stacks._quic.pacing import Pacer
from neatpy.stacks._quic.resets import is_reset
from neatpy.stacks._sharing import UNREAD_BY_ALL

if TYPE_CHECKING:
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.stream import QuicStream

CONNECTION_WINDOW = UNREAD_BY_ALL
"""Bytes that the peer may send on all streams together, beyond what the application has taken."""

CONNECTION_ID_LENGTH = 8

_SHORT_HEADER, _FRAME_HEADER = 1 + 20 + 2 + 16, 1 + 8
_MTU_PROBES = 3
_LOST_BURSTS, _UNANSWERED = 3, 2
_RANGES_WITH_CLOSE = 32
_ACKED = QuicDeliveryState.ACKED
_IS_LAST, _HAS_LENGTH, _HAS_OFFSET = 1, 2, 4  # in the type of a STREAM frame (RFC 9000 section 19.8)

# What a stranger sends is nothing to print on a program's standard error, unless the program sets logging up.
logging.getLogger("quic").addHandler(logging.NullHandler())


class EngineObserver:
    """What the protocol has to tell. The methods here do nothing."""

    __slots__ = ()

    def handshake_complete(self, early_data_accepted: bool, resumed: bool) -> bool:
        """Both sides have finished; the peer's certificate is not judged yet. True if what came after it may be told
        too; else it is kept for the next time."""
        return True

    def stream_data(self, stream: int, data: bytes, ended: bool) -> None:
        """The next bytes of a stream, in order. ``ended``: there are no more."""

    def stream_opened(self, stream: int) -> None:
        """The peer opened this stream, perhaps without any data."""

    def stream_reset(self, stream: int, code: int) -> None:
        """The peer gave up sending on this stream; what was not received is lost."""

    def stop_asked(self, stream: int, code: int) -> None:
        """The peer wants nothing more of this stream, whose sending side is reset for that."""

    def stream_delivered(self, stream: int) -> None:
        """The peer has acknowledged all of this stream, its end included, or our reset of it."""

    def datagram(self, data: bytes) -> None:
        """An unreliable datagram (RFC 9221)."""

    def connection_id_issued(self, connection_id: bytes) -> None:
        """The peer may use this connection id for us from now on."""

    def connection_id_retired(self, connection_id: bytes) -> None:
        """The peer will not use this connection id any more."""

    def peer_id_changed(self, reset_token: bytes) -> None:
        """The peer is addressed by another connection id from now on; the token is what resets it."""

    def pong(self) -> None:
        """A ping was acknowledged."""


class _Unheard(QuicConnectionAdapter):
    """For debug messages of each stream that nobody wants: the usual way to find out takes three calls."""

    def debug(self, *_: object, **__: object) -> None:
        pass


class Closing:
    """Why a connection ends. ``application``: by the peer's program, or ours, and not the protocol's doing. ``lost``:
    the peer knows nothing of it any more, and has said so by a stateless reset."""

    __slots__ = ("application", "code", "lost", "reason")

    def __init__(self, code: int, application: bool, reason: str, lost: bool = False) -> None:
        self.code = code
        self.application = application
        self.reason = reason
        self.lost = lost

    @property
    def alert(self) -> int | None:
        """The TLS alert that this code stands for (RFC 9001 section 4.8), or None."""
        base = int(QuicErrorCode.CRYPTO_ERROR)
        return self.code - base if not self.application and base <= self.code < base + 256 else None

    @property
    def idle(self) -> bool:
        """Whether nothing was heard for too long."""
        return self.reason == "Idle timeout"


class Engine(QuicConnection):
    """One QUIC connection. ``order`` sorts the streams that have something to send (None: in turns); ``reset_token``
    gives the tokens of our connection ids (None: random ones, since nobody will use them)."""

    observer: EngineObserver
    order: Callable[[int, int], float] | None
    taken: Callable[[int, int], None]
    """To be told the number of a stream and how many bytes of it the application has taken: the peer may send as many
    more."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        streams: int,
        groups: list[Any],
        signatures: list[Any],
        reset_token: Callable[[bytes], bytes] | None = None,
        **more: Any,
    ) -> None:
        self.order = None
        self._groups, self._signatures = groups, signatures
        self._asks_peer = False
        self.takes_early = True
        self._reset_token, self._is_lost = reset_token, False
        self._table = StreamTable(self._pace)
        super().__init__(configuration=configuration, **more)
        self._streams = self._table
        self._streams_queue = []
        self._local_max_data = self._table.connection = Credit(self._local_max_data, configuration.max_data)
        self.limit_streams(streams)
        self._told_ids = {self.host_cid}
        self._give_token(self._host_cids[0])
        self.taken = self._table.credit
        if not self._logger.isEnabledFor(logging.DEBUG):
            self._logger = _Unheard(self._logger.logger, self._logger.extra)
        self._pacer = self._loss._pacer = Pacer(max_datagram_size=self._max_datagram_size)
        self._mtu_wanted = 0
        self._mtu_probes = 0
        self._is_probing = False
        self._large_bursts = 0

    def _pace(self) -> tuple[float, float]:
        came_at: Any = self._spaces[tls.Epoch.ONE_RTT].largest_received_time
        return came_at or 0.0, self._loss._rtt_smoothed

    # What it is

    @property
    def ids(self) -> Iterable[bytes]:
        """The connection ids by which the peer may address us."""
        return [known.cid for known in self._host_cids]

    @property
    def closing(self) -> Closing | None:
        """Why it ends, once it does."""
        event = self._close_event
        if event is None:
            return None
        code = int(event.error_code)
        # Before the handshake is complete an application's code is hidden (RFC 9000 section 10.2.3).
        application = event.frame_type is None or code == QuicErrorCode.APPLICATION_ERROR
        return Closing(code, application, event.reason_phrase, self._is_lost)

    @property
    def closed_by_peer(self) -> bool:
        """Whether a CONNECTION_CLOSE of the peer came first."""
        return self._close_event is not None and not self._close_pending and self._state.name == "DRAINING"

    @property
    def over(self) -> bool:
        """Whether nothing more is to be sent or received."""
        return bool(self._state.name == "TERMINATED")

    @property
    def is_complete(self) -> bool:
        """Whether the handshake is complete."""
        return bool(self._handshake_complete)

    @property
    def is_confirmed(self) -> bool:
        """Whether both sides know that it is."""
        return bool(self._handshake_confirmed)

    @property
    def may_send_early(self) -> bool:
        """Whether data sent now travel before the handshake is complete (0-RTT)."""
        return not self._handshake_complete and bool(
            self._cryptos and self._cryptos[tls.Epoch.ZERO_RTT].send.is_valid()
        )

    def peer_chain(self) -> tuple[bytes, ...]:
        """What the peer presented, in DER, its own certificate first."""
        leaf = self.tls._peer_certificate
        if leaf is None:
            return ()
        return tuple(each.public_bytes(Encoding.DER) for each in (leaf, *self.tls._peer_certificate_chain))

    def alpn(self) -> str | None:
        """The application protocol that was negotiated."""
        return self.tls.alpn_negotiated

    def ciphersuite(self) -> str | None:
        """IANA's name of the ciphersuite in use."""
        schedule = self.tls.key_schedule
        return None if schedule is None else f"TLS_{schedule.cipher_suite.name}"

    @property
    def resumed(self) -> bool:
        """Whether a session was resumed, so that no certificate was shown."""
        return bool(self.tls.session_resumed)

    # The network's side

    def send_to(self, address: object, now: float) -> None:
        """Start a client's handshake with this address."""
        self.connect(address, now)

    def take(self, datagram: bytes, address: object, now: float) -> None:
        """A datagram of the peer came."""
        idle_at = self._close_at
        self.receive_datagram(datagram, address, now)
        if self._close_at is idle_at and self.is_reset(datagram):
            self._drop(now)  # nothing in it was a packet of the connection

    def is_reset(self, datagram: bytes) -> bool:
        """Whether the peer says by this datagram that it knows nothing of the connection (RFC 9000 section 10.3.1)."""
        used = [self._peer_cid, *(path.peer_cid for path in self._network_paths if path.peer_cid is not None)]
        return is_reset(datagram, [known.stateless_reset_token for known in used])

    def datagrams(self, now: float) -> list[tuple[bytes, Any]]:
        """What is to be sent now, and where to."""
        table = self._table
        if table.active:
            self._acknowledge_with_data(now)
        output: list[tuple[bytes, Any]] = self.datagrams_to_send(now)
        table.prune()
        if self._mtu_wanted and self._handshake_confirmed:
            output += self._probe_mtu(now)
        return output

    def _acknowledge_with_data(self, now: float) -> None:
        """What has come is acknowledged in the packet that leaves now, and costs neither one of its own nor a timer."""
        space: Any = self._spaces[tls.Epoch.ONE_RTT]
        due = space.ack_at
        if due is not None and due > now and self._pacer.next_send_time(now) is None:
            space.ack_at = now

    def wake_at(self) -> float | None:
        """When ``wake`` is due, by the clock that ``now`` is read from."""
        at: float | None = self.get_timer()
        return at

    def wake(self, now: float) -> None:
        """Time has passed."""
        self.handle_timer(now)
        if self._table.large_lost or self._loss._pto_count >= _UNANSWERED:
            self._watch_mtu()

    def tell(self, observer: EngineObserver) -> None:
        """Tell what has happened since the last time. Data that came in several packets are one piece."""
        if self._table.large_lost:
            self._watch_mtu()
        queue: deque[Any] = self._events
        table = self._table
        while table.opened:
            opened, table.opened = table.opened, []
            for stream in opened:
                observer.stream_opened(stream)
        while queue:
            event: Any = queue.popleft()
            kind = type(event)
            if kind is events.StreamDataReceived:
                stream, data, ended = event.stream_id, event.data, event.end_stream
                parts: list[bytes] | None = None
                while queue and type(queue[0]) is kind and queue[0].stream_id == stream:
                    event = queue.popleft()
                    if parts is None:
                        parts = [data]
                    parts.append(event.data)
                    ended = event.end_stream
                observer.stream_data(stream, data if parts is None else b"".join(parts), ended)
            elif kind is events.DatagramFrameReceived:
                observer.datagram(event.data)
            elif kind is events.StreamReset:
                observer.stream_reset(event.stream_id, event.error_code)
            elif kind is events.StopSendingReceived:
                observer.stop_asked(event.stream_id, event.error_code)
            elif kind is events.HandshakeCompleted:
                if not observer.handshake_complete(event.early_data_accepted, event.session_resumed):
                    return
            elif kind is events.ConnectionIdRetired:
                observer.connection_id_retired(event.connection_id)
            elif kind is events.PingAcknowledged:
                observer.pong()
        while table.delivered:
            delivered, table.delivered = table.delivered, []
            for stream in delivered:
                observer.stream_delivered(stream)

    @property
    def peer_address(self) -> Any:
        """Where datagrams go at present."""
        return self.get_peer_address()

    @property
    def unanswered(self) -> int:
        """How many probes in a row had no answer."""
        return self._loss._pto_count

    def move(self) -> None:
        """Our own address has changed: use another connection id of the peer's, if it gave us one, and learn what the
        new path can do (RFC 9000 section 9.4)."""
        self.change_connection_id()
        loss = self._loss
        loss._pto_count = 0
        loss._rtt_initialized = False
        self._use_datagrams_of(SMALLEST_DATAGRAM)
        controller: Any = loss._cc
        controller.congestion_window = min(controller.congestion_window, 10 * SMALLEST_DATAGRAM)

    # Streams

    def may_open(self, unidirectional: bool) -> bool:
        """Whether the peer lets us open one more stream now."""
        if unidirectional:
            return bool(self._local_next_stream_id_uni // 4 < self._remote_max_streams_uni)
        return bool(self._local_next_stream_id_bidi // 4 < self._remote_max_streams_bidi)

    def open_stream(self, unidirectional: bool) -> int:
        """The number of a new stream of our own. The peer hears of it with its first byte, or ``announce``; what
        exceeds the peer's limit waits."""
        number: int
        if unidirectional:
            number = self._local_next_stream_id_uni
            self._local_next_stream_id_uni = number + 4
            stream = EngineStream(self._table, number, 0, self._remote_max_stream_data_uni, readable=False)
            most, blocked = self._remote_max_streams_uni, self._streams_blocked_uni
        else:
            number = self._local_next_stream_id_bidi
            self._local_next_stream_id_bidi = number + 4
            local, remote = self._local_max_stream_data_bidi_local, self._remote_max_stream_data_bidi_remote
            stream = EngineStream(self._table, number, local, remote)
            most, blocked = self._remote_max_streams_bidi, self._streams_blocked_bidi
        if number // 4 >= most:
            stream.is_blocked = True
            blocked.append(stream)
            self._streams_blocked_pending = True
        self._table.add(stream)
        return number

    def announce(self, stream: int) -> None:
        """Tell the peer of a stream on which nothing was sent yet, by an empty frame."""
        self._table[stream].sender.open()

    def is_peers(self, stream: int) -> bool:
        """Whether the stream is one that the peer opens."""
        return stream & 1 == self._is_client

    def knows(self, stream: int) -> bool:
        """Whether the stream is open in some direction."""
        return stream in self._table

    def write(self, stream: int, data: Any, end: bool) -> None:
        """Append to what is to be sent on a stream."""
        known = self._table.get(stream)
        if known is None:
            raise ValueError(f"stream {stream} is not open")
        known.sender.write(data, end)

    def unsent(self, stream: int) -> int:
        """Bytes of a stream that were never sent."""
        known = self._table.get(stream)
        return 0 if known is None else known.sender._buffer_stop - known.sender.highest_offset

    def sent(self, stream: int) -> int:
        """Bytes of a stream that were sent, not counting how often."""
        known = self._table.get(stream)
        return 0 if known is None else known.sender.highest_offset

    def busy(self) -> dict[int, int]:
        """The streams that have something to send, and how many bytes of them were sent."""
        return {
            each.stream_id: each.sender.highest_offset
            for each in self._table.active
            if each.sender._buffer_stop > each.sender.highest_offset
        }

    def undelivered(self, stream: int) -> int:
        """Bytes of a stream that the peer has not acknowledged."""
        known = self._table.get(stream)
        return 0 if known is None else known.sender._buffer_stop - known.sender._buffer_start

    def reset(self, stream: int, code: int) -> None:
        """Give up sending on a stream."""
        known = self._table.get(stream)
        if known is not None and not known.sender.is_finished:
            self.reset_stream(stream, code)

    def stop(self, stream: int, code: int) -> None:
        """Tell the peer that nothing more of a stream is wanted."""
        known = self._table.get(stream)
        if known is not None and not known.receiver.is_finished:
            self.stop_stream(stream, code)
            self._table.wake(stream)

    def limit_streams(self, most: int) -> None:
        """How many streams of each kind the peer may have open at once. Before the handshake only."""
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = most

    def raise_streams(self, most: int) -> None:
        """Let the peer have so many streams open from now on; it can never be less than it was told."""
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = max(limit.value, most)

    # Datagrams

    def largest_datagram(self) -> int:
        """Most bytes of a datagram that fit one packet and that the peer takes; 0 if it takes none."""
        accepted = self._remote_max_datagram_frame_size
        if not accepted:
            return 0
        return max(0, min(int(accepted), self._max_datagram_size - _SHORT_HEADER) - _FRAME_HEADER)

    @property
    def takes_datagrams(self) -> bool:
        """Whether the peer does."""
        return bool(self._remote_max_datagram_frame_size)

    def send_unreliably(self, data: bytes) -> None:
        """Send a datagram, which must not exceed ``largest_datagram``."""
        self.send_datagram_frame(data)

    @property
    def datagrams_waiting(self) -> int:
        """How many have not left."""
        return len(self._datagrams_pending)

    # Ending

    def end(self, code: int, reason: str = "") -> None:
        """Close the connection with a code of the application's."""
        self.close(error_code=code, reason_phrase=reason)

    def refuse(self, alert: int, reason: str) -> None:
        """Close the connection since the peer is not trusted, with this TLS alert."""
        self.close(
            error_code=QuicErrorCode.CRYPTO_ERROR + alert,
            frame_type=QuicFrameType.CRYPTO,
            reason_phrase=reason,
        )

    @property
    def idle_timeout(self) -> float:
        """Seconds of silence after which the connection is over, as both sides have agreed."""
        return self._idle_timeout()

    def use_idle_timeout(self, seconds: float, now: float) -> None:
        """End the connection after so many seconds of silence, if the peer does not do so earlier."""
        self._configuration.idle_timeout = seconds
        if self._close_at is not None:
            self._close_at = now + self._idle_timeout()

    def ping(self) -> None:
        """Have the peer answer, which keeps the path and the connection alive."""
        self.send_ping(0)

    def end_log(self) -> None:
        """Write what was logged, if anything was. Idempotent; the connection is not to be used any more."""
        trace, self._quic_logger = self._quic_logger, None
        logger = self._configuration.quic_logger
        if trace is not None and logger is not None and trace in logger._traces:
            with suppress(OSError):  # a log never ends a connection
                logger.end_trace(trace)

    def statistics(self) -> dict[str, float]:
        """What the protocol measures."""
        loss = self._loss
        return {
            "rtt": loss._rtt_smoothed,
            "rtt_variance": loss._rtt_variance,
            "rtt_minimum": loss._rtt_min if loss._rtt_initialized else 0.0,
            "congestion_window": float(loss.congestion_window),
            "bytes_in_flight": float(loss.bytes_in_flight),
            "retransmissions": float(self._table.lost_frames),
            "path_mtu": float(self._max_datagram_size),
        }

    # Larger packets (RFC 9000 section 14.3)

    def try_mtu(self, size: int) -> None:
        """Use datagrams of this size if the path proves to carry them."""
        self._mtu_wanted = size if size > self._max_datagram_size else 0
        self._mtu_probes = 0

    def _watch_mtu(self) -> None:
        """Go back to small datagrams when only large ones seem to get lost (RFC 8899 section 4.3), and see whether
        the large ones come through again."""
        table = self._table
        self._large_bursts = 0 if table.large_acked else self._large_bursts + table.large_lost
        table.large_lost = table.large_acked = False
        size = self._max_datagram_size
        if size > SMALLEST_DATAGRAM and (
            self._large_bursts >= _LOST_BURSTS or self._loss._pto_count >= _UNANSWERED
        ):
            self._large_bursts = 0
            self._use_datagrams_of(SMALLEST_DATAGRAM)
            self.try_mtu(size)

    def _probe_mtu(self, now: float) -> list[tuple[bytes, Any]]:
        path = self._network_paths[0]
        if self._is_probing or self._state.name != "CONNECTED" or not path.is_validated:
            return []
        self._mtu_probes += 1
        self._is_probing = True
        assert self._version is not None, "the handshake is complete"
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=self._mtu_wanted,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            quic_logger=self._quic_logger,
            spin_bit=self._spin_bit,
            version=self._version,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
        builder.start_frame(
            QuicFrameType.PING, handler=self._mtu_probe_delivered, handler_args=(self._mtu_wanted,)
        )
        buffer = builder.start_frame(QuicFrameType.PADDING)
        buffer.push_bytes(bytes(builder.remaining_buffer_space))
        packet: Any = builder._packet
        packet.in_flight = False  # its loss says nothing of congestion (RFC 9000 section 14.4)
        output: list[tuple[bytes, Any]] = self._flush_builder(
            builder=builder, network_path=path, peer_cid=self._peer_cid.cid, now=now
        )
        return output

    def _mtu_probe_delivered(self, delivery: QuicDeliveryState, size: int) -> None:
        self._is_probing = False
        if delivery == _ACKED:
            self._mtu_wanted = 0
            self._use_datagrams_of(size)
        elif self._mtu_probes >= _MTU_PROBES:
            self._mtu_wanted = 0

    def _use_datagrams_of(self, size: int) -> None:
        self._max_datagram_size = size
        waiting = self._datagrams_pending
        largest = self.largest_datagram()
        if any(len(data) > largest for data in waiting):  # they would stay for ever, and what is behind them
            fitting = [data for data in waiting if len(data) <= largest]
            waiting.clear()
            waiting.extend(fitting)
        self._pacer._max_datagram_size = size
        controller: Any = self._loss._cc
        controller._max_datagram_size = size

    # What the engine is made to do otherwise

    @property
    def _streams_queue(self) -> list[QuicStream]:
        active = self._table.active
        order = self.order
        if order is not None and len(active) > 1:
            active.sort(key=lambda stream: order(stream.stream_id, stream.sender.highest_offset))
        return active

    @_streams_queue.setter
    def _streams_queue(self, active: list[QuicStream]) -> None:
        self._table.active = StreamQueue(active)

    def _write_application(self, builder: QuicPacketBuilder, network_path: Any, now: float) -> None:
        self._pacer.builder = builder
        super()._write_application(builder, network_path, now)

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        # Most frames are for a stream that is there, or that is the next one of the peer's.
        table = self._table
        stream: QuicStream | None = table.get(stream_id)
        if stream is not None:
            return stream
        limit = self._local_max_streams_bidi
        count = stream_id // 4
        if stream_id & 2 or not self.is_peers(stream_id) or count != limit.used or count >= limit.value:
            return super()._get_or_create_stream(frame_type, stream_id)
        limit.used = count + 1
        local, remote = self._local_max_stream_data_bidi_remote, self._remote_max_stream_data_bidi_local
        opened = EngineStream(table, stream_id, local, remote)
        table.add(opened)
        table.opened.append(stream_id)
        return opened

    def _handle_stream_frame(self, context: Any, frame_type: int, buf: Any) -> None:
        # Most data are the next ones of their stream, and within the credit that we gave: they need none of the
        # engine's other care.
        begin = buf.tell()
        number = buf.pull_uint_var()
        offset = buf.pull_uint_var() if frame_type & _HAS_OFFSET else 0
        size = buf.pull_uint_var() if frame_type & _HAS_LENGTH else buf.capacity - buf.tell()
        if size and not number & 2 and self._quic_logger is None:
            data = buf.pull_bytes(
                size
            )  # now, since a stream that is over makes the engine go on after the frame
            stream: Any = self._table.get(number)
            if stream is None:
                stream = self._get_or_create_stream(frame_type, number)
            credit = self._local_max_data
            used = credit.used + size
            if (
                offset + size <= stream.max_stream_data_local
                and used <= credit.value
                and stream.receiver.continues_at(offset)
            ):
                credit.used = used
                self._events.append(stream.receiver.take(data, bool(frame_type & _IS_LAST)))
                return
        buf.seek(begin)
        super()._handle_stream_frame(context, frame_type, buf)

    def _initialize(self, peer_cid: bytes) -> None:
        if self._spaces:
            self._take_back_early_data()
        super()._initialize(peer_cid)
        context = self.tls
        if self._groups:
            context._supported_groups = list(self._groups)
        if self._signatures:
            context._signature_algorithms = list(self._signatures)
        context._request_client_certificate = self._asks_peer
        if not self.takes_early:
            context._max_early_data = None

    def _take_back_early_data(self) -> None:
        """The handshake begins anew, since the server wants another version or our address proven: it has kept nothing
        of what was sent (RFC 9000 section 17.2.5.3)."""
        for epoch, space in self._spaces.items():
            if epoch is tls.Epoch.ONE_RTT:
                packets = list(space.sent_packets.values())
                self._loss._on_packets_lost(congestion_event=False, now=0.0, packets=packets, space=space)
            else:
                self._loss.discard_space(space)

    def ask_for_certificate(self) -> None:
        """Have the client show a certificate; on the server's side, before the first datagram."""
        self._asks_peer = True

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        blocked: list[Any] = list(
            self._streams_blocked_uni if is_unidirectional else self._streams_blocked_bidi
        )
        super()._unblock_streams(is_unidirectional)
        for stream in blocked:
            if not stream.is_blocked:
                self._table.wake(stream.stream_id)

    def _write_connection_close_frame(
        self, builder: QuicPacketBuilder, epoch: tls.Epoch, *frame: Any, **named: Any
    ) -> None:
        # The packet that closes is the last one: unless it says what has come, a peer that closes at the same time
        # never learns that it was heard.
        if epoch is tls.Epoch.ONE_RTT:
            space = self._spaces[epoch]
            heard_at: Any = space.largest_received_time
            if space.ack_at is not None and len(space.ack_queue) <= _RANGES_WITH_CLOSE:
                self._write_ack_frame(builder, space, heard_at)
        super()._write_connection_close_frame(builder, epoch, *frame, **named)

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: Any, stream: Any) -> None:
        buffer = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=17,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        buffer.push_uint_var(stream.stream_id)
        buffer.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local
        self._table.due.pop(stream.stream_id, None)
        if self._quic_logger is not None:
            frames: Any = builder.quic_logger_frames
            frames.append(
                self._quic_logger.encode_max_stream_data_frame(
                    maximum=stream.max_stream_data_local, stream_id=stream.stream_id
                )
            )

    def _on_max_stream_data_delivery(self, delivery: QuicDeliveryState, stream: Any) -> None:
        super()._on_max_stream_data_delivery(delivery, stream)
        if delivery != _ACKED and not stream.receiver.is_finished:
            self._table.due[stream.stream_id] = stream

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        for known in self._host_cids:
            if known.cid not in self._told_ids:
                self._told_ids.add(known.cid)
                self._give_token(known)
                self.observer.connection_id_issued(known.cid)

    def _give_token(self, known: Any) -> None:
        if self._reset_token is not None:
            known.stateless_reset_token = self._reset_token(known.cid)

    def _consume_peer_cid(self) -> None:
        super()._consume_peer_cid()
        self.observer.peer_id_changed(self._peer_cid.stateless_reset_token)

    def _use_reserved_peer_cid(self, network_path: Any) -> None:
        super()._use_reserved_peer_cid(network_path)
        self.observer.peer_id_changed(self._peer_cid.stateless_reset_token)

    def _drop(self, now: float) -> None:
        """The peer has lost the connection: nothing is sent any more."""
        if self._state.name in ("DRAINING", "TERMINATED"):
            return
        if self._close_event is None:
            self._is_lost = True
            self._close_event = events.ConnectionTerminated(
                error_code=QuicErrorCode.NO_ERROR,
                frame_type=QuicFrameType.PADDING,
                reason_phrase="stateless reset",
            )
        self._close_pending = False
        self._close_begin(is_initiator=False, now=now)


__all__ = [
    "CONNECTION_ID_LENGTH",
    "CONNECTION_WINDOW",
    "LARGEST_STREAM_WINDOW",
    "SMALLEST_DATAGRAM",
    "STREAM_WINDOW",
    "Closing",
    "Engine",
    "EngineObserver",
    "QuicPacketBuilderStop",
]
