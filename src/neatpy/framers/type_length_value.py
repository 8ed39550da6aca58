"""Type, length, value: each Message behind a number that says what it is, and its length."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Literal

from neatpy.errors import Reason, SendError
from neatpy.framers.header import HOLD_LIMIT, HeaderFramer
from neatpy.framers.length_prefix import integer_format

if TYPE_CHECKING:
    from neatpy.message import MessageContext


class TypeLengthValueFramer(HeaderFramer):
    """Type (``type_size`` bytes), length of the value (``length_size`` bytes; either is 1, 2, 4 or 8), value.

    The type is the framer's metadata ``"type"``: ``context.add(framer, "type", 7)`` before a send, an int or
    ``type_size`` bytes; ``context.get(framer, "type")`` on a received Message, an int. Messages without it get
    ``default_type``. ``max_length`` (bytes of value) is by default the largest that the length can say.
    """

    __slots__ = ("_header", "byteorder", "default_type", "type_size")

    def __init__(
        self,
        type_size: int = 4,
        length_size: int = 4,
        byteorder: Literal["big", "little"] = "big",
        max_length: int | None = None,
        *,
        default_type: int = 0,
        hold_limit: int = HOLD_LIMIT,
    ) -> None:
        order = ">" if byteorder == "big" else "<"
        types = integer_format(type_size, byteorder, "type_size")
        self._header = Struct(order + types + integer_format(length_size, byteorder, "length_size"))
        largest = (1 << 8 * length_size) - 1
        super().__init__(
            self._header.size, largest if max_length is None else min(max_length, largest), hold_limit
        )
        if not 0 <= default_type < 1 << 8 * type_size:
            raise ValueError(f"default_type {default_type} does not fit into {type_size} bytes")
        self.type_size = type_size
        self.byteorder = byteorder
        self.default_type = default_type

    def make_header(self, length: int, context: MessageContext) -> bytes:
        return self._header.pack(self._type_of(context), length)

    def payload_length(self, data: bytes, offset: int) -> int:
        length: int = self._header.unpack_from(data, offset)[1]
        return length

    def metadata(self, data: bytes, offset: int) -> dict[str, object] | None:
        return {"type": self._header.unpack_from(data, offset)[0]}

    def _type_of(self, context: MessageContext) -> int:
        given = context.get(self, "type")
        if given is None:
            return self.default_type
        if isinstance(given, bytes | bytearray) and len(given) == self.type_size:
            return int.from_bytes(given, "big" if self.byteorder == "big" else "little")
        if isinstance(given, int) and 0 <= given < 1 << 8 * self.type_size:
            return given
        raise SendError(
            f"type {given!r} is neither an int that fits into {self.type_size} bytes nor so many bytes",
            Reason.INVALID_MESSAGE_PROPERTIES,
        )
