"""What 1.0 says of a Message, over today's: its context, and the data that receive handlers get."""

from dataclasses import dataclass
from typing import Any

import neatpy
from neatpy.classic.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.classic.enumerations import MessageProperties
from neatpy.classic.translation import TABLE, apply
from neatpy.classic.utils import log

__all__ = ["MessageContext", "MessageDataObject", "MessageProperties"]


@dataclass(slots=True)
class MessageDataObject:
    """The data of a received Message, or of part of one."""

    data: bytes
    length: int


class MessageContext:
    """The properties of one Message, what framers know of it, and where it came from."""

    __slots__ = ("_source",)

    def __init__(self, source: neatpy.Message | neatpy.MessageContext | None = None) -> None:
        self._source = source

    @property
    def translated(self) -> neatpy.MessageContext:
        """Today's context, always the same object; made when it is first asked for."""
        if not isinstance(self._source, neatpy.MessageContext):
            self._source = neatpy.MessageContext() if self._source is None else self._source.context
        return self._source

    def add(self, key: Any, value: object, scope: Any = None) -> None:
        """Set a Message Property, or with a framer as ``scope`` what that framer is to know. What is no Message
        Property, is read-only or has a value that is not allowed is logged and ignored."""
        if scope is not None:
            self.translated.add(scope, key, value)
        else:
            apply(key, value, self.translated.set, MessageProperties, "Message Property")

    def get(self, key: Any, scope: Any = None) -> Any:
        """A Message Property, or with a framer as ``scope`` what it knows; None if there is none."""
        if scope is not None:
            return self.translated.get(scope, key)
        if isinstance(key, MessageProperties):
            return TABLE[key].back(lambda name: getattr(self.translated, name))
        log.warning("%r is no Message Property", key)
        return None

    def get_remote_endpoint(self) -> RemoteEndpoint | None:
        """Where a received Message came from; None for one to be sent."""
        return RemoteEndpoint.of(self.translated.remote_endpoint)

    def get_local_endpoint(self) -> LocalEndpoint | None:
        """Where a received Message arrived; None for one to be sent."""
        return LocalEndpoint.of(self.translated.local_endpoint)


def todays(context: MessageContext | None) -> neatpy.MessageContext | None:
    """Today's context, if there is one."""
    return None if context is None else context.translated
