"""The adapter to aioquic's protocol engine: the only room that touches it, its private names included.

An :class:`Engine` is one QUIC connection without socket and clock. What it lacks for a transport system is added here:
receive credit by what the application has taken (the engine's own doubles by itself), a walk over the streams that have
something to do instead of all of them, an order of service, peers that must show certificates, larger packets where the
path takes them. Another engine needs another such room, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.connection import Limit, QuicConnection
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicPacketType, QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from aioquic.quic.configuration import QuicConfiguration

STREAM_WINDOW, CONNECTION_WINDOW = 1 << 19, 8 << 20
"""Bytes that the peer may send on one stream, and on all together, beyond what the application has taken."""

SMALLEST_DATAGRAM = 1200
"""Bytes of a UDP payload that every path carries (RFC 9000 section 14)."""

CONNECTION_ID_LENGTH = 8

_SHORT_HEADER, _FRAME_HEADER = 1 + 20 + 2 + 16, 1 + 8
_MTU_PROBES = 3
_LOST_BURSTS, _UNANSWERED = 3, 2
_RANGES_WITH_CLOSE = 32
_ACKED = QuicDeliveryState.ACKED

# What a stranger sends is nothing to print on a program's standard error, unless the program sets logging up.
logging.getLogger("quic").addHandler(logging.NullHandler())


class EngineObserver:
    """What the protocol has to tell. The methods here do nothing."""

    __slots__ = ()

    def handshake_complete(self, early_data_accepted: bool, resumed: bool) -> None:
        """Both sides have finished; the peer's certificate is not judged yet."""

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

    def pong(self) -> None:
        """A ping was acknowledged."""


