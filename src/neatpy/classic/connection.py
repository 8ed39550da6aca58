"""The Connection of NEATPy 1.0, over today's, which exists as soon as an event loop runs."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import neatpy
from neatpy.classic.enumerations import ConnectionState, SendErrorReason, SupportedProtocolStacks
from neatpy.classic.message_context import MessageContext, MessageDataObject, todays
from neatpy.classic.receiving import Receiving
from neatpy.classic.running import once_begun
from neatpy.classic.translation import TABLE, apply
from neatpy.classic.transport_properties import ConnectionProperties, TransportProperties
from neatpy.classic.utils import Handler, fire, log, shim_print, takes_two

__all__ = [
    "Connection", "ConnectionProperties", "ConnectionState", "MessageContext", "MessageDataObject", "SendErrorReason",
    "SupportedProtocolStacks", "TransportProperties", "shim_print",
]  # fmt: skip


class Connection(Receiving):
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
    _parts: neatpy.MessageContext | None = None  # of the Message that has been sent in part

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
        context = todays(message_context)
        if context is None and not (end_of_message and self._parts is None):
            context = self._parts or neatpy.MessageContext()
            self._parts = None if end_of_message else context
        self._report_to(sent_handler, self._real.send(message_data, context, end_of_message=end_of_message))

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
        self.hand_over()
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

    # For the Run, and for Listeners

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

    # What became of sends

    def _report_to(self, handler: Handler | None, future: asyncio.Future[neatpy.MessageContext]) -> None:
        refusal = self._reason(future) if future.done() else None
        if handler is not None or refusal is not None:
            self.unreported += 1
            future.add_done_callback(lambda _: self._report(handler, refusal or self._reason(future)))

    def _report(self, handler: Handler | None, reason: SendErrorReason | None) -> None:
        self.unreported -= 1
        try:
            if takes_two(handler):
                fire(handler, self, reason)
            elif reason is None:
                fire(handler, self)
            else:
                log.warning("a Message was not sent: %s", reason.value)
        finally:
            self.close_if_done()

    def _reason(self, sent: asyncio.Future[neatpy.MessageContext]) -> SendErrorReason | None:
        if (error := sent.exception()) is None:
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
