"""Messages and their contexts (RFC 9622 section 9.1). Plain data, cheap to make: one of each for every Message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from neatpy.enumerations import PropertyKind
from neatpy.errors import PropertyError
from neatpy.property_table import MessageProperties, find_property

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint


Data = bytes | bytearray | memoryview
"""What can be sent."""

OVERHEAD = 256
"""Bytes that a Message which waits is taken to cost beside its data, so that many tiny ones are bounded too."""


class Message:
    """Data that arrived: a whole Message, or part of one until ``end_of_message`` is True.

    ``bytes(message)`` and ``len(message)`` are those of ``data``. A Message is true, even an empty one.
    """

    __slots__ = ("_context", "data", "end_of_message")

    data: bytes
    end_of_message: bool

    def __init__(self, data: bytes, context: MessageContext | LastOf, end_of_message: bool) -> None:
        self.data = data
        self.end_of_message = end_of_message
        # Until the context is asked for, this may be its origin: the Connection, or LastOf that.
        self._context: object = context

    @property
    def context(self) -> MessageContext:
        """The Message's properties and metadata, and where it came from; made when it is first asked for."""
        context = self._context
        if not isinstance(context, MessageContext):
            origin = context
            if type(origin) is LastOf:
                origin = origin.origin
                context = last_context()
            else:
                context = MessageContext()
            context.origin = origin
            self._context = context
        return context

    def __bytes__(self) -> bytes:
        return self.data

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        shown = repr(self.data) if len(self.data) <= 32 else f"{self.data[:32]!r}... ({len(self.data)} bytes)"
        return f"Message({shown}{'' if self.end_of_message else ', partial'})"


class LastOf:
    """Kept by the last Message of a Connection in the place of its context, until that is asked for."""

    __slots__ = ("origin",)

    def __init__(self, origin: object) -> None:
        self.origin = origin


class MessageContext(MessageProperties):
    """The properties and metadata of one Message; the same object for all its parts (RFC 9622 section 9.1.1).

    Message Properties are typed attributes, ``set`` and ``get``; framer metadata goes by ``add(framer, key, value)``
    and ``get(framer, key)``. A context may serve several sends; a change after ``send`` has no effect on that send.
    Contexts are compared by identity. Raises as TransportProperties does, and for properties of other kinds.
    """

    __slots__ = ("_metadata", "early_data", "ecn", "origin")

    ecn: int | None
    """ECN codepoint (0 to 3) of a received datagram, None where it is not known (RFC 9622 section 9.3.3.1)."""
    early_data: bool
    """Whether a received Message came in 0-RTT data, which may be replayed (RFC 9622 section 9.3.3.2)."""
    origin: Any
    """The Connection that received the Message, None for one to be sent."""

    def __init__(self, **message_properties: Any) -> None:
        self._values = None
        self._metadata: dict[tuple[object, str], Any] | None = None
        self.ecn = None
        self.early_data = False
        self.origin = None
        if message_properties:
            for name, value in message_properties.items():
                self.set(name, value)

    @property
    def local_endpoint(self) -> LocalEndpoint | None:
        """Where a received Message arrived; None for one to be sent."""
        found: LocalEndpoint | None = None if self.origin is None else self.origin.local_endpoint
        return found

    @property
    def remote_endpoint(self) -> RemoteEndpoint | None:
        """Where a received Message came from; None for one to be sent."""
        found: RemoteEndpoint | None = None if self.origin is None else self.origin.remote_endpoint
        return found

    def set(self, name: str, value: object) -> MessageContext:
        """Set a Message Property by name."""
        row = find_property(name)
        if row.kind is not PropertyKind.MESSAGE:
            raise PropertyError(f"{row.name} is no Message Property: it belongs to the Connection")
        row.__set__(self, value)
        return self

    @overload
    def add(self, framer: object, key: str, value: object, /) -> MessageContext: ...

    @overload
    def add(self, name: str, value: object, /) -> MessageContext: ...

    def add(self, *parameter: Any) -> MessageContext:
        """``add(framer, key, value)`` attaches metadata for a framer; ``add(name, value)`` is ``set``."""
        if len(parameter) == 2:
            return self.set(*parameter)
        if len(parameter) != 3:
            raise TypeError("add takes (framer, key, value), or (name, value) for a Message Property")
        framer, key, value = parameter
        if self._metadata is None:
            self._metadata = {}
        self._metadata[framer, key] = value
        return self

    @overload
    def get(self, framer: object, key: str, /) -> Any: ...

    @overload
    def get(self, name: str, /) -> Any: ...

    def get(self, *parameter: Any) -> Any:
        """``get(framer, key)`` is a framer's metadata, None if there is none; ``get(name)`` a Message Property."""
        if len(parameter) == 2:
            return None if self._metadata is None else self._metadata.get(parameter)
        if len(parameter) != 1:
            raise TypeError("get takes (framer, key), or (name) for a Message Property")
        row = find_property(parameter[0])
        if row.kind is not PropertyKind.MESSAGE:
            raise PropertyError(f"{row.name} is no Message Property: it belongs to the Connection")
        return row.__get__(self, type(self))

    def copy(self) -> MessageContext:
        """Another context with the same properties and metadata, and of the same origin."""
        copy = MessageContext()
        copy.ecn = self.ecn
        copy.early_data = self.early_data
        copy.origin = self.origin
        if self._values is not None:
            copy._values = self._values.copy()
        if self._metadata is not None:
            copy._metadata = self._metadata.copy()
        return copy

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, object]) -> MessageContext:
        return self.copy()

    def update(self, other: MessageContext) -> None:
        """Take over what is set in another context."""
        if other._values is not None:
            self._values = {**(self._values or {}), **other._values}
        if other._metadata is not None:
            self._metadata = {**(self._metadata or {}), **other._metadata}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.explicit().items())
        return f"MessageContext({shown})"


def last_context() -> MessageContext:
    """The context of a Message that is ``final`` and nothing else, as the one property is that most of those have that
    have any."""
    context = MessageContext()
    context._values = {"final": True}
    return context