class Closing:
    """Why a connection ends. ``application``: by the peer's program, or ours, and not the protocol's doing."""

    __slots__ = ("application", "code", "reason")

    def __init__(self, code: int, application: bool, reason: str) -> None:
        self.code = code
        self.application = application
        self.reason = reason

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
    """One QUIC connection. ``order`` sorts the streams that have something to send (None: in turns)."""

    observer: EngineObserver
    order: Callable[[int, int], float] | None

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        streams: int,
        groups: list[Any],
        signatures: list[Any],
        **more: Any,
    ) -> None:
        self.order = None
        self.lost_frames = 0
        self._groups, self._signatures = groups, signatures
        self._asks_peer = False
        self.takes_early = True
        self._table = _Streams(self)
        super().__init__(configuration=configuration, **more)
        self._streams = self._table
        self._streams_queue = []
        self._credit = self._local_max_data = _Credit(self._local_max_data, configuration.max_data)
        self.limit_streams(streams)
        self._told_ids = {self.host_cid}
        self._delivered: list[int] = []
        self.opened_by_peer: list[int] = []
        self._mtu_wanted = 0
        self._mtu_probes = 0
        self._is_probing = False
        self.large_acked = self.large_lost = False
        self._large_bursts = 0

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
        return Closing(code, application, event.reason_phrase)

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
        self.receive_datagram(datagram, address, now)
        if self.large_lost:
            self._watch_mtu()

    def datagrams(self, now: float) -> list[tuple[bytes, Any]]:
        """What is to be sent now, and where to."""
        table = self._table
        output: list[tuple[bytes, Any]] = self.datagrams_to_send(now)
        table.prune()
        if self._mtu_wanted and self._handshake_confirmed:
            output += self._probe_mtu(now)
        return output

    def wake_at(self) -> float | None:
        """When ``wake`` is due, by the clock that ``now`` is read from."""
        at: float | None = self.get_timer()
        return at

    def wake(self, now: float) -> None:
        """Time has passed."""
        self.handle_timer(now)
        if self.large_lost or self._loss._pto_count >= _UNANSWERED:
            self._watch_mtu()

    def tell(self, observer: EngineObserver) -> None:
        """Tell what has happened since the last time."""
        queue = self._events
        opened = self.opened_by_peer
        while opened:
            observer.stream_opened(opened.pop(0))
        while queue:
            event: Any = queue.popleft()
            kind = type(event)
            if kind is events.StreamDataReceived:
                observer.stream_data(event.stream_id, event.data, event.end_stream)
            elif kind is events.DatagramFrameReceived:
                observer.datagram(event.data)
            elif kind is events.StreamReset:
                observer.stream_reset(event.stream_id, event.error_code)
            elif kind is events.StopSendingReceived:
                observer.stop_asked(event.stream_id, event.error_code)
            elif kind is events.HandshakeCompleted:
                observer.handshake_complete(event.early_data_accepted, event.session_resumed)
            elif kind is events.ConnectionIdRetired:
                observer.connection_id_retired(event.connection_id)
            elif kind is events.PingAcknowledged:
                observer.pong()
        delivered = self._delivered
        while delivered:
            observer.stream_delivered(delivered.pop(0))

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
        limit = self._remote_max_streams_uni if unidirectional else self._remote_max_streams_bidi
        return bool(self.get_next_available_stream_id(unidirectional) // 4 < limit)

    def open_stream(self, unidirectional: bool) -> int:
        """The number of a new stream of our own. The peer hears of it with its first byte, or ``announce``; what
        exceeds the peer's limit waits."""
        number: int = self.get_next_available_stream_id(unidirectional)
        self._get_or_create_stream_for_send(number)
        return number

    def announce(self, stream: int) -> None:
        """Tell the peer of a stream on which nothing was sent yet, by an empty frame."""
        opened = self._table[stream]
        sender = opened.sender
        if not sender.highest_offset and sender.buffer_is_empty:
            sender.opening = True
            sender.buffer_is_empty = False
            self._table.wake(opened)

    def is_peers(self, stream: int) -> bool:
        """Whether the stream is one that the peer opens."""
        return bool(stream & 1) == bool(self._is_client)

    def knows(self, stream: int) -> bool:
        """Whether the stream is open in some direction."""
        return stream in self._table

    def write(self, stream: int, data: Any, end: bool) -> None:
        """Append to what is to be sent on a stream."""
        self.send_stream_data(stream, data, end)

    def unsent(self, stream: int) -> int:
        """Bytes of a stream that were never sent."""
        known = self._table.get(stream)
        return 0 if known is None else known.sender._buffer_stop - known.sender.highest_offset

    def sent(self, stream: int) -> int:
        """Bytes of a stream that were sent, not counting how often."""
        known = self._table.get(stream)
        return 0 if known is None else known.sender.highest_offset

    def undelivered(self, stream: int) -> int:
        """Bytes of a stream that the peer has not acknowledged."""
        known = self._table.get(stream)
        return 0 if known is None else known.sender._buffer_stop - known.sender._buffer_start

    def taken(self, stream: int, size: int) -> None:
        """The application has taken so many bytes of a stream: the peer may send as many more."""
        known = self._table.get(stream)
        if known is not None:
            self._table.credit(known, size)
        self._credit.grant(size)

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
            self._table.wake(known)

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
            "retransmissions": float(self.lost_frames),
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
        self._large_bursts = 0 if self.large_acked else self._large_bursts + self.large_lost
        self.large_lost = self.large_acked = False
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
        self._loss._pacer._max_datagram_size = size
        controller: Any = self._loss._cc
        controller._max_datagram_size = size

    # What the engine is made to do otherwise

    @property
    def _streams_queue(self) -> list[QuicStream]:
        table = self._table
        active = table.active
        order = self.order
        if order is not None and len(active) > 1:
            active.sort(key=lambda stream: order(stream.stream_id, stream.sender.highest_offset))
        return active

    @_streams_queue.setter
    def _streams_queue(self, active: list[QuicStream]) -> None:
        self._table.active = active

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        context = self.tls
        if self._groups:
            context._supported_groups = list(self._groups)
        if self._signatures:
            context._signature_algorithms = list(self._signatures)
        context._request_client_certificate = self._asks_peer
        if not self.takes_early:
            context._max_early_data = None

    def ask_for_certificate(self) -> None:
        """Have the client show a certificate; on the server's side, before the first datagram."""
        self._asks_peer = True

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        blocked = list(self._streams_blocked_uni if is_unidirectional else self._streams_blocked_bidi)
        super()._unblock_streams(is_unidirectional)
        for stream in blocked:
            if not stream.is_blocked:
                self._table.wake(stream)

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
                self.observer.connection_id_issued(known.cid)


class _Credit(Limit):
    """The connection's receive credit, which grows by what is taken and not by itself."""

    def __init__(self, original: Limit, window: int) -> None:
        self._granted = self._announced = window
        self._step = window // 4
        super().__init__(original.frame_type, original.name, window)

    @property
    def value(self) -> int:
        """The most that the peer may send in all."""
        return self._announced

    @value.setter
    def value(self, value: int) -> None:
        pass  # the engine would double it

    def grant(self, size: int) -> None:
        """So many bytes more, announced in large steps."""
        self._granted += size
        if self._granted - self._announced >= self._step:
            self._announced = self._granted


class _Sender(QuicStreamSender):
    """The sending side of a stream, which says when it has something to do."""

    def __init__(self, table: _Streams, stream: Any) -> None:
        super().__init__(stream.stream_id, not stream.sender.is_finished)
        self._table = table
        self._stream = stream
        self.opening = False

    def write(self, data: bytes, end_stream: bool = False) -> None:
        super().write(data, end_stream)
        self._table.wake(self._stream)

    def reset(self, error_code: int) -> None:
        super().reset(error_code)
        self._table.wake(self._stream)

    def get_frame(self, max_size: int, max_offset: int | None = None) -> QuicStreamFrame | None:
        if self.opening and max_size >= 0:
            self.opening = False
            if not len(self._pending) and not self._pending_eof:
                return QuicStreamFrame(data=b"", offset=0)
        return super().get_frame(max_size, max_offset)

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        super().on_data_delivery(delivery, start, stop, fin)
        if stop - start > SMALLEST_DATAGRAM:
            if delivery == _ACKED:
                self._table.engine.large_acked = True
            else:
                self._table.engine.large_lost = True
        if delivery == _ACKED:
            if self.is_finished:
                self._table.delivered(self._stream)
            return
        self._table.engine.lost_frames += 1
        if not stop and not fin and not self.highest_offset:
            self.opening = True
            self.buffer_is_empty = False
        self._table.wake(self._stream)

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_reset_delivery(delivery)
        if delivery == _ACKED:
            self._table.delivered(self._stream)
        self._table.wake(self._stream)


class _Receiver(QuicStreamReceiver):
    """The receiving side of a stream, which says when it has something to do."""

    def __init__(self, table: _Streams, stream: Any) -> None:
        super().__init__(stream.stream_id, not stream.receiver.is_finished)
        self._table = table
        self._stream = stream
        self.taken = 0

    def handle_frame(self, frame: QuicStreamFrame) -> events.StreamDataReceived | None:
        event = super().handle_frame(frame)
        if self.is_finished:
            self._table.wake(self._stream)
        return event

    def handle_reset(self, *, final_size: int, error_code: int = 0) -> events.StreamReset | None:
        event = super().handle_reset(final_size=final_size, error_code=error_code)
        self._table.wake(self._stream)
        return event

    def on_stop_sending_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_stop_sending_delivery(delivery)
        if self.is_finished:
            self.stop_pending = False
        if self.stop_pending:
            self._table.wake(self._stream)


class _Streams(dict[int, Any]):
    """The open streams by number. The engine walks over all ``values`` to announce credit, and over a queue of all to
    send, for each packet: here it finds only those that have something to announce, and those that are ``active``."""

    __slots__ = ("_listed", "active", "due", "engine")

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.active: list[Any] = []
        self._listed: set[int] = set()
        self.due: dict[int, Any] = {}

    def __setitem__(self, number: int, stream: Any) -> None:
        stream.sender = _Sender(self, stream)
        stream.receiver = _Receiver(self, stream)
        super().__setitem__(number, stream)
        self._listed.add(number)  # the engine puts what it makes into its queue itself
        if self.engine.is_peers(number):
            self.engine.opened_by_peer.append(number)

    def values(self) -> list[Any]:  # type: ignore[override]
        return list(self.due.values())

    def pop(self, number: int, *default: Any) -> Any:
        stream = super().pop(number, *default)
        self._listed.discard(number)
        self.due.pop(number, None)
        receiver = stream.receiver
        # What nobody took of it counts as taken now.
        self.engine._credit.grant(receiver.highest_offset - receiver.taken)
        return stream

    def wake(self, stream: Any) -> None:
        """It may have something to send."""
        number = stream.stream_id
        if number not in self._listed and number in self:
            self._listed.add(number)
            self.active.append(stream)

    def delivered(self, stream: Any) -> None:
        """Its sending side has come to its end."""
        self.engine._delivered.append(stream.stream_id)
        self.wake(stream)

    def credit(self, stream: Any, size: int) -> None:
        """The application has taken so many bytes of it."""
        receiver = stream.receiver
        receiver.taken += size
        limit = receiver.taken + STREAM_WINDOW
        if limit - stream.max_stream_data_local >= STREAM_WINDOW // 4 and not receiver.is_finished:
            stream.max_stream_data_local = limit
            self.due[stream.stream_id] = stream

    def prune(self) -> None:
        """Forget those that have nothing to do."""
        if self.active:
            self.active = [stream for stream in self.active if self._has_work(stream)]
            self._listed = {stream.stream_id for stream in self.active}

    @staticmethod
    def _has_work(stream: Any) -> bool:
        sender = stream.sender
        if stream.is_finished or stream.receiver.stop_pending or sender.reset_pending:
            return True
        if stream.is_blocked or sender.buffer_is_empty:
            return False
        return len(sender._pending) > 0 or sender._pending_eof or sender.opening


__all__ = [
    "CONNECTION_ID_LENGTH",
    "CONNECTION_WINDOW",
    "SMALLEST_DATAGRAM",
    "STREAM_WINDOW",
    "Closing",
    "Engine",
    "EngineObserver",
    "QuicPacketBuilderStop",
]
