"""Message Framers as their authors see them (RFC 9623 section 6).

A :class:`Framer` turns Messages into bytes and bytes into Messages. One object may serve many Connections, so it keeps
nothing of a Connection in itself: each Connection gives it a :class:`MessageFramer`, the handle, whose ``state`` is the
framer's to use. Handles form a chain from the Flow up to the Connection. Here is what a framer is called for, and what
it may call; *when* it is called is the business of :mod:`neatpy.framer_handle`. Everything is plain logic in memory:
the room knows no protocol, no socket and no clock.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from neatpy.receive_buffer import Buffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from neatpy.connection import Connection
    from neatpy.message import Data, MessageContext
    from neatpy.stacks.contract import FlowObserver

    Frame = tuple[int, int, int, dict[str, object] | None]
    """Where a frame lies in a buffer: start and end of the payload, start of the next frame, and the metadata that the
    framer puts on the Message's context, or None."""


class Framer(ABC):
    """Base of all framers. Methods are plain functions (not ``async``), called on the loop; they never block."""

    __slots__ = ()

    def start(self, connection: Connection, handle: MessageFramer) -> None:
        """The Flow below is ready. Whoever overrides this may send and parse a handshake, and owes
        ``handle.make_connection_ready()`` or ``handle.fail_connection(error)``. By default the Connection is ready."""
        handle.make_connection_ready()

    def stop(self, connection: Connection, handle: MessageFramer) -> None:
        """The Connection is ending; called once. Whoever overrides this may send and parse a closing handshake, and
        owes ``handle.make_connection_closed()``, for which there is little time. After an abort or an error nothing
        that is sent here leaves any more, and nobody waits. By default there is nothing to do."""
        handle.make_connection_closed()

    @abstractmethod
    def new_sent_message(
        self,
        connection: Connection,
        handle: MessageFramer,
        data: Data,
        context: MessageContext,
        end_of_message: bool,
    ) -> None:
        """A Message is to be sent, or a part of one if ``end_of_message`` is False; parts of different Messages never
        mix. Send what becomes of it with ``handle.send``, or keep it until the last part is there.

        ``data`` that is not ``bytes`` is only valid during the call. Raise ``SendError`` for a Message that cannot be
        framed; nothing of it is sent then. Any other exception becomes a SendError with reason PROTOCOL_FAILED."""

    @abstractmethod
    def handle_received_data(self, connection: Connection, handle: MessageFramer) -> None:
        """Data came: look at it with ``handle.parse``, then deliver and advance.

        Called again at once while data remains, and, if ``parse`` found too little, when there is enough. Called once
        more at the end of the data. An exception fails the Connection with reason DEFRAMING_FAILED."""

    def next_frame(self, data: bytes, offset: int) -> Frame | None:
        """A shortcut for speed, not needed for function: the bounds of the frame at ``offset`` if all of it is in
        ``data``, else None, upon which ``handle_received_data`` is called as ever.

        What it finds depends on these bytes alone, so that framers which have it, and no handshake, can have unreliable
        Messages travel apart from the stream (RFC 9622 section 9.1.3.7), where the stack carries datagrams beside it.

        Only asked between Messages, and only if no more derived class defines ``handle_received_data``."""
        return None

    def whole_frame(self, handle: MessageFramer, data: bytes, context: MessageContext) -> bytes | None:
        """The same for sending: all that a whole Message becomes, or None, upon which ``new_sent_message`` is called
        as ever. Raises SendError like it.

        Only asked if no more derived class defines ``new_sent_message``."""
        return None

    def whole_payload(self, data: bytes) -> bytes | None:
        """The reverse of ``whole_frame``, for requests and responses, which come one by one: the payload if ``data``
        are just one frame, without metadata, else None, upon which the others are asked as ever. So they are after an
        exception, which is theirs to raise again.

        Only asked where ``next_frame`` is. By default it asks ``next_frame`` itself."""
        frame = self.next_frame(data, 0)
        if frame is None or frame[2] != len(data) or frame[3] is not None:
            return None
        return data[frame[0] : frame[1]]

    def message_limit(self, below: int) -> int:
        """The largest Message (bytes) that can be framed where at most ``below`` bytes fit into one Message of the
        layer below."""
        return below


def checked_framer(framer: object) -> Framer:
    """The framer. Raises TypeError if it is none, or if one of its methods is ``async`` or a generator function: what
    such a method returns when it is called would be ignored, and nothing would happen."""
    if not isinstance(framer, Framer):
        raise TypeError(f"a framer is an object of a subclass of Framer, not {framer!r}")
    name = _method_that_is_not_plain(type(framer))
    if name is not None:
        raise TypeError(
            f"{type(framer).__name__}.{name} is an async or generator function; the methods of a framer are plain ones"
        )
    return framer


