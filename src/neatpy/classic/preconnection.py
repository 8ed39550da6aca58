"""The Preconnection of NEATPy 1.0, and the event loop that its ``start()`` runs."""

from __future__ import annotations

import neatpy
from neatpy.classic.connection import Connection
from neatpy.classic.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.classic.framer import Adapter, Framer
from neatpy.classic.listener import Listener
from neatpy.classic.message_context import MessageContext, todays
from neatpy.classic.running import Runner
from neatpy.classic.security_parameters import Certificate, SecurityParameters
from neatpy.classic.transport_properties import TransportProperties
from neatpy.classic.utils import Handler, shim_print

__all__ = [
    "Connection", "Framer", "Listener", "LocalEndpoint", "MessageContext", "Preconnection", "RemoteEndpoint",
    "TransportProperties", "shim_print",
]  # fmt: skip


class Preconnection(Runner):
    """Endpoints, properties and framers of Connections to be.

    ``security_needed`` is False for none, True for encryption **without any verification of who the peer is**, or
    today's ``SecurityParameters``, which verify. ``unfulfilled_handler()`` is called when no protocol stack meets the
    properties; without one, ``start()`` raises the ``neatpy.EstablishmentError``.
    """

    def __init__(
        self,
        local_endpoint: LocalEndpoint | None = None,
        remote_endpoint: RemoteEndpoint | None = None,
        transport_properties: TransportProperties | None = None,
        security_needed: bool | SecurityParameters = False,
        unfulfilled_handler: Handler | None = None,
    ) -> None:
        super().__init__()
        self.local_endpoint = local_endpoint
        self.remote_endpoint = remote_endpoint
        self.transport_properties = transport_properties or TransportProperties()
        self.security_needed = security_needed
        self.unfulfilled_handler = unfulfilled_handler
        self.streams: dict[str | None, bool] = {}  # whether the stacks in use carry bytes and not Messages
        self.framers: list[Adapter] = []

    def add_framer(self, framer: Framer) -> None:
        """Put a framer on top: the last one added sees application data first."""
        self.framers.append(Adapter(framer, self.connection_for))

    def initiate(self, timeout: float | None = None) -> Connection:
        """Connect to the Remote Endpoint, for at most ``timeout`` seconds, as soon as an event loop runs.

        Raises ValueError without a Remote Endpoint, and ValueError or TypeError for one that can be none."""
        real = self._translated(listening=False)
        return Connection(self, lambda: real.initiate(timeout)).begin_soon()

    def initiate_with_send(
        self,
        message_data: neatpy.Data,
        sent_handler: Handler | None = None,
        message_context: MessageContext | None = None,
        timeout: float | None = None,
    ) -> Connection:
        """Connect, and send a first Message with the handshake where that is possible. Raises as ``initiate``."""
        real = self._translated(listening=False)
        first = message_data, todays(message_context)
        connection = Connection(self, lambda: real.initiate_with_send(*first, timeout))
        connection.first_sent_handler = sent_handler
        return connection.begin_soon()

    def listen(self) -> Listener:
        """Listen at the Local Endpoint, as soon as an event loop runs.

        Raises ValueError without a Local Endpoint, and ValueError or TypeError for one that can be none."""
        return Listener(self, self._translated(listening=True).listen).begin_soon()

    # For Connections, Listeners and framers

    def connection_for(self, real: neatpy.Connection) -> Connection:
        """The Connection that stands for this one of today: it has set its handlers there. Else, a new one."""
        known = getattr(real.on_closed, "__self__", None)
        if isinstance(known, Connection):
            return known
        accepted = Connection(self, lambda: real)
        real.on_closed = accepted.closed
        return accepted

    def _translated(self, listening: bool) -> neatpy.Preconnection:
        local, remote = self.local_endpoint, self.remote_endpoint
        if (local if listening else remote) is None:
            raise ValueError(f"this needs a {'Local' if listening else 'Remote'} Endpoint")
        here = None if local is None else local.translated()
        there = None if remote is None else remote.translated()
        properties = self.transport_properties.translated()
        return neatpy.Preconnection(here, there, properties, self._security(listening), self.framers)

    def _security(self, listening: bool) -> SecurityParameters:
        """As asked for. True encrypts and trusts whatever certificate the peer presents, as 1.0 did; a Listener makes
        one, which needs the package cryptography."""
        if isinstance(self.security_needed, SecurityParameters):
            return self.security_needed
        if not self.security_needed:
            return SecurityParameters.disabled()
        if listening:
            return SecurityParameters(server_certificate=Certificate.self_signed("localhost"))
        return SecurityParameters(trust_verification_callback=lambda _: True)
