"""A Flow that is one stream of a QUIC connection: bytes in order, with an end on each side.

Sending stops when the engine holds enough that was never sent; receiving stops by flow control, which gives the peer
credit for what the application has taken. The stream is bidirectional, or unidirectional where the Connection is.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from neatpy.enumerations import Direction
from neatpy.errors import CloneError, ConnectionError, Reason, SendError
from neatpy.message import MessageContext
from neatpy.stacks._quic.carried import ABORTED, UNBOUND, CarriedFlow
from neatpy.stacks._quic.order import USUAL
from neatpy.stacks.contract import Data, Flow, FlowObserver

if TYPE_CHECKING:
    from neatpy.errors import TransportServicesError
    from neatpy.properties import TransportProperties
    from neatpy.stacks._quic.connection import QuicTransport
    from neatpy.stacks.contract import Stack

PEER_LINGER = 10.0
"""Seconds for which a Flow that has delivered everything waits for the peer to end its side too."""

LINGER = 10.0
"""Seconds that ``close`` waits for the peer to acknowledge more of what was sent before it gives up."""

_SEND_ONLY, _RECEIVE_ONLY = Direction.UNIDIRECTIONAL_SEND, Direction.UNIDIRECTIONAL_RECEIVE

_ONLY_PEER = "only the peer sends on this stream"

UNSENT = 256 * 1024
"""Bytes that the engine holds for a stream beyond what it has sent: enough for a burst, and little to regret."""


class Rest:
    """What of one send the engine has not taken yet."""

    __slots__ = ("data", "token")

    def __init__(self, data: memoryview, token: object) -> None:
        self.data = data
        self.token = token


class QuicFlow(CarriedFlow):
    """One stream."""

    __slots__ = (
        "_can_send",
        "_delivered",
        "_early",
        "_finishing",
        "_gone",
        "_held",
        "_last_backlog",
        "_peer_finished",
        "_refused",
        "_rests",
        "_usable",
    )

    def __init__(
        self, transport: QuicTransport, stream: int, observer: FlowObserver, properties: TransportProperties
    ) -> None:
        CarriedFlow.__init__(self, transport, stream, observer, properties)
        self._finishing = self._gone = False
        self._use_directions()
        self._refused: TransportServicesError | None = None
        self._early = b""
        """What has travelled with the handshake and will be given to ``send`` once more."""
        self._rests: deque[Rest] | None = None
        self._held: deque[bytes] | None = None
        self._last_backlog = -1
        priority = properties.conn_priority
        if priority != USUAL:
            transport.prioritise(stream, priority)

    def _use_directions(self) -> None:
        peers = self._transport.engine.is_peers(self.stream)
        self._usable = not peers
        """Whether the engine knows the stream; one of the peer's is not there before the peer opens it."""
        self._can_send = True
        self._peer_finished = self._delivered = False
        if self.stream & 2:  # one way only
            self._can_send = not peers
            self._delivered = peers
            self._peer_finished = not peers

    @property
    def expected(self) -> bool:
        """Whether it waits for the peer to open its stream."""
        return not self._usable

    def adopt(self, stream: int) -> None:
        """The peer has begun with this stream and not with the one that was expected."""
        transport = self._transport
        transport.forget_stream(self)
        self.stream = stream
        transport.flows[stream] = self
        transport.prioritise(stream, self._properties.conn_priority)
        self._use_directions()
        rests = self._rests
        if rests is not None and not self._can_send:
            self._rests = None
            self.writable = True
            for rest in rests:
                self.observer.failed(rest.token, SendError(_ONLY_PEER, Reason.PROTOCOL_FAILED))
        self.peer_opened()

    @property
    def stack(self) -> Stack:
        return self._transport.stack.alone

    @property
    def can_send(self) -> bool:
        return self._can_send and self._refused is None

    # Sending

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        refused = self._refused
        if refused is not None:
            raise SendError(str(refused), refused.reason, context)
        if not self._can_send:
            raise SendError(_ONLY_PEER, Reason.PROTOCOL_FAILED, context)
        if self._early:
            data = self._unsaid(data)
        transport = self._transport
        size = len(data)
        if self._rests is None and self._usable:
            engine = transport.engine
            if engine.unsent(self.stream) + size <= UNSENT:
                if size:
                    if transport.order.matters:
                        self._begin(engine)
                    engine.write(self.stream, data, False)
                    transport.schedule()
                return True
        whole = data if type(data) is bytes else bytes(data)
        if self._rests is None:
            self._rests = deque()
        self._rests.append(Rest(memoryview(whole), token))
        self.writable = False
        transport.wants_to_write(self)
        transport.schedule()
        return False

    def send_last(self, data: Data, context: MessageContext, token: object) -> bool:
        engine = self._transport.engine
        if (
            self._rests is None
            and self._usable
            and self._can_send
            and not self._finishing
            and not self._early
            and self._refused is None
            and engine.unsent(self.stream) + len(data) <= UNSENT
        ):
            self._finishing = True
            if self._transport.order.matters:
                self._begin(engine)
            engine.write(self.stream, data, True)  # in one frame
            self._transport.schedule()
            return True
        return super().send_last(data, context, token)

    def send_early(self, data: bytes) -> None:
        """Have this travel with the handshake: 0-RTT, if the server takes it, else right after."""
        self._transport.engine.write(self.stream, data, False)
        self._early = data

    def _unsaid(self, data: Data) -> bytes:
        """The part of what is to be sent that was not sent early."""
        whole, early = bytes(data), self._early
        if not early.startswith(whole) and not whole.startswith(early):
            raise SendError("something else was sent with the handshake", Reason.PROTOCOL_FAILED)
        self._early = early[len(whole) :]
        return whole[len(early) :]

    def _begin(self, engine: Any) -> None:
        if not engine.unsent(self.stream):
            self._transport.stream_begins(self.stream)

    def has_room(self) -> bool:
        """Whether the engine should have more of ours."""
        return self._usable and self._transport.engine.unsent(self.stream) < UNSENT

    def write_on(self) -> bool:
        """Give the engine as much as there is room for; whether nothing of ours waits any longer."""
        engine, stream = self._transport.engine, self.stream
        rests = self._rests
        while rests and not self.over:
            room = UNSENT - engine.unsent(stream)
            if room <= 0:
                return False
            rest = rests[0]
            if self._transport.order.matters:
                self._begin(engine)
            engine.write(stream, rest.data[:room], False)
            if room < len(rest.data):
                rest.data = rest.data[room:]
                return False
            rests.popleft()
            self.observer.sent(rest.token)
        if self.over:
            return True
        self._rests = None
        self.writable = True
        if self._finishing:
            self._write_end()
        else:
            self.observer.writable()
        return self._rests is None

    def peer_opened(self) -> None:
        """The peer has opened the stream, so that we can use it too."""
        if not self._usable:
            self._usable = True
            if self._rests is not None or self._finishing:
                self._transport.wants_to_write(self)
                self._transport.schedule()

    def opened(self) -> None:
        """The handshake is complete: have the peer see the stream, even if it is the peer that speaks first."""
        if self._usable and self._can_send and not self.over:
            self._transport.engine.announce(self.stream)

    def peer_refuses(self, code: int) -> None:
        """The peer wants nothing more of us; what it says goes on."""
        if self._delivered or self.over:
            return
        self._delivered = True
        error = ConnectionError(f"the peer stopped receiving, with code {code}", Reason.CONNECTION_ABORTED)
        self._refused = error
        rests, self._rests = self._rests, None
        self.writable = True
        for rest in rests or ():
            if not self.over:
                self.observer.failed(rest.token, SendError(str(error), error.reason))
        if self.closing:
            self._end_if_delivered()

    # Receiving

    def take(self, data: bytes, ended: bool) -> None:
        """Data came on this stream, or its end."""
        if self.closing or self.over:
            self._transport.engine.taken(self.stream, len(data))
        elif self._paused or self._held is not None:
            if self._held is None:
                self._held = deque()
            if data:
                self._held.append(data)
        elif data:
            transport = self._transport
            transport.engine.taken(self.stream, len(data))
            context = None if transport.handshaken else _early_context()
            if ended:
                self._peer_finished = True
                self.observer.finished_with(data, context)
                if self.over:
                    self._forget_if_done()
                return
            self.observer.received(data, context, False)
        if ended:
            self._end_receiving()

    def _end_receiving(self) -> None:
        self._peer_finished = True
        if self._held is None and not self.closing and not self.over:
            self.observer.finished()
        self._forget_if_done()

    def resume_receiving(self) -> None:
        if self._paused:
            self._paused = False
            if self._held is not None:
                self._transport.loop.call_soon(self._tell_held)

    def _tell_rest(self) -> None:
        held, self._held = self._held, None
        for data in held or ():
            self.observer.received(data, None, False)
        if held is not None and self._peer_finished:
            self.observer.finished()

    def _tell_held(self) -> None:
        held = self._held
        transport = self._transport
        while held and not self._paused and not self.closing and not self.over:
            data = held.popleft()
            if not self._gone:
                transport.engine.taken(self.stream, len(data))
            self.observer.received(data, None, False)
        if held is not None and not held:
            self._held = None
            if self._peer_finished and not self.closing and not self.over:
                self.observer.finished()
        transport.schedule()

    # Ending

    def finish(self) -> None:
        if not self._finishing:
            self._finishing = True
            if self._rests is None and self._usable:
                self._write_end()

    def _write_end(self) -> None:
        if self._can_send and self._refused is None and not self._gone:
            self._transport.engine.write(self.stream, b"", True)
            self._transport.schedule()

    def close(self) -> None:
        if self.closing or self.over:
            return
        self.closing = True
        if self._held is not None:
            self._discard_held()
        if self._gone:
            self._transport.loop.call_soon(self.ended, None)
            return
        if self._can_send and not self._usable and self._rests is None:
            self._delivered = True  # the peer never opened it, and there is nothing to tell
        if not self._can_send:
            self._transport.engine.stop(self.stream, 0)
            self._transport.schedule()
        self.finish()
        if self._delivered:
            self._end_if_delivered()
        else:
            self._linger(LINGER, self._check_linger)

    def _discard_held(self) -> None:
        held, self._held = self._held, None
        if held and not self._gone:
            self._transport.engine.taken(self.stream, sum(map(len, held)))
            self._transport.schedule()

    def delivered(self) -> None:
        """The peer has all that we sent, and knows that it is all."""
        self._delivered = True
        if self.closing or self.over:
            self._end_if_delivered()

    def _end_if_delivered(self) -> None:
        if not self._delivered:
            return
        if self.closing and not self.over:
            observer, self.observer = self.observer, UNBOUND
            self._mark_over()
            if not self._peer_finished:
                self._linger(PEER_LINGER, self._linger_over)
                self._transport.linger_if_over()
            observer.closed(None)
        self._forget_if_done()

    def _forget_if_done(self) -> None:
        """Once both sides have ended, nothing is left to remember."""
        if self.over and self._delivered and self._peer_finished:
            if self._lingers:
                self._end_linger()
            self._transport.forget(self)

    def _linger_over(self) -> None:
        """The peer goes on sending what nobody reads."""
        self._transport.engine.stop(self.stream, 0)
        self._peer_finished = True
        self._forget_if_done()

    def _check_linger(self) -> None:
        backlog = self.backlog()
        transport = self._transport
        if not backlog:
            self._end_heard()
            return
        if backlog == self._last_backlog:
            self.ended(ConnectionError("not all of what was sent could be delivered in time", Reason.TIMEOUT))
            transport.abandon(self)
            return
        self._last_backlog = backlog
        self._linger(LINGER, self._check_linger)

    def peer_left(self) -> None:
        if self.closing and not self.over and not self.backlog():
            self._end_heard()

    def _end_heard(self) -> None:
        """The peer has everything, and is not there any more to say that it has heard of the end as well."""
        self.ended(None)
        self._transport.leave(self)

    def peer_aborted(self, code: int) -> None:
        """The peer has reset its stream."""
        if self._peer_finished:
            return
        if not self.over and not self.closing:
            self._transport.engine.reset(self.stream, ABORTED)
            self._delivered = True
            self.ended(
                ConnectionError(f"the peer aborted the stream, with code {code}", Reason.CONNECTION_ABORTED)
            )
        self._peer_finished = True
        self._forget_if_done()

    def connection_closed(self, error: TransportServicesError) -> None:
        """The connection is over. That is well if the peer has said all it had to say, and has all of ours."""
        self._gone = True
        if self.over:
            if self._lingers:
                self._end_linger()
            return
        engine = self._transport.engine
        unheard = self._rests is not None or (self._can_send and engine.undelivered(self.stream))
        if unheard and self._finishing and not engine.unsent(self.stream):
            # Some close as soon as they have what they want, and acknowledge no more: it was all sent, and they are
            # content.
            unheard = not self._transport.closed_well
        if self.closing:
            self.ended(error if unheard else None)
        elif self._peer_finished and not unheard and self._transport.closed_well:
            self._refused = ConnectionError("the peer has closed the connection", Reason.CONNECTION_ABORTED)
        else:
            self.ended(error)

    def _mark_over(self) -> None:
        CarriedFlow._mark_over(self)
        self._rests = None
        if self._held is not None:
            self._discard_held()

    # Streams and properties

    def open_sibling(self, properties: TransportProperties) -> Flow:
        return self._transport.open(properties)

    def read(self, name: str) -> object:
        if name in ("send_msg_max_len", "recv_msg_max_len"):
            return sys.maxsize
        return None

    def backlog(self) -> int:
        waiting = sum(len(rest.data) for rest in self._rests) if self._rests else 0
        return waiting + (0 if self._gone else self._transport.engine.undelivered(self.stream))

    def __repr__(self) -> str:
        return f"<QuicFlow stream {self.stream}>"


