"""What an action was asked to do: a snapshot of a Preconnection, shared by all that the action makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neatpy.enumerations import PropertyKind
from neatpy.message import MessageContext
from neatpy.properties import PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.enumerations import Direction
    from neatpy.establishment.request import Plan
    from neatpy.framer import Framer
    from neatpy.properties import TransportProperties
    from neatpy.security import SecurityParameters


class Intent:
    """Endpoints, properties, security and framers as they were when the action was called. Nobody changes it.

    ``direction``, ``receive_limit`` and ``message_defaults`` (the Message Properties that were set for all Messages, or
    None) are what every Connection needs of the properties. ``plan`` is establishment's.
    """

    __slots__ = (
        "direction",
        "framers",
        "locals",
        "message_defaults",
        "plan",
        "properties",
        "receive_limit",
        "remotes",
        "security",
    )

    def __init__(
        self,
        locals: Sequence[LocalEndpoint],
        remotes: Sequence[RemoteEndpoint],
        properties: TransportProperties,
        security: SecurityParameters,
        framers: Sequence[Framer],
    ) -> None:
        self.locals = locals
        self.remotes = remotes
        self.properties = properties
        self.security = security
        self.framers = framers
        self.plan: Plan | None = None
        self.direction: Direction = properties.direction
        self.receive_limit: int = properties.neatpy_receive_limit
        self.message_defaults = _message_defaults(properties)

    def like(self, properties: TransportProperties, framers: Sequence[Framer]) -> Intent:
        """The same, with other properties and framers: what a clone wants."""
        return Intent(self.locals, self.remotes, properties, self.security, framers)


def _message_defaults(properties: TransportProperties) -> MessageContext | None:
    defaults: MessageContext | None = None
    for name, value in properties.explicit().items():
        if PROPERTIES[name].kind is PropertyKind.MESSAGE:
            if defaults is None:
                defaults = MessageContext()
            defaults.set(name, value)
    return defaults
