"""Messages with a delimiter behind each, such as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neatpy.errors import Reason, SendError
from neatpy.framer import Framer

if TYPE_CHECKING:
    from neatpy.connection import Connection
    from neatpy.framer import Frame, MessageFramer
    from neatpy.message import Data, MessageContext

MAX_LENGTH = 1024 * 1024

JOIN_LIMIT = 64 * 1024
"""Payloads up to this size (bytes) are copied before their delimiter; for larger ones a second write is cheaper."""


class DelimiterFramer(Framer):
    r"""The payload, then ``delimiter``, which must not occur in it: sending such a Message is a SendError with reason
    INVALID_MESSAGE_PROPERTIES.

    The default is for lines that end with a newline. Most Internet protocols, and telnet clients, end them with
    ``b"\r\n"``: with the default delimiter each Message of theirs would end with a carriage return.

    ``max_length`` is the largest payload in bytes, both ways. With ``keep_delimiter`` received Messages end with their
    delimiter. Parts of a partial send leave at once. Data after the last delimiter when the peer finishes, such as a
    last line without its newline, are no Message: the Connection fails with reason DEFRAMING_FAILED, as what was cut
    off cannot be told from what is whole.
    """

    __slots__ = ("delimiter", "keep_delimiter", "max_length")

    def __init__(
        self, delimiter: bytes = b"\n", max_length: int = MAX_LENGTH, *, keep_delimiter: bool = False
    ) -> None:
        if not isinstance(delimiter, bytes):
            raise TypeError(f"delimiter is bytes, not {type(delimiter).__name__}")
        if not delimiter:
            raise ValueError("delimiter is at least one byte")
        if max_length < 0:
            raise ValueError("max_length is a number of bytes, at least 0")
        self.delimiter = delimiter
        self.max_length = max_length
        self.keep_delimiter = keep_delimiter

    def new_sent_message(
        self,
        connection: Connection,
        handle: MessageFramer,
        data: Data,
        context: MessageContext,
        end_of_message: bool,
    ) -> None:
        if type(data) is not bytes:
            data = bytes(data)
        state: _State | None = handle.state
        if state is None and not end_of_message:
            state = handle.state = _State()
        begun, tail = (0, b"") if state is None else (state.sent, state.tail)
        if begun + len(data) > self.max_length:
            raise SendError(f"the framer takes at most {self.max_length} bytes", Reason.MESSAGE_TOO_LARGE)
        delimiter = self.delimiter
        if self._would_split(tail, data, end_of_message):
            raise SendError(
                f"the Message contains the delimiter {delimiter!r}", Reason.INVALID_MESSAGE_PROPERTIES
            )
        if state is not None:
            state.sent = 0 if end_of_message else begun + len(data)
            state.tail = b"" if end_of_message else self._end_of(tail, data)
        if not end_of_message:
            handle.send(data, context, False)
        elif len(data) <= JOIN_LIMIT:
            handle.send(data + delimiter, context)
        else:
            handle.send(data, context, False)
            handle.send(delimiter, context)

    def handle_received_data(self, connection: Connection, handle: MessageFramer) -> None:
        """Only called where no whole Message lies in one chunk; what has no delimiter yet goes up as a part."""
        data, _, _ = handle.parse(1)
        state: _State | None = handle.state
        begun = 0 if state is None else state.received
        at = data.find(self.delimiter)
        if at >= 0:
            self._check_received(begun + at)
            if state is not None:
                state.received = 0
            kept = len(self.delimiter) if self.keep_delimiter else 0
            handle.deliver_and_advance_receive_cursor(None, at + kept, True)
            handle.advance_receive_cursor(len(self.delimiter) - kept)
            return
        perhaps = self._begun_delimiter(data)
        surely = len(data) - perhaps
        self._check_received(begun + surely)
        if surely:
            if state is None:
                state = handle.state = _State()
            state.received = begun + surely
            handle.deliver_and_advance_receive_cursor(None, surely, False)
        handle.parse(perhaps + 1)

    def next_frame(self, data: bytes, offset: int) -> Frame | None:
        at = data.find(self.delimiter, offset)
        if at < 0:
            return None
        if at - offset > self.max_length:
            self._check_received(at - offset)
        end = at + len(self.delimiter)
        return offset, end if self.keep_delimiter else at, end, None

    def message_limit(self, below: int) -> int:
        return max(0, min(self.max_length, below - len(self.delimiter)))

    def _check_received(self, length: int) -> None:
        if length > self.max_length:
            raise ValueError(
                f"the peer sends a Message of {length} bytes or more; the limit is {self.max_length}"
            )

    def _would_split(self, tail: bytes, data: bytes, end_of_message: bool) -> bool:
        """Whether the peer would find a delimiter before the right one, be it across the ends of ``data``."""
        delimiter = self.delimiter
        if delimiter in data:
            return True
        if len(delimiter) == 1:
            return False
        if tail and delimiter in tail + data[: len(delimiter) - 1]:
            return True
        last = self._end_of(tail, data)
        return end_of_message and (last + delimiter).find(delimiter) != len(last)

    def _end_of(self, tail: bytes, data: bytes) -> bytes:
        """The last bytes sent, in which a delimiter may begin."""
        length = len(self.delimiter) - 1
        return (tail + data[-length:])[-length:] if length else b""

    def _begun_delimiter(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a delimiter."""
        for length in range(min(len(self.delimiter) - 1, len(data)), 0, -1):
            if data.endswith(self.delimiter[:length]):
                return length
        return 0


class _State:
    """How much of the open Messages has gone either way, and the last bytes sent of the outbound one."""

    __slots__ = ("received", "sent", "tail")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0
        self.tail = b""
