"""What aioquic's engine is made to do otherwise, in its own methods: cheaper where there is much, and what it lacks.

Data of the usual kind take short ways, packets grow where the path takes larger ones (RFC 9000 section 14.3), streams
are served in an order, and what is acknowledged or forgotten follows the application. With the adapter above it and the
streams below, this is the only room that touches the engine's private names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.connection import QuicConnection, QuicConnectionAdapter
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder

from neatpy.stacks._quic.engine_streams import (
    SMALLEST_DATAGRAM,
    Credit,
    EngineStream,
    StreamQueue,
    StreamTable,
)
from neatpy.stacks._quic.pacing import Pacer

if TYPE_CHECKING:
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.stream import QuicStream

    from neatpy.stacks._quic.engine_observer import EngineObserver

UNANSWERED = 2
"""Probes without an answer after which large packets are suspected."""

_SHORT_HEADER, _FRAME_HEADER = 1 + 20 + 2 + 16, 1 + 8
_MTU_PROBES, _LOST_BURSTS = 3, 3
_RANGES_WITH_CLOSE = 32
_ACKED = QuicDeliveryState.ACKED
_STREAM, _IS_LAST, _HAS_LENGTH, _HAS_OFFSET = 8, 1, 2, 4  # the type of a STREAM frame (RFC 9000 section 19.8)
_STREAM_HEADER, _TWO_BYTES = 1 + 8 + 8 + 2, 0x4000  # a number of 14 bits takes two
_TAG = 16

# What a stranger sends is nothing to print on a program's standard error, unless the program sets logging up.
logging.getLogger("quic").addHandler(logging.NullHandler())


class _Unheard(QuicConnectionAdapter):
    """For debug messages of each stream that nobody wants: the usual way to find out takes three calls."""

    def debug(self, *_: object, **__: object) -> None:
        pass


class EngineCore(QuicConnection):
    """One QUIC connection, as the adapter needs it. ``order`` sorts the streams that have something to send (None: in
    turns); ``reset_token`` gives the tokens of our connection ids (None: random ones, since nobody will use them)."""

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

    def is_peers(self, stream: int) -> bool:
        """Whether the stream is one that the peer opens."""
        return stream & 1 == self._is_client

    def limit_streams(self, most: int) -> None:
        """How many streams of each kind the peer may have open at once. Before the handshake only."""
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = most

    def largest_datagram(self) -> int:
        """Most bytes of a datagram that fit one packet and that the peer takes; 0 if it takes none."""
        accepted = self._remote_max_datagram_frame_size
        if not accepted:
            return 0
        return max(0, min(int(accepted), self._max_datagram_size - _SHORT_HEADER) - _FRAME_HEADER)

    # Larger packets (RFC 9000 section 14.3)

    def try_mtu(self, size: int) -> None:
        """Use datagrams of this size if the path proves to carry them."""
        self._mtu_wanted = size if size > self._max_datagram_size else 0
        self._mtu_probes = 0

    def watch_mtu(self) -> None:
        """Go back to small datagrams when only large ones seem to get lost (RFC 8899 section 4.3), and see whether
        the large ones come through again."""
        table = self._table
        self._large_bursts = 0 if table.large_acked else self._large_bursts + table.large_lost
        table.large_lost = table.large_acked = False
        size = self._max_datagram_size
        if size > SMALLEST_DATAGRAM and (
            self._large_bursts >= _LOST_BURSTS or self._loss._pto_count >= UNANSWERED
        ):
            self._large_bursts = 0
            self.use_datagrams_of(SMALLEST_DATAGRAM)
            self.try_mtu(size)

    def probe_mtu(self, now: float) -> list[tuple[bytes, Any]]:
        """See whether the path carries datagrams of the size that is wanted."""
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
            self.use_datagrams_of(size)
        elif self._mtu_probes >= _MTU_PROBES:
            self._mtu_wanted = 0

    def use_datagrams_of(self, size: int) -> None:
        """Send datagrams of at most this size."""
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

    def _write_stream_frame(
        self, builder: QuicPacketBuilder, space: Any, stream: Any, max_offset: int
    ) -> int:
        # Most streams have little to say, which fits whatever the numbers in front of it take.
        sender = stream.sender
        start, stop = sender.highest_offset, sender._buffer_stop
        size = stop - start
        packet_buffer = builder._buffer
        room = builder._flight_capacity - packet_buffer.tell() - _STREAM_HEADER - _TAG
        if (
            not 0 < size <= room
            or stop > max_offset
            or sender._lost is not None
            or self._quic_logger is not None
        ):
            return int(super()._write_stream_frame(builder, space, stream, max_offset))
        last = stop == sender._buffer_fin
        packet: Any = builder._packet
        packet.is_ack_eliciting = packet.in_flight = True
        packet.delivery_handlers.append((sender.on_data_delivery, (start, stop, last)))
        packet_buffer.push_uint8(_STREAM | _HAS_LENGTH | (_HAS_OFFSET if start else 0) | last)
        packet_buffer.push_uint_var(stream.stream_id)
        if start:
            packet_buffer.push_uint_var(start)
        packet_buffer.push_uint16(size | _TWO_BYTES)
        packet_buffer.push_bytes(sender.rest())
        return int(size)

    def _handle_padding_frame(self, context: Any, frame_type: int, buf: Any) -> None:
        begin = buf.tell()
        rest = buf.data_slice(begin, buf.capacity)
        buf.seek(begin + len(rest) - len(rest.lstrip(b"\0")))
        if self._quic_logger is not None:
            context.quic_logger_frames.append(self._quic_logger.encode_padding_frame())

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

    def drop(self, now: float) -> None:
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