@lru_cache(maxsize=64)
def _method_that_is_not_plain(kind: type[Framer]) -> str | None:
    tests = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    for name, value in vars(Framer).items():
        if inspect.isfunction(value) and any(test(getattr(kind, name)) for test in tests):
            return name
    return None


class Chain(Protocol):
    """What the handles of one Connection share, for them alone: the Flow that they make up."""

    observer: FlowObserver
    blocked: bool
    """No more is to be delivered now."""
    holds_back: bool
    """What is delivered does not go straight to the observer."""
    over: bool

    @property
    def connection(self) -> Any:
        """The Connection, as framers get it."""

    def output(self, data: Data, context: MessageContext | None, end_of_message: bool) -> None:
        """The lowest framer sends."""

    def deliver(self, data: bytes, context: MessageContext | None, end_of_message: bool) -> None:
        """The topmost framer delivers."""

    def upward(self) -> Callable[[bytes, MessageContext | None, bool, bool], None]:
        """The shortest way to ``deliver``, valid until ``blocked`` changes."""

    def end_of_data(self) -> None:
        """All that the peer sent has been delivered."""

    def handle_ready(self) -> None:
        """A framer has made the Connection ready."""

    def handle_closed(self) -> None:
        """A framer has made the Connection closed."""

    def handle_passthrough(self) -> None:
        """A framer lets data pass from now on."""

    def fail(self, error: Exception) -> None:
        """The Connection fails."""

    def run_soon(self) -> None:
        """Look at what is buffered again, in a later turn of the loop."""

    def insert_above(self, handle: MessageFramer, framer: Framer) -> None:
        """Put a framer into the chain."""

    def make_context(self) -> MessageContext:
        """A new context."""


class Neighbour(Protocol):
    """The handle of the framer next above or below, as a handle sees it."""

    def push(self, data: Data, context: MessageContext, end_of_message: bool) -> None:
        """Something to be sent comes from above."""

    def receive(self, data: bytes, context: MessageContext | None, end_of_message: bool) -> None:
        """Data come from below."""


class NeedMore(BaseException):
    """Unwinds ``handle_received_data`` when ``parse`` finds too little. No ``except Exception`` shall catch it."""


