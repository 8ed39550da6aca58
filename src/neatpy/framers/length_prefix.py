"""Each Message behind its length: the simplest framing there is. The room knows this one format."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Literal

from neatpy.framer_shortcuts import shortens
from neatpy.framers.header import HOLD_LIMIT, JOIN_LIMIT, HeaderFramer

if TYPE_CHECKING:
    from neatpy.framer import Frame, MessageFramer
    from neatpy.message import MessageContext

_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def integer_format(size: int, byteorder: str, name: str) -> str:
    """The struct format of an unsigned integer, without byte order. Raises ValueError for other sizes and orders."""
    if size not in _FORMATS:
        raise ValueError(f"{name} is 1, 2, 4 or 8 bytes, not {size!r}")
    if byteorder not in ("big", "little"):
        raise ValueError(f"byteorder is 'big' or 'little', not {byteorder!r}")
    return _FORMATS[size]


class LengthPrefixFramer(HeaderFramer):
    """Length (``size`` bytes: 1, 2, 4 or 8), then the payload.

    ``max_length`` (bytes) is by default the largest length that the prefix can say.
    """

    __slots__ = ("_pack", "_unpack", "byteorder")

    def __init__(
        self,
        size: int = 4,
        byteorder: Literal["big", "little"] = "big",
        max_length: int | None = None,
        *,
        hold_limit: int = HOLD_LIMIT,
    ) -> None:
        prefix = Struct((">" if byteorder == "big" else "<") + integer_format(size, byteorder, "size"))
        largest = (1 << 8 * size) - 1
        super().__init__(size, largest if max_length is None else min(max_length, largest), hold_limit)
        self.byteorder = byteorder
        self._pack = prefix.pack
        self._unpack = prefix.unpack_from

    def make_header(self, length: int, context: MessageContext) -> bytes:
        return self._pack(length)

    @shortens("new_sent_message", "make_header")
    def whole_frame(self, handle: MessageFramer, data: bytes, context: MessageContext) -> bytes | None:
        # As in the base class, with a call spared: this runs once for every small Message.
        length = len(data)
        if handle.state is not None or length > JOIN_LIMIT or length > self.max_length:
            return None
        pack = self._pack
        return pack(length) + data

    def payload_length(self, data: bytes, offset: int) -> int:
        length: int = self._unpack(data, offset)[0]
        return length

    @shortens("handle_received_data", "payload_length", "metadata")
    def whole_payload(self, data: bytes) -> bytes | None:
        unpack, size = self._unpack, self.header_size
        return data[size:] if unpack(data)[0] == len(data) - size <= self.max_length else None

    @shortens("handle_received_data", "payload_length", "metadata")
    def next_frame(self, data: bytes, offset: int) -> Frame | None:
        # As in the base class, with the calls spared: this runs once for every small Message.
        start = offset + self.header_size
        if start > len(data):
            return None
        (length,) = self._unpack(data, offset)
        if length > self.max_length:
            self._checked_length(data, offset)
        end = start + length
        return None if end > len(data) else (start, end, end, None)
