"""Framers written for NEATPy 1.0, and how they work as framers of today.

A framer of 1.0 calls ``connection.message_framer``; before each call of one of its methods that is set to the handle
through which this framer works on this Connection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import neatpy
from neatpy.classic.connection import Connection
from neatpy.classic.message_context import MessageContext, todays
from neatpy.classic.utils import shim_print

__all__ = ["ExampleFramer", "Framer", "MessageFramer", "shim_print"]


class Framer(ABC):
    """Base of framers. One object may serve many Connections. NEATPy itself reports what a sent handler is to hear:
    the ``sent_handler`` here is None, and only to be passed on."""

    @abstractmethod
    def start(self, connection: Any) -> object:
        """The transport connection is there; what is sent now goes before all Messages. The Connection is ready when
        this returns, unless it returns False: then ``make_connection_ready`` or ``fail_connection`` is to follow."""

    @abstractmethod
    def stop(self, connection: Any) -> object:
        """The Connection is ending; what is sent now goes after all Messages."""

    @abstractmethod
    def new_sent_message(
        self,
        connection: Any,
        message_data: bytes,
        message_context: Any,
        sent_handler: Any,
        is_end_of_message: bool,
    ) -> None:
        """A Message, or part of one, is to be sent: pass on with ``send`` what becomes of it."""

    @abstractmethod
    def handle_received_data(self, connection: Any) -> None:
        """Data came: look at it with ``parse``, then deliver and advance. Called again as long as data remains; where
        ``parse`` finds too little, it does not return, and this is called again when there is enough."""


class ExampleFramer(Framer):
    """Puts the length of each Message, in four bytes, before it."""

    def start(self, connection: Any) -> None:
        """There is no handshake."""

    def stop(self, connection: Any) -> None:
        """There is no farewell."""

    def new_sent_message(
        self, connection: Any, data: bytes, context: Any, sent_handler: Any, is_end: bool
    ) -> None:
        """Send the length and the Message."""
        framed = len(data).to_bytes(4, "big") + data
        connection.message_framer.send(connection, framed, context, sent_handler, is_end)

    def handle_received_data(self, connection: Any) -> None:
        """Read the length, then deliver so many bytes."""
        framer = connection.message_framer
        header, context, _ = framer.parse(connection, 4, 4)
        framer.advance_receive_cursor(connection, 4)
        framer.deliver_and_advance_receive_cursor(connection, context, int.from_bytes(header, "big"), True)


class MessageFramer:
    """What a framer of 1.0 calls. It belongs to one framer on one Connection; ``connection`` is there for old times'
    sake."""

    def __init__(self, handle: neatpy.MessageFramer, connection: Connection) -> None:
        self._handle = handle
        self._connection = connection

    def run(self, method: Callable[..., object], *arguments: Any) -> object:
        """Call a method of the framer. Those above and below call each other, so that the MessageFramer set before is
        set again."""
        connection = self._connection
        before, connection.message_framer = connection.message_framer, self
        try:
            return method(connection, *arguments)
        finally:
            if before is not None:
                connection.message_framer = before

    def send(
        self, connection: Any, data: bytes, message_context: Any, sent_handler: Any, is_end_of_message: bool
    ) -> None:
        """Pass data on to the next framer below, or to the protocol stack."""
        self._handle.send(data, todays(message_context), is_end_of_message)

    def parse(self, connection: Any, minimum: int, maximum: float) -> tuple[bytes, MessageContext, bool]:
        """Look at ``minimum`` to ``maximum`` bytes from the cursor on. If fewer are there this does not return: it
        unwinds out of ``handle_received_data``."""
        data, context, is_end = self._handle.parse(minimum, maximum)
        return data, MessageContext(context), is_end

    def advance_receive_cursor(self, connection: Any, length: int) -> None:
        """Discard so many bytes."""
        self._handle.advance_receive_cursor(length)

    def deliver_and_advance_receive_cursor(
        self, connection: Any, context: MessageContext | None, length: int, is_end: bool
    ) -> None:
        """Deliver so many bytes as a Message, or part of one; some may be still to come."""
        self._handle.deliver_and_advance_receive_cursor(todays(context), length, is_end)

    def deliver(self, connection: Any, context: MessageContext | None, data: bytes, is_end: bool) -> None:
        """Deliver data that the framer made itself."""
        self._handle.deliver(todays(context), data, is_end)

    def prepend_framer(self, connection: Any, other_framer: Framer) -> None:
        """Put a framer between this one and the application, while this one is not ready: in ``start``, say."""
        self._handle.prepend_framer(Adapter(other_framer, self._connection.preconnection.connection_for))

    def append_framer(self, new_framer: Framer) -> None:
        """The same, as 1.0 also called it."""
        self.prepend_framer(None, new_framer)

    def make_connection_ready(self, connection: Any = None) -> None:
        """The framer's handshake is complete."""
        self._handle.make_connection_ready()

    def fail_connection(self, connection: Any, error: object) -> None:
        """End the Connection; before it is ready, only this attempt to establish it."""
        if not isinstance(error, Exception):
            error = neatpy.ConnectionError(str(error), neatpy.Reason.PROTOCOL_FAILED)
        self._handle.fail_connection(error)


class Adapter(neatpy.Framer):
    """A framer of 1.0 as one of today; ``connection_for`` finds the Connection of 1.0, too."""

    def __init__(self, framer: Framer, connection_for: Callable[[neatpy.Connection], Connection]) -> None:
        if not isinstance(framer, Framer):
            raise TypeError(f"a framer is an object of a subclass of Framer, not {framer!r}")
        self._framer = framer
        self._connection_for = connection_for

    def start(self, connection: neatpy.Connection, handle: neatpy.MessageFramer) -> None:
        """The old ``start``, and ready."""
        handle.state = MessageFramer(handle, self._connection_for(connection))
        if handle.state.run(self._framer.start) is not False:
            handle.make_connection_ready()

    def stop(self, connection: neatpy.Connection, handle: neatpy.MessageFramer) -> None:
        """The old ``stop``, and closed."""
        handle.state.run(self._framer.stop)
        handle.make_connection_closed()

    def new_sent_message(
        self, connection: Any, handle: neatpy.MessageFramer, data: Any, context: Any, end_of_message: bool
    ) -> None:
        """The old ``new_sent_message``."""
        message = bytes(data), MessageContext(context), None, end_of_message
        handle.state.run(self._framer.new_sent_message, *message)

    def handle_received_data(self, connection: neatpy.Connection, handle: neatpy.MessageFramer) -> None:
        """The old ``handle_received_data``."""
        handle.state.run(self._framer.handle_received_data)