class MessageFramer:
    """The handle of one framer on one Connection (RFC 9623 section 6).

    ``state`` is None at first and belongs to the framer.
    """

    __slots__ = (
        "_above",
        "_below",
        "_buffer",
        "_chain",
        "_closed",
        "_context",
        "_discarding",
        "_earmarked",
        "_earmarked_end",
        "_ended",
        "_framer",
        "_open",
        "_passthrough",
        "_progress",
        "_ready",
        "_wanted",
        "state",
    )

    state: Any

    def __init__(self, chain: Chain, framer: Framer) -> None:
        self._chain = chain
        self._framer = framer
        self.state = None
        self._above: Neighbour | None = None
        self._below: Neighbour | None = None
        # What there is to parse.
        self._buffer = Buffer()
        self._context: MessageContext | None = None
        self._ended = False  # the inbound Message, or the stream, is complete in the buffer
        # What the framer asked for.
        self._ready = self._closed = self._passthrough = False
        self._wanted = 0
        self._progress = 0
        self._earmarked = 0
        self._earmarked_end = self._discarding = False
        self._open: MessageContext | None = None  # of a Message that was delivered in part

    def __repr__(self) -> str:
        return f"<MessageFramer of {type(self._framer).__name__}>"

    # Sending

    def send(self, data: Data, context: MessageContext | None = None, end_of_message: bool = True) -> None:
        """Pass data on to the next framer below, or to the protocol stack.

        Several sends within one ``new_sent_message`` leave together. ``end_of_message`` is False if more of the same
        Message follows; on a byte stream it makes no difference. ``context`` is the Message's; None for data of the
        framer's own."""
        below = self._below
        if below is None:
            self._chain.output(data, context, end_of_message)
        else:
            below.push(data, self._chain.make_context() if context is None else context, end_of_message)

    # Parsing and delivering

    def parse(
        self, minimum: int = 1, maximum: float | None = None
    ) -> tuple[bytes, MessageContext | None, bool]:
        """Look at what is there, from the receive cursor on: at least ``minimum`` and at most ``maximum`` bytes (None
        or infinite: all). Nothing is consumed. It may be a copy, so ask for no more than is needed.

        Gives the data, the context of the Message below (None on a byte stream), and whether these data reach the end
        of that Message, or of the stream. If less than ``minimum`` is there, this does not return: it unwinds out of
        ``handle_received_data``, which is called again when there is enough. Only to be called from there."""
        available = self._buffer.size
        if available < minimum:
            self._wanted = minimum
            raise NeedMore
        size = available if maximum is None or maximum >= available else int(maximum)
        return self._buffer.peek(size), self._context, self._ended and size == available

    def advance_receive_cursor(self, length: int) -> None:
        """Discard ``length`` bytes; those that are not there yet are discarded when they come."""
        self._progress += 1
        missing = self._buffer.skip(_checked(length))
        if missing:
            self._earmark(missing)
            self._discarding = True

    def deliver(self, context: MessageContext | None, data: Data, end_of_message: bool = True) -> None:
        """Deliver data that the framer made itself as a Message, or as part of one. ``context`` None: a new one."""
        self._progress += 1
        self._emit(data if type(data) is bytes else bytes(data), context, end_of_message)

    def deliver_and_advance_receive_cursor(
        self, context: MessageContext | None, length: int, end_of_message: bool = True
    ) -> None:
        """Deliver the next ``length`` bytes, without copying where possible.

        Those that are not there yet are earmarked: they go up as they come, as parts of the same Message, without
        being held here, and the framer is not called before all are through."""
        self._progress += 1
        buffer = self._buffer
        if _checked(length) <= buffer.size:
            self._emit(buffer.take(length), context, end_of_message)
            return
        self._earmark(length - buffer.size)
        self._earmarked_end = end_of_message
        if self._open is None:
            self._open = self.new_context() if context is None else context
        if buffer.size:
            self._emit(buffer.take(buffer.size), None, False)

    def new_context(self, **metadata: object) -> MessageContext:
        """A context for a Message to be delivered: with what is known of the Message below it, and with this metadata
        of the framer's, which the application reads by ``context.get(framer, key)``."""
        inbound = self._context
        if inbound is None:
            context = self._chain.make_context()
        else:
            context = inbound.copy()
            context.ecn, context.early_data = inbound.ecn, inbound.early_data
        for key, value in metadata.items():
            context.add(self._framer, key, value)
        return context

    # The life of the Connection

    def make_connection_ready(self) -> None:
        """The framer's setup or handshake is complete; the framer above may start."""
        if not self._ready:
            self._ready = True
            self._progress += 1
            self._chain.handle_ready()

    def make_connection_closed(self) -> None:
        """The framer is done with ``stop``."""
        if not self._closed:
            self._closed = True
            self._chain.handle_closed()

    def fail_connection(self, error: Exception) -> None:
        """End the Connection with this error; before ready, only this attempt to establish it."""
        self._chain.fail(error)

    def prepend_framer(self, framer: Framer) -> None:
        """Put another framer directly above this one, between it and the application, to start when this one is
        ready. Raises RuntimeError once this framer is ready, TypeError as ``Preconnection.add_framer``."""
        if self._ready:
            raise RuntimeError("a framer can be prepended only before make_connection_ready()")
        self._chain.insert_above(self, checked_framer(framer))

    def start_passthrough(self) -> None:
        """From now on, data pass this framer by unchanged in both directions; what is buffered goes up."""
        self._passthrough = True
        self._progress += 1
        self._chain.handle_passthrough()
        if self._buffer.size:
            self._chain.run_soon()

    # Delivering

    def _emit(self, data: bytes, context: MessageContext | None, end_of_message: bool) -> None:
        """Deliver; all parts of a Message have one context."""
        if self._open is not None:
            context = self._open
            if end_of_message:
                self._open = None
        elif not end_of_message:
            context = self._open = self.new_context() if context is None else context
        elif context is None and self._context is not None:
            context = self.new_context()
        self._forward(data, context, end_of_message)

    def _forward(self, data: bytes, context: MessageContext | None, end_of_message: bool) -> None:
        if self._above is None:
            self._chain.deliver(data, context, end_of_message)
        else:
            self._above.receive(data, context, end_of_message)

    def _earmark(self, missing: int) -> None:
        if self._earmarked:
            raise RuntimeError("bytes that are still to come have been earmarked already")
        self._earmarked = missing
        self._discarding = False


def _checked(length: int) -> int:
    if length < 0 or length == math.inf:
        raise ValueError(f"a length is a finite number of bytes, at least 0, not {length}")
    return length
