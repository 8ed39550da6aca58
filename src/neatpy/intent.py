"""What an action was asked to do: a snapshot of a Preconnection, shared by all that the action makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.framer import Framer
    from neatpy.properties import TransportProperties
    from neatpy.security import SecurityParameters


class Intent:
    """Endpoints, properties, security and framers as they were when the action was called."""

    __slots__ = ("framers", "locals", "properties", "remotes", "security")

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

    def like(self, properties: TransportProperties, framers: Sequence[Framer]) -> Intent:
        """The same, with other properties and framers: what a clone wants."""
        return Intent(self.locals, self.remotes, properties, self.security, framers)
