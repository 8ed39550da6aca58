"""What 1.0 says of a Message, over today's: its context, and the data that receive handlers get."""

from dataclasses import dataclass
from typing import Any

import neatpy
from neatpy.classic.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.classic.message_properties import MessageProperties
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

    __slots__ = ("_message", "found")

    found: neatpy.MessageContext | None
    """Today's context; None if nobody has asked for anything in it yet."""

    def __init__(
        self, message: neatpy.Message | None = None, found: neatpy.MessageContext | None = None
    ) -> None:
        self._message = message
        self.found = found

    @property
    def translated(self) -> neatpy.MessageContext:
        """Today's context, always the same object."""
        if self.found is None:
            self.found = neatpy.MessageContext() if self._message is None else self._message.context
        return self.found

    def add(self, key: Any, value: object, scope: Any = None) -> None:
        """Set a Message Property, or with a framer as ``scope`` what that framer is to know. What is no Message
        Property, is read-only or has a value that is not allowed is logged and ignored."""
        if scope is not None:
            self.translated.add(scope, key, value)
        elif not isinstance(key, MessageProperties):
            log.warning("%r is no Message Property and was ignored", key)
        else:
            apply(key, value, self.translated.set)

    def get(self, key: Any, scope: Any = None) -> Any:
        """A Message Property, or with a framer as ``scope`` what it knows; None if there is none."""
        context = self.translated
        if scope is not None:
            return context.get(scope, key)
        if isinstance(key, MessageProperties):
            return TABLE[key].back(lambda name: getattr(context, name))
        log.warning("%r is no Message Property", key)
        return None

    def get_remote_endpoint(self) -> RemoteEndpoint | None:
        """Where a received Message came from; None for one to be sent."""
        return RemoteEndpoint.of(self.translated.remote_endpoint)

    def get_local_endpoint(self) -> LocalEndpoint | None:
        """Where a received Message arrived; None for one to be sent."""
        return LocalEndpoint.of(self.translated.local_endpoint)