def _early_context() -> MessageContext:
    context = MessageContext()
    context.early_data = True
    return context


def first_flow(transport: QuicTransport, observer: FlowObserver, properties: TransportProperties) -> QuicFlow:
    """The Flow of a new connection: its first bidirectional stream, which the client opens, or the first unidirectional
    one of whoever sends."""
    direction = properties.direction
    engine = transport.engine
    if direction is _SEND_ONLY:
        stream = engine.open_stream(True)
    elif direction is _RECEIVE_ONLY:
        stream = 3 if transport.is_client else 2
    else:
        stream = engine.open_stream(False) if transport.is_client else 0
    if transport.unheard and engine.is_peers(stream):
        stream = min(transport.unheard)  # what the client has begun with
        del transport.unheard[stream]
    flow = transport.first_kind(transport, stream, observer, properties)
    transport.flows[stream] = flow
    if engine.knows(stream):
        flow.peer_opened()
    return flow


def sibling_flow(transport: QuicTransport, properties: TransportProperties) -> QuicFlow:
    """A Flow on a new stream of ours. Raises CloneError where the peer allows no more, or the connection is over."""
    if transport.over:
        raise CloneError("the connection has ended", Reason.CONNECTION_CLOSED)
    direction = properties.direction
    one_way = direction is _SEND_ONLY
    if direction is _RECEIVE_ONLY:
        raise CloneError("only the peer can open a stream on which we receive alone", Reason.NOT_CLONEABLE)
    if not transport.engine.may_open(one_way):
        raise CloneError("the peer allows no more streams on this connection", Reason.NOT_CLONEABLE)
    stream = transport.engine.open_stream(one_way)
    flow = QuicFlow(transport, stream, UNBOUND, properties)
    transport.flows[stream] = flow
    return flow
