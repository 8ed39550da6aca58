"""The Connection of NEATPy 1.0, over today's, which exists as soon as an event loop runs."""

from __future__ import annotations

import asyncio
import copy
import math
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import neatpy
from neatpy.classic.enumerations import ConnectionState, SendErrorReason, SupportedProtocolStacks
from neatpy.classic.message_context import MessageContext, MessageDataObject
from neatpy.classic.running import Activity, once_begun
from neatpy.classic.translation import TABLE, apply
from neatpy.classic.transport_properties import ConnectionProperties, TransportProperties
from neatpy.classic.utils import Handler, fire, log, shim_print, takes_two

if TYPE_CHECKING:
    from neatpy.classic.preconnection import Preconnection

__all__ = [
    "Connection", "ConnectionProperties", "ConnectionState", "MessageContext", "MessageDataObject", "SendErrorReason",
    "SupportedProtocolStacks", "TransportProperties", "shim_print",
]  # fmt: skip

_Answer = asyncio.Future[neatpy.Message]


class Connection(Activity[neatpy.Connection]):
    """A Connection, made by a Preconnection, a Listener or ``clone``; never directly.

    ``HANDLE_STATE_READY``, ``HANDLE_STATE_CLOSED`` and ``HANDLE_STATE_CONNECTION_ERROR`` are functions of the
    Connection, or None.
    """

    HANDLE_STATE_READY: Handler | None = None
    HANDLE_STATE_CLOSED: Handler | None = None
    HANDLE_STATE_CONNECTION_ERROR: Handler | None = None
    first_sent_handler: Handler | None = None
    """For the Message of ``initiate_with_send``."""
    message_framer: Any = None
    """The MessageFramer of the framer that is at work just now."""
    _clone_error_handler: Handler | None = None
    _parts: neatpy.MessageContext | None = None
    """Of the Message that has been sent in part."""

    def __init__(self, preconnection: Preconnection, open_real: Callable[[], neatpy.Connection]) -> None:
        super().__init__(preconnection, open_real)
        self._unreported = 0  # sends of which nobody was told yet what became of them
        self._requests: deque[tuple[Handler | None, int | None, int | None]] = deque()
        self._answer: _Answer | None = None  # to the first request, or, while there is none, what is ahead
        self._kept: tuple[neatpy.Message, int] | None = None  # and how much of it has been handed out
        self._over: neatpy.Reason | None = None  # why nothing more will come
        self._is_stream: bool | None = None  # known when it is established
        self._is_ahead = self._in_use = self._in_parts = False

    @once_begun
    def send(
        self,
        message_data: neatpy.Data,
        sent_handler: Handler | None = None,
        message_context: MessageContext | None = None,
        end_of_message: bool = True,
    ) -> None:
        """Send a Message, or with ``end_of_message`` False part of one: parts with the same context, or one after
        the other without any, are one Message. ``sent_handler(connection, error_reason)`` hears that it was sent
        (the reason is None then) or why not; one with a single argument hears only of what was sent."""
        context = None if message_context is None else message_context.translated
        if context is None and not (end_of_message and self._parts is None):
            context = self._parts or neatpy.MessageContext()
            self._parts = None if end_of_message else context
        self._report_to(sent_handler, self._real.send(message_data, context, end_of_message=end_of_message))

    def receive(
        self, handler: Handler | None, min_incomplete_length: int | None = None, max_length: float = math.inf
    ) -> None:
        """Ask for one Message. ``handler(connection, message_data_object, message_context, is_end_of_message, error)``
        is called once: ``is_end_of_message`` is None for a whole Message, False for a part of one and True for its
        last part. Parts come from ``min_incomplete_length`` bytes on, or above ``max_length``.

        Over a stream of bytes without a framer, whatever bytes are there are taken for a Message; it is False where
        they reach ``max_length``. When the Connection breaks, ``error`` says how and there are no data. Nothing comes
        of it when no more can come, as handlers of 1.0 receive again whatever they are told. Raises ValueError for
        lengths below 1 (but 0 bytes on are whole Messages)."""
        if (min_incomplete_length or 1) < 1 or max_length < 1:
            raise ValueError("a receive takes at least 1 byte")
        if self._over is None:
            maximum = None if max_length == math.inf else int(max_length)
            self._requests.append((handler, min_incomplete_length or None, maximum))
            if self._answer is None or (self._is_ahead and self._answer.cancel()):
                self._ask()  # no longer ahead, of which nothing is lost

    def batch(self, batch_block: Callable[[], object]) -> None:
        """Call a function, and send together what it sends."""
        with nullcontext() if self._real is None else self._real.batch():
            batch_block()  # what it sends before there is a loop waits anyhow

    def clone(self, clone_error_handler: Handler | None = None) -> Connection:
        """Another Connection to the same peer: a stream where the stack has streams. If it fails,
        ``clone_error_handler(clone)``, or ``(clone, error)`` if it takes two, is called."""
        clone = Connection(self.preconnection, lambda: self._real.clone())
        clone._clone_error_handler = clone_error_handler
        return clone.begin_soon()

    @once_begun
    def close(self) -> None:
        """Deliver everything sent, then end. A receive that waits for more than there is gets what there is."""
        if self._requests and (self._answer is None or self._answer.cancel()):
            self._ask(1)  # before it is discarded
        self._real.close()

    @once_begun
    def abort(self) -> None:
        """End at once; what was not delivered is discarded."""
        self._real.abort()

    @once_begun
    def stop(self) -> None:
        """End everything that runs: ``start()`` returns when all Connections have delivered what was sent."""
        self.runner.stop()

    def get_properties(self) -> dict[str, Any]:
        """A snapshot: ``state``, ``send`` and ``receive`` (whether one can), and ``props``, TransportProperties with
        the Connection Properties as they are now."""
        found = copy.deepcopy(self.preconnection.transport_properties)
        if self._real is None:
            return {"state": ConnectionState.ESTABLISHING, "send": False, "receive": False, "props": found}
        now = self._real.get_properties()
        told = {prop: TABLE[prop].back(now.get) for prop in ConnectionProperties}
        found.connection_properties |= {prop: value for prop, value in told.items() if value is not None}
        state = ConnectionState[self._real.state.name]
        return {"state": state, "send": now["can_send"], "receive": now["can_receive"], "props": found}

    @once_begun
    def set_property(self, connection_property: Any, value: object) -> None:
        """Set a Connection Property, on the whole group except for PRIORITY. What is none, is read-only or is refused
        is logged and ignored."""
        set_one = self._real.set_property
        apply(connection_property, value, set_one, ConnectionProperties, "Connection Property")

    @property
    def transport_stack(self) -> SupportedProtocolStacks | None:
        """The transport protocol in use, whatever runs over it; None while establishing."""
        stack = None if self._real is None else self._real.stack
        known = SupportedProtocolStacks.__members__
        return next((known[part] for part in (stack or "").upper().split("/") if part in known), None)

    # For the Runner

    def listen_to(self, real: neatpy.Connection) -> None:
        real.on_ready = self._ready
        real.on_closed = self.closed
        real.on_establishment_error = self._not_established
        real.on_connection_error = self._broken
        if real.initial_send is not None:
            self._report_to(self.first_sent_handler, real.initial_send)

    # Events

    def _ready(self, real: neatpy.Connection) -> None:
        self.established(initiated=True)
        fire(self.HANDLE_STATE_READY, self)

    def closed(self, real: neatpy.Connection) -> None:
        """The Connection has ended in order."""
        self.ended(self.HANDLE_STATE_CLOSED, self)

    def _not_established(self, real: neatpy.Connection, error: neatpy.TransportServicesError) -> None:
        clone_handler = self._clone_error_handler
        if clone_handler is not None:
            self.ended(clone_handler, *(self, error)[: 1 + takes_two(clone_handler)])
        elif error.reason is neatpy.Reason.CONNECTION_CLOSED:
            self.closed(real)
        else:
            self._broken(real, error)

    def _broken(self, real: neatpy.Connection, error: neatpy.TransportServicesError) -> None:
        self.failed(error, self.HANDLE_STATE_CONNECTION_ERROR, self)

    # What comes

    def established(self, *, initiated: bool) -> None:
        """Messages come from now on. Over a stream any bytes will do; otherwise whole Messages come."""
        stack, streams = self._real.stack, self.preconnection.streams
        if stack not in streams:
            streams[stack] = not self._real.get_properties()["preserve_msg_boundaries"]
        self._is_stream = streams[stack] and not self.preconnection.framers
        self._in_use = initiated
        self._ask()

    def _ask(self, least: int | None = None) -> None:
        """Ask for what the first request wants. While there is none, look one Message ahead: that is how the end of the
        peer's data is noticed, of which 1.0 told a program that did not receive just then, too. What is found is kept
        for the next receive."""
        if self._is_stream is None:
            return
        self._is_ahead = not self._requests
        if self._requests:
            _, minimum, maximum = self._requests[0]
            if self._kept is not None:
                self._answer = self._take_kept(*self._kept, maximum)
            else:
                least = least or minimum or (1 if self._is_stream else None)
                self._answer = self._real.receive(least, maximum)
        elif self._kept is None and self._over is None:
            self._answer = self._real.receive()
        if self._answer is not None:
            self._answer.add_done_callback(self._answered)

    def _take_kept(self, message: neatpy.Message, start: int, maximum: int | None) -> _Answer:
        end = len(message) if maximum is None else start + maximum
        self._kept = (message, end) if end < len(message) else None
        whole = message.end_of_message and self._kept is None
        answer: _Answer = asyncio.get_running_loop().create_future()
        answer.set_result(neatpy.Message(message.data[start:end], message.context, whole))
        return answer

    def _answered(self, answer: _Answer, *, late: bool = False) -> None:
        if answer is not self._answer:
            return  # it was withdrawn
        if self._unreported and not late:  # who sent is to hear of that before the answer comes
            asyncio.get_running_loop().call_soon(lambda: self._answered(answer, late=True))
            return
        self._answer = None
        try:
            message = answer.result()
        except neatpy.ReceiveError as error:
            self._end(error, None if self._is_ahead else self._requests.popleft()[0])
        else:
            if self._is_stream and not message.data:
                pass  # the end of a stream is no Message
            elif self._is_ahead:
                self._kept = message, 0
            else:
                self._tell(message, *self._requests.popleft())
        finally:
            if self._answer is None:  # the handler has not received again
                self._ask()

    def _tell(self, message: neatpy.Message, handler: Handler | None, _: object, maximum: int | None) -> None:
        data, whole, self._in_use = message.data, message.end_of_message, True
        if self._is_stream:
            whole = maximum is None or len(data) < maximum
        is_end = whole if self._in_parts or not whole else None
        self._in_parts = not whole and not self._is_stream
        if handler is not None:
            handler(self, MessageDataObject(data, len(data)), MessageContext(message), is_end, None)

    def _end(self, error: neatpy.ReceiveError, handler: Handler | None) -> None:
        """No more will come. The end of the peer's data is no error, and those who wait hear nothing; anything else
        they are told. On an accepted Connection that broke before anything came neither: most of these have only lost
        the peer's race between stacks, and handlers of 1.0 would take it for an empty Message."""
        self._over = error.reason
        self._close_if_done()
        if self._in_use and error.reason is not neatpy.Reason.CONNECTION_CLOSED:
            fire(handler, self, MessageDataObject(b"", 0), MessageContext(), None, error)

    def _close_if_done(self) -> None:
        """When all that the peer sent has been received, that was the end of the Connection in 1.0, and programs do not
        close by themselves; but what sent handlers go on to send is still to leave."""
        if self._over is neatpy.Reason.CONNECTION_CLOSED and not self._unreported:
            self._real.close()

    # What became of sends

    def _report_to(self, handler: Handler | None, sent: asyncio.Future[neatpy.MessageContext]) -> None:
        error = sent.exception() if sent.done() else None
        if handler is not None or error is not None:
            refusal = error and self._reason(error)  # as things are now
            self._unreported += 1
            sent.add_done_callback(lambda _: self._report(handler, refusal or self._reason(sent.exception())))

    def _report(self, handler: Handler | None, reason: SendErrorReason | None) -> None:
        self._unreported -= 1
        try:
            if takes_two(handler):
                fire(handler, self, reason)
            elif reason is None:
                fire(handler, self)
            else:
                log.warning("a Message was not sent: %s", reason.value)
        finally:
            self._close_if_done()

    def _reason(self, error: BaseException | None) -> SendErrorReason | None:
        if error is None:
            return None
        if isinstance(error, neatpy.Expired):
            return SendErrorReason.MESSAGE_EXPIRED
        found = _REASONS.get(getattr(error, "reason", None), SendErrorReason.FAILURE_UNDERLYING_STACK)
        if found is SendErrorReason.CONNECTION_CLOSING and self._real.state in _OPEN:
            return SendErrorReason.FINAL_MESSAGE_PASSED  # nothing else closes an open Connection to sending
        return found


_OPEN = (neatpy.ConnectionState.ESTABLISHING, neatpy.ConnectionState.ESTABLISHED)
_REASONS: dict[object, SendErrorReason] = {
    neatpy.Reason.MESSAGE_TOO_LARGE: SendErrorReason.MESSAGE_TOO_LARGE,
    neatpy.Reason.INVALID_MESSAGE_PROPERTIES: SendErrorReason.INCONSISTENT_PROPERTIES_PASSED,
    neatpy.Reason.INVALID_CONFIGURATION: SendErrorReason.INCONSISTENT_PROPERTIES_PASSED,
    neatpy.Reason.CONNECTION_CLOSED: SendErrorReason.CONNECTION_CLOSING,
    neatpy.Reason.LOCAL_ABORT: SendErrorReason.CONNECTION_CLOSING,
}
