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
from aioquic.quic.stream import QuicStream, QuicStreamReceiver, QuicStreamSender

STREAM_WINDOW, LARGEST_STREAM_WINDOW = 1 << 20, 1 << 22
"""Bytes that the peer may send on one stream beyond what the application has taken: at first, and at most (see
:meth:`_Receiver.grant`)."""

_PROVEN = 2
"""So many windows of a new size the application must have taken before: one that is about to stop reading gets no
large one, as a queue that fills up takes some too."""

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
    """One stream, which says when one of its sides has something to do. ``queued``: the table knows that it may."""

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
        self.queued = True


class _Sender(QuicStreamSender):
    """The sending side of a stream."""

    _stream_id: int

    def __init__(self, table: StreamTable, number: int, writable: bool) -> None:
        super().__init__(number, writable)
        self._table = table
        self.opening = False

    def write(self, data: bytes, end_stream: bool = False) -> None:
        super().write(data, end_stream)
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

    def get_frame(self, max_size: int, max_offset: int | None = None) -> QuicStreamFrame | None:
        if self.opening and max_size >= 0:
            self.opening = False
            if not len(self._pending) and not self._pending_eof:
                return QuicStreamFrame(data=b"", offset=0)
        frame = super().get_frame(max_size, max_offset)
        if frame is None:
            if max_size <= 0:
                self._table.has_filled_a_packet()
        elif not self._pending_eof and frame.offset + len(frame.data) == self._buffer_stop:
            self.buffer_is_empty = True  # the engine would find out by asking once more
        return frame

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        super().on_data_delivery(delivery, start, stop, fin)
        table = self._table
        if stop - start > SMALLEST_DATAGRAM:
            if delivery == _ACKED:
                table.large_acked = True
            else:
                table.large_lost = True
        if delivery == _ACKED:
            if self.is_finished:
                table.has_delivered(self._stream_id)
            return
        table.lost_frames += 1
        if not stop and not fin and not self.highest_offset:
            self.opening = True
            self.buffer_is_empty = False
        table.wake(self._stream_id)

    def on_reset_delivery(self, delivery: QuicDeliveryState) -> None:
        super().on_reset_delivery(delivery)
        if delivery == _ACKED:
            self._table.has_delivered(self._stream_id)
        self._table.wake(self._stream_id)


class _Receiver(QuicStreamReceiver):
    """The receiving side of a stream."""

    _stream_id: int

    def __init__(self, table: StreamTable, number: int, readable: bool) -> None:
        super().__init__(number, readable)
        self._table = table
        self.taken = 0
        self.grants_at = STREAM_WINDOW // 4
        """How much the application must have taken for the peer to hear of it."""
        self._window = STREAM_WINDOW
        self._granted_at = -math.inf

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

    def handle_frame(self, frame: QuicStreamFrame) -> events.StreamDataReceived | None:
        event = super().handle_frame(frame)
        if self.is_finished:
            self._table.wake(self._stream_id)
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


class _LongQueue(list[Any]):
    """Many streams that may have something to send, as the engine visits them for each packet. ``full``, set meanwhile,
    ends the visit: the packet has no room for any more."""

    __slots__ = ("full",)

    def __iter__(self) -> Iterator[Any]:
        self.full = False
        for stream in super().__iter__():
            yield stream
            if self.full:
                return

    def extend(self, served: Iterable[Any]) -> None:
        """Have those visited again for the next packet that were served for this one and have more to send."""
        for stream in served:
            if stream.sender.buffer_is_empty:
                stream.queued = False
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
        self.active: list[Any] = []
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
        self[stream.number] = stream
        self.active.append(stream)

    def adopt(self, stream: Any) -> None:
        """Make one that the engine has opened itself, in its queue already, like ours."""
        number = stream.stream_id
        stream.sender = _Sender(self, number, not stream.sender.is_finished)
        stream.receiver = _Receiver(self, number, not stream.receiver.is_finished)
        stream.queued = True

    def __setitem__(self, number: int, stream: Any) -> None:
        if type(stream) is not EngineStream:
            self.adopt(stream)
            self.opened.append(number)
        super().__setitem__(number, stream)

    def values(self) -> list[Any]:  # type: ignore[override]
        return list(self.due.values()) if self.due else _NONE

    def pop(self, number: int, *default: Any) -> Any:
        stream = super().pop(number, *default)
        self.due.pop(number, None)
        receiver = stream.receiver
        # What nobody took of it counts as taken now.
        self.connection.grant(receiver.highest_offset - receiver.taken)
        return stream

    def wake(self, number: int) -> None:
        """A stream may have something to send."""
        stream = self.get(number)
        if stream is not None and not stream.queued:
            stream.queued = True
            self.active.append(stream)

    def queue(self) -> list[Any]:
        """Those that may have something to send, for the engine to visit."""
        active = self.active
        if len(active) >= _MANY and type(active) is list:
            active = self.active = _LongQueue(active)
        return active

    def has_filled_a_packet(self) -> None:
        """The engine need not visit the rest before the next packet."""
        if type(self.active) is _LongQueue:
            self.active.full = True

    def has_delivered(self, number: int) -> None:
        """The sending side of a stream has come to its end."""
        self.delivered.append(number)
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
        active, self.active = self.active, []
        for stream in active:
            sender, receiver = stream.sender, stream.receiver
            if (
                sender.reset_pending
                or receiver.stop_pending
                or not (sender.buffer_is_empty or stream.is_blocked)
                or (sender.is_finished and receiver.is_finished)
            ):
                self.active.append(stream)
            else:
                stream.queued = False
