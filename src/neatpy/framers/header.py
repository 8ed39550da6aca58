"""The family of framers in which a header of fixed size tells the length of the payload that follows it.

Two methods make a framer of this family: one writes the header, one reads the length from it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from neatpy.errors import Reason, SendError
from neatpy.framer import Framer

if TYPE_CHECKING:
    from neatpy.connection import Connection
    from neatpy.framer import Frame, MessageFramer
    from neatpy.message import Data, MessageContext

HOLD_LIMIT = 16 * 1024 * 1024
"""Bytes of partial sends that wait for the end of their Message, because its length goes first."""

JOIN_LIMIT = 64 * 1024
"""Payloads up to this size (bytes) are copied behind their header; for larger ones a second write is cheaper."""


class HeaderFramer(Framer):
    """``header_size`` bytes, which tell the payload's length, then the payload.

    ``max_length`` is the largest payload in bytes, both ways: sending more is a SendError with reason
    MESSAGE_TOO_LARGE, receiving more fails the Connection. The parts of a partial send wait for the last one, up to
    ``hold_limit`` bytes of them.
    """

    __slots__ = ("header_size", "hold_limit", "max_length")

    def __init__(self, header_size: int, max_length: int, hold_limit: int = HOLD_LIMIT) -> None:
        if max_length < 0 or hold_limit < 0:
            raise ValueError("max_length and hold_limit are numbers of bytes, at least 0")
        self.header_size = header_size
        self.max_length = max_length
        self.hold_limit = hold_limit

    @abstractmethod
    def make_header(self, length: int, context: MessageContext) -> bytes:
        """The header for a payload of ``length`` bytes. Raises SendError if the context does not fit the format."""

    @abstractmethod
    def payload_length(self, data: bytes, offset: int) -> int:
        """The length that the header at ``offset`` tells. Raises ValueError if it is malformed."""

    def metadata(self, data: bytes, offset: int) -> dict[str, object] | None:
        """What else the header at ``offset`` says, for the Message's context."""
        return None

    def new_sent_message(
        self,
        connection: Connection,
        handle: MessageFramer,
        data: Data,
        context: MessageContext,
        end_of_message: bool,
    ) -> None:
        if handle.state is not None or not end_of_message:
            whole = self._hold(handle, data, end_of_message)
            if whole is None:
                return
            data = whole
        length = len(data) if type(data) is bytes else memoryview(data).nbytes
        if length > self.max_length:
            raise _too_large(length, self.max_length)
        header = self.make_header(length, context)
        if length <= JOIN_LIMIT:
            handle.send(header + data, context)
        else:
            handle.send(header, context, False)
            handle.send(data, context)

    def whole_frame(self, handle: MessageFramer, data: bytes, context: MessageContext) -> bytes | None:
        length = len(data)
        if handle.state is not None or length > JOIN_LIMIT or length > self.max_length:
            return None
        return self.make_header(length, context) + data

    def handle_received_data(self, connection: Connection, handle: MessageFramer) -> None:
        size = self.header_size
        header, _, _ = handle.parse(size, size)
        length = self._checked_length(header, 0)
        metadata = self.metadata(header, 0)
        context = None if metadata is None else handle.new_context(**metadata)
        handle.advance_receive_cursor(size)
        handle.deliver_and_advance_receive_cursor(context, length, True)

    def next_frame(self, data: bytes, offset: int) -> Frame | None:
        start = offset + self.header_size
        if start > len(data):
            return None
        end = start + self._checked_length(data, offset)
        return None if end > len(data) else (start, end, end, self.metadata(data, offset))

    def message_limit(self, below: int) -> int:
        return max(0, min(self.max_length, below - self.header_size))

    def _checked_length(self, data: bytes, offset: int) -> int:
        length = self.payload_length(data, offset)
        if length > self.max_length:
            raise ValueError(
                f"the peer announces a Message of {length} bytes; the limit is {self.max_length}"
            )
        return length

    def _hold(self, handle: MessageFramer, data: Data, end_of_message: bool) -> bytes | None:
        """The whole Message once its last part is there."""
        held: _Held = handle.state or _Held()
        handle.state = None if end_of_message else held
        held.size += memoryview(data).nbytes
        limit = min(self.max_length, self.hold_limit)
        if held.size > limit:
            held.parts = []
            raise _too_large(held.size, limit)
        held.parts.append(bytes(data))
        return b"".join(held.parts) if end_of_message else None


class _Held:
    """The parts of the Message that is being sent. Once over the limit it stays so until its last part."""

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0


def _too_large(length: int, limit: int) -> SendError:
    return SendError(
        f"a Message of {length} bytes; the framer takes at most {limit}", Reason.MESSAGE_TOO_LARGE
    )
