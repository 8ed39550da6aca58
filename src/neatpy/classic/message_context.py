"""The Message Context of NEATPy 1.0, over today's."""

from __future__ import annotations

from typing import Any

import neatpy
from neatpy.classic.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.classic.message_properties import MessageProperties
from neatpy.classic.translation import TABLE, translated
from neatpy.classic.utils import log

__all__ = ["MessageContext", "MessageProperties"]


class MessageContext:
    """The properties of one Message, what framers know of it, and where it came from."""

    __slots__ = ("_context", "_message")

    def __init__(
        self, message: neatpy.Message | None = None, context: neatpy.MessageContext | None = None
    ) -> None:
        self._message = message
        self._context = context

    @property
    def translated(self) -> neatpy.MessageContext:
        """As NEATPy has it now; the same object whenever this one is used."""
        if self._context is None:
            message = self._message
            self._context = neatpy.MessageContext() if message is None else message.context
        return self._context

    @property
    def translated_if_used(self) -> neatpy.MessageContext | None:
        """As NEATPy has it now, or None if nobody has asked for anything in it yet."""
        return self._context

    def add(self, key: Any, value: object, scope: Any = None) -> None:
        """Set a Message Property, or with a framer as ``scope`` what that framer is to know. What is no Message
        Property, is read-only or has a value that is not allowed is logged and ignored."""
        if scope is not None:
            self.translated.add(scope, key, value)
        elif not isinstance(key, MessageProperties):
            log.warning("%r is no Message Property and was ignored", key)
        else:
            try:
                for name, now in translated(key, value).items():
                    self.translated.set(name, now)
            except (TypeError, ValueError) as error:
                log.warning("%s was not set: %s", key.name, error)

    def get(self, key: Any, scope: Any = None) -> Any:
        """A Message Property, or with a framer as ``scope`` what it knows; None if there is none."""
        if scope is not None:
            return self.translated.get(scope, key)
        if not isinstance(key, MessageProperties):
            log.warning("%r is no Message Property", key)
            return None
        context = self.translated
        return TABLE[key].back(lambda name: getattr(context, name))

    def get_remote_endpoint(self) -> RemoteEndpoint | None:
        """Where a received Message came from; None for one to be sent."""
        found = self.translated.remote_endpoint
        return None if found is None else _filled(RemoteEndpoint(), found)

    def get_local_endpoint(self) -> LocalEndpoint | None:
        """Where a received Message arrived; None for one to be sent."""
        found = self.translated.local_endpoint
        return None if found is None else _filled(LocalEndpoint(), found)


def _filled(old: Any, found: neatpy.RemoteEndpoint | neatpy.LocalEndpoint) -> Any:
    old.address, old.port, old.interface = found.address, found.port, found.interface
    return old
