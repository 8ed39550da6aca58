"""The streams inside aioquic's engine, made cheap where there are many, and with credit by what was taken.

The engine walks over all streams for each packet; here it finds only those that have something to do. Together with the
adapter this is the only room that knows the engine's private names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aioquic.quic import events
from aioquic.quic.connection import Limit
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

STREAM_WINDOW, LARGEST_STREAM_WINDOW = 1 << 20, 1 << 22
"""Bytes that the peer may send on one stream beyond what the application has taken: at first, and at most (see
:meth:`_Receiver.grant`)."""

_PROVEN = 2
"""So many windows of a new size the application must have taken before: one that is about to stop reading gets no
large one, as a queue that fills up takes some too."""

_STREAM_STEP = STREAM_WINDOW // 4

SMALLEST_DATAGRAM = 1200
"""Bytes of a UDP payload that every path carries (RFC 9000 section 14)."""

_MANY = 64
_NONE: list[Any] = []
_ACKED = QuicDeliveryState.ACKED


class Credit(Limit):
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


class EngineStream(QuicStream):
    """One stream, which says when one of its sides has something to do."""

    def __init__(
        self,
        table: StreamTable,
        number: int,
        local_credit: int,
        remote_credit: int,
        *,
        readable: bool = True,
        writable: bool = True,
    ) -> None:
        self.number = self.stream_id = number
        self.is_blocked = False
        self.max_stream_data_local = self.max_stream_data_local_sent = local_credit
        self.max_stream_data_remote = remote_credit
        self.receiver = _Receiver(table, number, readable)
        self.sender = _Sender(table, number, writable)


class _Sender(QuicStreamSender):
    """The sending side of a stream. ``queued``: the table knows that the stream may have something to do.

    What was never sent is one piece, from ``highest_offset`` to the end, and what is acknowledged mostly comes in
    order: the engine's sets of ranges are made when something gets lost, or is acknowledged out of order.
    """

    _stream_id: int

    def __init__(self, table: StreamTable, number: int, writable: bool) -> None:
        self._table = table
        self._stream_id = number
        self.is_finished = not writable
        self.buffer_is_empty = True
        self.opening = self.reset_pending = False
        self.queued = True
        self.highest_offset = self._buffer_start = self._buffer_stop = 0
        self._buffer = bytearray()
        self._buffer_fin: int | None = None
        self._reset_error_code: int | None = None
        self._pending_eof = self._acked_fin = False
        self._lost: RangeSet | None = None
        self._early: RangeSet | None = None
        """What was acknowledged before something in front of it."""

    def write(self, data: Any, end_stream: bool = False) -> None:
        if self._buffer_fin is not None or self._reset_error_code is not None:
            raise RuntimeError(f"nothing more can be sent on stream {self._stream_id}")
        size = len(data)
        if size:
            self._buffer += data
            self._buffer_stop += size
        elif not end_stream:
            return
        if end_stream:
            self._buffer_fin = self._buffer_stop
            self._pending_eof = True
        self.buffer_is_empty = self.opening = False
        if not self.queued:
            self._table.wake(self._stream_id)

    def reset(self, error_code: int) -> None:
        super().reset(error_code)
        self._table.wake(self._stream_id)

    def open(self) -> None:
        """Let the peer see the stream, by an empty frame, if nothing was sent on it yet."""
        if not self.highest_offset and self.buffer_is_empty:
            self.opening = True
            self.buffer_is_empty = False
            self._table.wake(self._stream_id)

    @property
    def next_offset(self) -> int:
        return self.highest_offset if self._lost is None else self._lost[0].start

    def get_frame(self, max_size: int, max_offset: int | None = None) -> QuicStreamFrame | None:
        if max_size <= 0:
            self._table.has_filled_a_packet()
            if max_size < 0:
                return None
        start, stop = self.highest_offset, self._buffer_stop
        lost = self._lost
        if lost is not None:
            start, stop = lost[0].start, lost[0].stop
        if start == stop:
            return self._empty_frame()
        if stop > start + max_size:
            stop = start + max_size
        if max_offset is not None and stop > max_offset:
            stop = max_offset
        if stop <= start:
            return None
        begin = self._buffer_start
        frame = QuicStreamFrame(bytes(self._buffer[start - begin : stop - begin]), False, start)
        if lost is not None:
            lost.subtract(start, stop)
            if not len(lost):
                self._lost = None
        if stop > self.highest_offset:
            self.highest_offset = stop
        if stop == self._buffer_fin:
            frame.fin = True
            self._pending_eof = False
        if stop == self._buffer_stop and not self._pending_eof and self._lost is None:
            self.buffer_is_empty = True
        return frame

    def rest(self) -> bytes:
        """All that was never sent, which is sent now."""
        unsent = self.highest_offset - self._buffer_start
        self.highest_offset = self._buffer_stop
        self._pending_eof = False
        self.buffer_is_empty = True
        return bytes(self._buffer[unsent:]) if unsent else bytes(self._buffer)

    def _empty_frame(self) -> QuicStreamFrame | None:
        """What there is to say besides data."""
        self.buffer_is_empty = True
        if self._pending_eof:
            self._pending_eof = False
            return QuicStreamFrame(fin=True, offset=self._buffer_stop)
        if self.opening:
            self.opening = False
            return QuicStreamFrame()
        return None

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        table = self._table
        acked = delivery is _ACKED
        if stop - start > SMALLEST_DATAGRAM:
            if acked:
                table.large_acked = True
            else:
                table.large_lost = True
        if not acked:
            table.lost_frames += 1
            self._send_again(start, stop, fin)
        elif self._reset_error_code is None:
            if start != self._buffer_start or self._early is not None:
                stop = self._acknowledged(start, stop)
            del self._buffer[: stop - self._buffer_start]
            self._buffer_start = stop
            if fin:
                self._acked_fin = True
            if self._acked_fin and stop == self._buffer_fin:
                self.is_finished = True
                table.has_delivered(self._stream_id)

    def _acknowledged(self, start: int, stop: int) -> int:
        """The end of what is acknowledged without a gap, after this was."""
        early = self._early
        if early is None:
            early = self._early = RangeSet()
        if stop > start:
            early.add(start, stop)
        reached = self._buffer_start
        if len(early) and early[0].start <= reached:
            reached = max(reached, early.shift().stop)
        if not len(early):
            self._early = None
        return reached

    def _send_again(self, start: int, stop: int, fin: bool) -> None:
        """This got lost."""
        if self._reset_error_code is not None:
            return
        if stop > start:
            if self._lost is None:
                self._lost = RangeSet()
            self._lost.add(start, stop)
        if fin:
            self._pending_eof = True
        elif not stop and not self._buffer_stop and self._buffer_fin is None:
            self.opening = True
        self.buffer_is_empty = False
        self._table.wake(self._stream_id)

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_reset_delivery(delivery)
        if delivery is _ACKED:
            self._table.has_delivered(self._stream_id)
        self._table.wake(self._stream_id)


class _Receiver(QuicStreamReceiver):
    """The receiving side of a stream. What comes in order goes straight up; the rest is the engine's to sort, which
    needs its buffer then."""

    _stream_id: int

    def __init__(self, table: StreamTable, number: int, readable: bool) -> None:
        self._table = table
        self._stream_id = number
        self.is_finished = not readable
        self.stop_pending = False
        self.highest_offset = self._buffer_start = self.taken = 0
        self.grants_at = _STREAM_STEP
        """How much the application must have taken for the peer to hear of it."""
        self._window = STREAM_WINDOW
        self._granted_at = -math.inf
        self._final_size: int | None = None
        self._stop_error_code: int | None = None
        self._sorts = False

    def grant(self, now: float, round_trip: float) -> int:
        """Up to where the peer may send from now on, when a quarter of the window has been taken. If that took less
        than a round trip it is the window that holds the peer up, and it is doubled."""
        larger = self._window * 2
        if (
            now - self._granted_at < round_trip
            and larger <= LARGEST_STREAM_WINDOW
            and larger * _PROVEN <= self.taken
        ):
            self._window = larger
        self._granted_at = now
        self.grants_at = self.taken + self._window // 4
        return self.taken + self._window

    def continues_at(self, offset: int) -> bool:
        """Whether data that begin here are the next ones, and nothing else is known of what follows."""
        return offset == self._buffer_start == self.highest_offset and self._final_size is None

    def take(self, data: bytes, last: bool) -> events.StreamDataReceived:
        """The next data came, and no others have yet."""
        self._buffer_start = self.highest_offset = self.highest_offset + len(data)
        if last:
            self._final_size = self._buffer_start
            self.is_finished = True
            self._table.side_has_ended(self._stream_id)
        return events.StreamDataReceived(data, last, self._stream_id)

    def handle_frame(self, frame: QuicStreamFrame) -> events.StreamDataReceived | None:
        if frame.data and self.continues_at(frame.offset):
            return self.take(frame.data, frame.fin)
        if not self._sorts:
            self._sorts = True
            self._buffer, self._ranges = bytearray(), RangeSet()
        event = super().handle_frame(frame)
        if self.is_finished:
            self._table.side_has_ended(self._stream_id)
        return event

    def handle_reset(self, *, final_size: int, error_code: int = 0) -> events.StreamReset | None:
        event = super().handle_reset(final_size=final_size, error_code=error_code)
        self._table.wake(self._stream_id)
        return event

    def on_stop_sending_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_stop_sending_delivery(delivery)
        if self.is_finished:
            self.stop_pending = False
        if self.stop_pending:
            self._table.wake(self._stream_id)


class StreamQueue(list[Any]):
    """The streams that may have something to send, as the engine visits them for each packet. ``full``, set meanwhile,
    ends the visit where there are many: the packet has no room for any more."""

    __slots__ = ("full",)

    def __iter__(self) -> Iterator[Any]:
        every = super().__iter__()
        return every if len(self) < _MANY else self._until_full(every)

    def _until_full(self, every: Iterator[Any]) -> Iterator[Any]:
        self.full = False
        for stream in every:
            yield stream
            if self.full:
                return

    def extend(self, served: Iterable[Any]) -> None:
        """Have those visited again for the next packet that were served for this one and have more to send."""
        for stream in served:
            if stream.sender.buffer_is_empty:
                stream.sender.queued = False
            else:
                self.append(stream)


class StreamTable(dict[int, Any]):
    """The open streams of one connection by number, and what has become of them since the adapter looked last."""

    __slots__ = (
        "active", "connection", "delivered", "due", "large_acked", "large_lost", "lost_frames", "opened", "pace",
    )  # fmt: skip

    connection: Credit

    def __init__(self, pace: Callable[[], tuple[float, float]]) -> None:
        """``pace``: when something came last, and how long a round trip takes, in seconds."""
        super().__init__()
        self.pace = pace
        self.active = StreamQueue()
        """Those that may have something to send; the engine's queue."""
        self.due: dict[int, Any] = {}
        """Those that have credit to announce."""
        self.opened: list[int] = []
        """By the peer."""
        self.delivered: list[int] = []
        """Those of which the peer has acknowledged all that we said."""
        self.lost_frames = 0
        self.large_acked = self.large_lost = False

    def add(self, stream: EngineStream) -> None:
        """A stream is open."""
        dict.__setitem__(self, stream.number, stream)
        self.active.append(stream)

    def adopt(self, stream: Any) -> None:
        """Make one that the engine has opened itself, in its queue already, like ours."""
        number = stream.stream_id
        stream.sender = _Sender(self, number, not stream.sender.is_finished)
        stream.receiver = _Receiver(self, number, not stream.receiver.is_finished)

    def __setitem__(self, number: int, stream: Any) -> None:
        if type(stream) is not EngineStream:
            self.adopt(stream)
            self.opened.append(number)
        super().__setitem__(number, stream)

    def values(self) -> list[Any]:  # type: ignore[override]
        return list(self.due.values()) if self.due else _NONE

    def pop(self, number: int, *default: Any) -> Any:
        stream = dict.pop(self, number, *default)
        if self.due:
            self.due.pop(number, None)
        receiver = stream.receiver
        if receiver.taken < receiver.highest_offset:  # what nobody took of it counts as taken now
            self.connection.grant(receiver.highest_offset - receiver.taken)
        return stream

    def wake(self, number: int) -> None:
        """A stream may have something to send."""
        stream = self.get(number)
        if stream is not None and not stream.sender.queued:
            stream.sender.queued = True
            self.active.append(stream)

    def has_filled_a_packet(self) -> None:
        """The engine need not visit the rest before the next packet."""
        self.active.full = True

    def has_delivered(self, number: int) -> None:
        """The sending side of a stream has come to its end."""
        self.delivered.append(number)
        self.side_has_ended(number)

    def side_has_ended(self, number: int) -> None:
        """One side of a stream is over; the engine forgets it when both are."""
        stream = self.get(number)
        if stream is not None and stream.is_finished:
            self.wake(number)

    def credit(self, number: int, size: int) -> None:
        """The application has taken so many bytes of a stream."""
        stream = self.get(number)
        if stream is not None:
            receiver = stream.receiver
            receiver.taken += size
            if receiver.taken >= receiver.grants_at and not receiver.is_finished:
                stream.max_stream_data_local = receiver.grant(*self.pace())
                self.due[number] = stream
        self.connection.grant(size)

    def prune(self) -> None:
        """Forget those that have nothing to do."""
        active = self.active
        if not active:
            return
        self.active = StreamQueue()
        for stream in active[:]:
            sender, receiver = stream.sender, stream.receiver
            if (
                sender.reset_pending
                or receiver.stop_pending
                or not (sender.buffer_is_empty or stream.is_blocked)
                or (sender.is_finished and receiver.is_finished)
            ):
                self.active.append(stream)
            else:
                sender.queued = False
