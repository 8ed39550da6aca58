"""A Flow of unreliable Messages over a QUIC connection: each is one DATAGRAM frame (RFC 9221).

Nothing tells such Messages of several Flows apart, so that the connection is this Flow's alone. They are congestion
controlled: what the engine cannot send yet waits there in small number, and then here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from neatpy.errors import ConnectionError, EstablishmentError, Reason, SendError
from neatpy.message import MessageContext
from neatpy.stacks._quic.carried import NO_ERROR, CarriedFlow
from neatpy.stacks.contract import Data

if TYPE_CHECKING:
    from neatpy.errors import TransportServicesError
    from neatpy.properties import TransportProperties
    from neatpy.stacks._quic.connection import QuicTransport
    from neatpy.stacks.contract import FlowObserver

DATAGRAMS = -1
"""Stands for a stream number: datagrams have none."""

WAITING = 32
"""Messages that the engine holds at most; a Flow is writable below."""

HELD_MESSAGES, HELD_BYTES = 256, 1 << 18
"""What a paused Flow keeps; datagrams have no flow control, so that more is dropped."""

LINGER = 5.0
"""Seconds that ``close`` waits for what was sent to leave."""


class Held:
    """Datagrams that came while nobody takes any, and how many were dropped."""

    __slots__ = ("_data", "_size", "dropped")

    def __init__(self) -> None:
        self._data: deque[bytes] = deque()
        self._size = 0
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._data)

    def add(self, data: bytes) -> None:
        """Keep it, if there is room."""
        if len(self._data) >= HELD_MESSAGES or self._size + len(data) > HELD_BYTES:
            self.dropped += 1
            return
        self._data.append(data)
        self._size += len(data)

    def take(self) -> bytes:
        """The oldest, of which there must be one."""
        data = self._data.popleft()
        self._size -= len(data)
        return data

    def clear(self) -> None:
        """Nobody wants them any more."""
        self._data.clear()
        self._size = 0


class QuicDatagramFlow(CarriedFlow):
    """All datagrams of one connection."""

    __slots__ = ("_gone_for", "_held", "_parts")

    preserves_boundaries = True

    def __init__(
        self, transport: QuicTransport, observer: FlowObserver, properties: TransportProperties
    ) -> None:
        super().__init__(transport, DATAGRAMS, observer, properties)
        self._gone_for: TransportServicesError | None = None
        self._held = Held()
        self._parts: list[bytes] | None = None

    # Sending

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        if self._gone_for is not None:
            raise SendError(str(self._gone_for), self._gone_for.reason, context)
        parts = self._parts
        if parts is not None or not end_of_message:
            if parts is None:
                parts = self._parts = []
            parts.append(bytes(data))
            if not end_of_message:
                return True
            self._parts = None
            data = b"".join(parts)
        engine = self._transport.engine
        largest = engine.largest_datagram()
        if len(data) > largest:
            text = (
                f"{len(data)} bytes do not fit one QUIC datagram on this path, which takes at most {largest}"
            )
            raise SendError(text, Reason.MESSAGE_TOO_LARGE, context)
        engine.send_unreliably(data if type(data) is bytes else bytes(data))
        self._transport.schedule()
        if engine.datagrams_waiting >= WAITING:
            self.writable = False
            self._transport.wants_to_write(self)
        return True

    def has_room(self) -> bool:
        return self._transport.engine.datagrams_waiting <= WAITING // 2

    def write_on(self) -> bool:
        if not self.over:
            self.writable = True
            if self.closing:
                self._end_if_sent()
            else:
                self.observer.writable()
        return self.writable or self.over

    def opened(self) -> None:
        """The handshake is complete."""

    # Receiving

    def take_datagram(self, data: bytes) -> None:
        """A Message came."""
        if self.closing or self.over:
            return
        if self._paused or self._held:
            self._held.add(data)
        else:
            self.observer.received(data, datagram_context(), True)

    def resume_receiving(self) -> None:
        if self._paused:
            self._paused = False
            if self._held:
                self._transport.loop.call_soon(self._tell_held)

    def _tell_held(self) -> None:
        held = self._held
        while held and not self._paused and not self.closing and not self.over:
            self.observer.received(held.take(), datagram_context(), True)
        if not held and self._gone_for is not None and not self.closing and not self.over:
            self.observer.finished()

    # Ending

    def finish(self) -> None:
        """Nothing on the wire says it, until the connection is closed."""

    def close(self) -> None:
        if self.closing or self.over:
            return
        self.closing = True
        self._parts = None
        self._held.clear()
        if self._gone_for is not None:
            self._transport.loop.call_soon(self.ended, None)
            return
        self._linger(LINGER, self._late)
        self._transport.wants_to_write(self)
        self._transport.schedule()

    def _end_if_sent(self) -> None:
        transport = self._transport
        if not transport.engine.datagrams_waiting:
            transport.loop.call_soon(self._end)
        else:
            self.writable = False

    def _end(self) -> None:
        if not self.over:
            self.ended(None)
            self._transport.end(NO_ERROR)

    def _late(self) -> None:
        self.ended(ConnectionError("not all of what was sent could leave in time", Reason.TIMEOUT))
        self._transport.end(NO_ERROR)

    def connection_closed(self, error: TransportServicesError) -> None:
        """The connection is over: well, if the peer said so."""
        if self.over:
            return
        if self.closing:
            self.ended(None)
        elif error.reason is Reason.CONNECTION_ABORTED and self._transport.closed_well:
            self._gone_for = ConnectionError("the peer has closed the connection", Reason.CONNECTION_ABORTED)
            if not self._held:
                self.observer.finished()
        else:
            self.ended(error)

    # Properties

    def read(self, name: str) -> object:
        if name in ("send_msg_max_len", "singular_transmission_msg_max_len"):
            return self._transport.engine.largest_datagram()
        return 65535 if name == "recv_msg_max_len" else None

    def statistics(self) -> dict[str, float]:
        return {**super().statistics(), "datagrams_dropped": float(self._held.dropped)}

    def backlog(self) -> int:
        return self._transport.engine.datagrams_waiting

    def __repr__(self) -> str:
        return "<QuicDatagramFlow>"


def datagram_flow(
    transport: QuicTransport, observer: FlowObserver, properties: TransportProperties
) -> QuicDatagramFlow:
    """The Flow of a new connection whose Messages are datagrams."""
    flow = QuicDatagramFlow(transport, observer, properties)
    transport.flows[DATAGRAMS] = flow
    transport.take_datagram = flow.take_datagram
    return flow


def no_datagrams() -> EstablishmentError:
    """The peer does not take any."""
    return EstablishmentError("the peer's QUIC takes no datagrams (RFC 9221)", Reason.ESTABLISHMENT_FAILED)


def datagram_context() -> MessageContext:
    """What is to be said of a Message that came as a datagram."""
    context = MessageContext()
    context.msg_reliable = False
    context.msg_ordered = False
    return context
