"""The adapter to aioquic's protocol engine. With :mod:`~neatpy.stacks._quic.engine_core` and
:mod:`~neatpy.stacks._quic.engine_streams` below it the only room that touches the engine, its private names included.

An :class:`Engine` is one QUIC connection without socket and clock. What the engine lacks for a transport system is
added here and below: receive credit by what the application has taken (the engine's own doubles by itself), a walk over
the streams that have something to do instead of all of them, an order of service, peers that must show certificates,
larger packets where the path takes them. Another engine needs other such rooms, and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilderStop
from cryptography.hazmat.primitives.serialization import Encoding

from neatpy.stacks._quic.engine_core import UNANSWERED, EngineCore
from neatpy.stacks._quic.engine_observer import Closing, EngineObserver
from neatpy.stacks._quic.engine_streams import (
    LARGEST_STREAM_WINDOW,
    SMALLEST_DATAGRAM,
    STREAM_WINDOW,
    EngineStream,
)
from neatpy.stacks._quic.resets import is_reset
from neatpy.stacks._sharing import UNREAD_BY_ALL

CONNECTION_WINDOW = UNREAD_BY_ALL
"""Bytes that the peer may send on all streams together, beyond what the application has taken."""

CONNECTION_ID_LENGTH = 8


class Engine(EngineCore):
    """One QUIC connection: what the transport asks of it."""

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
            self.drop(now)  # nothing in it was a packet of the connection

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
            output += self.probe_mtu(now)
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
        if self._table.large_lost or self._loss._pto_count >= UNANSWERED:
            self.watch_mtu()

    def tell(self, observer: EngineObserver) -> None:
        """Tell what has happened since the last time. Data that came in several packets are one piece."""
        if self._table.large_lost:
            self.watch_mtu()
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
        self.use_datagrams_of(SMALLEST_DATAGRAM)
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

    @property
    def held_up(self) -> bool:
        """Whether something is to be sent that the peer gives no credit for, and nothing is on its way to it."""
        return bool(self._table.active) and not self._loss._cc.bytes_in_flight

    def announce(self, stream: int) -> None:
        """Tell the peer of a stream on which nothing was sent yet, by an empty frame."""
        self._table[stream].sender.open()

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

    def raise_streams(self, most: int) -> None:
        """Let the peer have so many streams open from now on; it can never be less than it was told."""
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = max(limit.value, most)

    # Datagrams

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
