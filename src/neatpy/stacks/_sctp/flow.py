"""The Flow that is one stream of an SCTP association, the same number in both directions.

Messages keep their boundaries whatever their size: what the association does not take at once follows when it takes
more. Which stream is served next, and what becomes of the association, is for the room of the streams.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from neatpy.enumerations import Preference
from neatpy.errors import ConnectionError, Reason, SendError
from neatpy.message import OVERHEAD, MessageContext
from neatpy.stacks._sctp.options import LONGEST
from neatpy.stacks._sharing import read_ahead
from neatpy.stacks.contract import Address, Data, Flow, FlowObserver

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from neatpy.errors import TransportServicesError
    from neatpy.properties import TransportProperties
    from neatpy.stacks._sctp.streams import Streams
    from neatpy.stacks.contract import Stack

LINGER = 10.0
"""Seconds that ``close`` waits for the peer to acknowledge more of what was sent before it gives up."""

_LOOK = 1.0
"""Seconds after which ``close`` looks for itself."""

_UNWANTED = (Preference.AVOID, Preference.PROHIBIT)
_UNBOUND = FlowObserver()
_ABANDONED = (b"", MessageContext(), False)
"""Stands among what is held where a Message has no end."""


class Rest:
    """What of one send the association has not taken yet."""

    __slots__ = ("data", "end_of_message", "options", "token")

    def __init__(self, data: Data, end_of_message: bool, options: SendOptions, token: object) -> None:
        self.data = data
        self.end_of_message = end_of_message
        self.options = options
        self.token = token


class SendOptions:
    """How one Message travels. ``lifetime`` is in milliseconds, ``retransmissions`` how often at most; None: reliably.
    ``context`` names it in reports of failure, 0 if nobody asks."""

    __slots__ = ("context", "lifetime", "payload_protocol_id", "retransmissions", "unordered")

    def __init__(
        self,
        unordered: bool,
        payload_protocol_id: int,
        lifetime: int | None,
        retransmissions: int | None,
        context: int,
    ) -> None:
        self.unordered = unordered
        self.payload_protocol_id = payload_protocol_id
        self.lifetime = lifetime
        self.retransmissions = retransmissions
        self.context = context


_PLAIN = SendOptions(False, 0, None, None, 0)


class SctpFlow(Flow):
    """One stream of an association."""

    __slots__ = (
        "_aside",
        "_context",
        "_finishing",
        "_held",
        "_held_part",
        "_held_size",
        "_last_backlog",
        "_linger",
        "_open_unordered",
        "_paused",
        "_peer_finished",
        "_plain",
        "_properties",
        "_rests",
        "_silent_since",
        "_streams",
        "_unordered",
        "_unreliable",
        "closing",
        "over",
        "priority",
        "stream",
        "writable",
    )

    preserves_boundaries = True

    closing: bool
    """``close`` was called: what arrives is discarded."""
    over: bool
    """Nothing is to be told any more."""
    priority: int
    """``conn_priority``: lower numbers are more urgent."""

    def __init__(
        self, streams: Streams, stream: int, observer: FlowObserver, properties: TransportProperties
    ) -> None:
        self._streams = streams
        self.stream = stream
        self.observer = observer
        self.writable = True
        self.closing = self.over = False
        self._finishing = self._paused = self._peer_finished = False
        self._rests: deque[Rest] | None = None
        self._held_part: Rest | None = None
        self._context: MessageContext | None = None
        self._open_unordered: bool | None = None
        self._aside: list[tuple[bytes, bool, int, bool]] | None = None
        self._held: deque[tuple[bytes, MessageContext, bool]] | None = None
        self._held_size = 0
        self._linger: asyncio.TimerHandle | None = None
        self._last_backlog = -1
        self._silent_since = 0.0
        self.use(properties)

    def use(self, properties: TransportProperties) -> None:
        """Defaults of Messages from now on."""
        self._properties = properties
        self.priority = int(properties.conn_priority)
        self._unordered = properties.preserve_order in _UNWANTED
        self._unreliable = properties.reliability in _UNWANTED
        self._plain = not self._unordered and not self._unreliable

    @property
    def stack(self) -> Stack:
        return self._streams.stack

    @property
    def local_address(self) -> Address:
        return self._streams.carrier.local_address

    @property
    def remote_address(self) -> Address:
        return self._streams.carrier.remote_address

    @property
    def properties(self) -> TransportProperties:
        """The properties that act on this stream."""
        return self._properties

    # Sending

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        if (
            end_of_message
            and type(data) is bytes
            and data
            and self._rests is None
            and self._held_part is None
            and self._plain
            and not context.explicit()
        ):
            taken = self._streams.pass_whole(self.stream, data)
            if taken == len(data):
                return True
            self._wait(Rest(memoryview(data)[taken:] if taken else data, True, _PLAIN, token))
            return False
        held, self._held_part = self._held_part, None
        if not len(data):
            return self._send_empty(held, context, end_of_message, token)
        if held is not None and (self._rests is not None or not self._pass(held)):
            self._wait(held)
        rest = Rest(data, end_of_message, self._options(context, end_of_message, token), token)
        if not end_of_message:
            # The association cannot be told later that this was all, so the last part waits for the next.
            rest.data = data if type(data) is bytes else bytes(data)
            rest.token = None
            self._held_part = rest
            if self._rests is None:
                return True
            self._wait(Rest(b"", False, rest.options, token))  # to be told of in turn
            return False
        if self._rests is None and self._pass(rest):
            return rest.options.context == 0
        self._wait(rest)
        return False

    def _send_empty(
        self, held: Rest | None, context: MessageContext, end_of_message: bool, token: object
    ) -> bool:
        if held is not None:
            held.end_of_message = end_of_message
            if not end_of_message:
                self._held_part = held
                return True
            held.token = token
            if self._rests is None and self._pass(held):
                return held.options.context == 0
            self._wait(held)
            return False
        if context.final or not end_of_message:
            return self._rests is None  # nothing on the wire but what ``finish`` says
        raise SendError(
            "SCTP has no empty messages (RFC 9260 section 3.3.1)", Reason.PROTOCOL_FAILED, context
        )

    def _options(self, context: MessageContext, end_of_message: bool, token: object) -> SendOptions:
        ordered, reliable, lifetime = context.msg_ordered, context.msg_reliable, context.msg_lifetime
        unordered = self._unordered if ordered is None else not ordered
        unreliable = self._unreliable if reliable is None else not reliable
        milliseconds = None if lifetime > LONGEST else max(1, math.ceil(lifetime * 1000))
        name = (
            self._streams.watch(self, token, lifetime) if milliseconds is not None and end_of_message else 0
        )
        return SendOptions(
            unordered,
            context.neatpy_payload_protocol_id,
            milliseconds,
            0 if unreliable else None,
            name,
        )

    def _pass(self, rest: Rest) -> bool:
        """Hand over as much as the association takes; whether that was all."""
        size = len(rest.data)
        if not size:
            return True
        taken = self._streams.pass_down(self.stream, rest)
        if taken >= size:
            return True
        if taken > 0:
            rest.data = memoryview(rest.data)[taken:]
        return False

    def _wait(self, rest: Rest) -> None:
        self.writable = False
        whole = rest.data.obj if isinstance(rest.data, memoryview) else rest.data
        if type(whole) is not bytes:
            rest.data = bytes(rest.data)  # what is not ours may change once the call is over
        if self._rests is None:
            self._rests = deque()
        self._rests.append(rest)
        self._streams.wants_to_write(self)

    def write_on(self) -> bool:
        """The association takes more; whether nothing of ours waits any longer."""
        rests = self._rests
        while rests:
            rest = rests[0]
            if not self._pass(rest):
                return False
            rests.popleft()
            if rest.token is not None and rest.options.context == 0:
                self.observer.sent(rest.token)
                if self.over:
                    return True
        self._rests = None
        if self.over:
            self._streams.given_up(self)
            return True
        self.writable = not self._finishing
        if self._finishing and self._held_part is None:
            self._streams.end_stream(self)
        elif not self.closing:
            self.observer.writable()
        return True

    @property
    def mid_message(self) -> bool:
        """Whether part of a Message has left and the rest waits."""
        rests = self._rests
        return rests is not None and len(rests) > 0 and isinstance(rests[0].data, memoryview)

    @property
    def unsent(self) -> int:
        """Bytes that wait here."""
        return sum(len(rest.data) for rest in self._rests) if self._rests else 0

    # Receiving

    def take(self, data: bytes, unordered: bool, payload_protocol_id: int, complete: bool) -> None:
        """Data came on this stream."""
        if self.closing or self.over:
            return
        if (
            complete
            and not unordered
            and not payload_protocol_id
            and not self._paused
            and self._held is None
            and self._context is None
        ):
            self.observer.received(data, None, True)
            return
        if self._open_unordered is not None and self._open_unordered is not unordered:
            # With interleaving, unordered and ordered Messages of one stream may come mixed; one at a time goes up.
            if self._aside is None:
                self._aside = []
            self._aside.append((data, unordered, payload_protocol_id, complete))
            return
        context = self._context
        if context is None:
            context = MessageContext()
            if unordered:
                context.msg_ordered = False
            if payload_protocol_id:
                context.neatpy_payload_protocol_id = payload_protocol_id
        self._context = None if complete else context
        self._open_unordered = None if complete else unordered
        if self._paused or self._held is not None:  # what is held goes first
            self._hold(data, context, complete)
        else:
            self.observer.received(data, context, complete)
        if complete and self._aside:
            aside, self._aside = self._aside, None
            for piece in aside:
                self.take(*piece)

    def give_up_arriving(self) -> None:
        """The Message that is arriving will have no end."""
        if self._context is None or self.closing or self.over:
            return
        self._context = self._open_unordered = None
        if self._held is None:
            self.observer.abandoned()
        else:
            self._held.append(_ABANDONED)
            self._count_held(OVERHEAD)

    def _hold(self, data: bytes, context: MessageContext, complete: bool) -> None:
        if self._held is None:
            self._held = deque()
        self._held.append((data, context, complete))
        self._count_held(len(data) + OVERHEAD)

    def _count_held(self, more: int) -> None:
        """So many bytes more are held, or fewer."""
        self._held_size += more
        self._streams.hold(self, self._held_size, more)

    def _drop_held(self) -> None:
        self._held = None
        if self._held_size:
            self._count_held(-self._held_size)

    @property
    def reads_ahead(self) -> int:
        return read_ahead(self._streams.count)

    def pause_receiving(self) -> None:
        self._paused = True

    def resume_receiving(self) -> None:
        if self._paused:
            self._paused = False
            if self._held is not None or self._peer_finished:
                self._streams.loop.call_soon(self._tell_held)

    def _tell_held(self) -> None:
        held = self._held
        while held and not self._paused and not self.closing:
            piece = held.popleft()
            self._count_held(-len(piece[0]) - OVERHEAD)
            self._tell(piece)
        if not held or self.closing:
            self._drop_held()
            if self._peer_finished and not self.closing and not self.over:
                self.observer.finished()

    def _tell(self, piece: tuple[bytes, MessageContext, bool]) -> None:
        if piece is _ABANDONED:
            self.observer.abandoned()
        else:
            self.observer.received(*piece)

    def peer_finished(self) -> None:
        """The peer has reset its stream, or shuts the association down."""
        if not self._peer_finished:
            self._peer_finished = True
            if self._held is None and not self.closing and not self.over:
                self.observer.finished()

    # Ending

    def finish(self) -> None:
        if not self._finishing:
            self._finishing = True
            self._flush_held_part()
            if self._rests is None:
                self._streams.end_stream(self)

    def close(self) -> None:
        if self.closing or self.over:
            return
        self.closing = True
        self._flush_held_part()
        self._drop_held()
        self._silent_since = self._streams.loop.time()
        self._linger = self._streams.loop.call_later(_LOOK, self._check_linger)
        if not self._finishing:
            self._finishing = True
            if self._rests is None:
                self._streams.end_stream(self)
        self._streams.close_stream(self)

    def _flush_held_part(self) -> None:
        """No more parts come: what was kept of an unended Message goes too, but not as its end, lest it look whole."""
        held, self._held_part = self._held_part, None
        if held is not None and (self._rests is not None or not self._pass(held)):
            self._wait(held)

    def _check_linger(self) -> None:
        """Mostly the association tells when the peer has everything. It cannot while it reads nothing since nobody
        receives from another stream."""
        backlog, now = self.backlog(), self._streams.loop.time()
        if not backlog:
            self._streams.end_flow(self)
        elif backlog == self._last_backlog and now - self._silent_since >= LINGER:
            self._streams.abandon(self)
            self.ended(ConnectionError("not all of what was sent could be delivered in time", Reason.TIMEOUT))
        else:
            if backlog != self._last_backlog:
                self._last_backlog, self._silent_since = backlog, now
            self._linger = self._streams.loop.call_later(_LOOK, self._check_linger)

    def abort(self) -> None:
        if not self.over:
            self.observer = _UNBOUND
            begun = self._rest_of_message()
            self._end()
            self._rests = begun
            self._streams.abandon(self)

    def _rest_of_message(self) -> deque[Rest] | None:
        """The rest of the Message that is the first to wait, if it has an end."""
        rests: deque[Rest] = deque()
        for rest in self._rests or ():
            rest.token = None
            rests.append(rest)
            if rest.end_of_message:
                return rests
        return None

    def ended(self, error: TransportServicesError | None) -> None:
        """Report Closed, or what broke."""
        if self.over:
            return
        held = None if self.closing else self._held
        for piece in held or ():
            self._tell(piece)
        if held and self._peer_finished:
            self.observer.finished()
        observer, self.observer = self.observer, _UNBOUND
        self._end()
        observer.closed(error)

    def _end(self) -> None:
        self.over = True
        self.writable = False
        self._rests = self._held_part = None
        self._drop_held()
        if self._linger is not None:
            self._linger.cancel()

    # Streams and properties

    def open_sibling(self, properties: TransportProperties) -> Flow | Coroutine[Any, Any, Flow]:
        return self._streams.open(properties)

    def apply(self, name: str, value: object) -> None:
        changed = self._properties.snapshot()
        changed.set(name, value)
        self.use(changed)
        self._streams.apply(self, name, value, changed)

    def read(self, name: str) -> object:
        if name in ("send_msg_max_len", "recv_msg_max_len"):
            return sys.maxsize
        if name == "singular_transmission_msg_max_len":
            return self._streams.largest_unfragmented()
        return None

    def statistics(self) -> dict[str, float]:
        return self._streams.statistics()

    def security(self) -> dict[str, object]:
        return self._streams.carrier.security()

    def backlog(self) -> int:
        held = 0 if self._held_part is None else len(self._held_part.data)
        return self.unsent + held + self._streams.undelivered()

    @property
    def paths(self) -> Sequence[tuple[Address, Address]]:
        return ((self.local_address, self.remote_address),)

    def __repr__(self) -> str:
        return f"<SctpFlow stream {self.stream}>"


def is_bound(flow: Flow) -> bool:
    """Whether somebody has put an observer on a Flow that was offered."""
    return flow.observer is not _UNBOUND


def unbound() -> Any:
    """The observer of a Flow that nobody has taken yet."""
    return _UNBOUND
