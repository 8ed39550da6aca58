"""The Listener of NEATPy 1.0, over today's, which exists as soon as an event loop runs."""

from __future__ import annotations

import asyncio
import math

import neatpy
from neatpy.classic.connection import Connection
from neatpy.classic.enumerations import ListenErrorReasons
from neatpy.classic.running import Activity, once_begun
from neatpy.classic.utils import Handler, fire, shim_print

__all__ = ["Connection", "ListenErrorReasons", "Listener", "shim_print"]


class Listener(Activity[neatpy.Listener]):
    """Accepts Connections, made by ``Preconnection.listen()``; never directly.

    ``HANDLE_CONNECTION_RECEIVED(connection)``, ``HANDLE_STATE_LISTENING()``, ``HANDLE_STATE_LISTEN_ERROR(reason)`` and
    ``HANDLE_STATE_STOPPED()`` are functions, or None.
    """

    HANDLE_CONNECTION_RECEIVED: Handler | None = None
    HANDLE_STATE_LISTENING: Handler | None = None
    HANDLE_STATE_LISTEN_ERROR: Handler | None = None
    HANDLE_STATE_STOPPED: Handler | None = None

    @once_begun
    def stop(self) -> None:
        """Accept no more; accepted Connections live on."""
        self._real.stop()

    close = abort = stop

    @once_begun
    def set_new_connection_limit(self, value: float) -> None:
        """Accept at most so many further Connections; the others wait until the limit is set anew."""
        self._real.set_new_connection_limit(None if value == math.inf else int(value))

    def reset_connection_limit(self) -> None:
        """Accept as many as come."""
        self.set_new_connection_limit(math.inf)

    @property
    def port(self) -> int:
        """The port that is listened on, which the system chose where 0 was asked for; 0 before that."""
        return next((endpoint.port or 0 for endpoint in self._real.local_endpoints), 0) if self._real else 0

    # For the Runner

    def listen_to(self, real: neatpy.Listener) -> None:
        real.on_establishment_error = self._not_established
        real.on_stopped = lambda _: self.ended(self.HANDLE_STATE_STOPPED)
        real.on_connection_received = self._received
        asyncio.ensure_future(real).add_done_callback(self._bound)

    # Events

    def _bound(self, bound: asyncio.Future[neatpy.Listener]) -> None:
        if not bound.cancelled() and bound.exception() is None:
            fire(self.HANDLE_STATE_LISTENING)

    def _received(self, _: neatpy.Listener, real: neatpy.Connection) -> None:
        connection = self.preconnection.connection_for(real)
        connection.begin()
        connection.established(initiated=False)
        fire(self.HANDLE_CONNECTION_RECEIVED, connection)

    def _not_established(self, _: neatpy.Listener, error: neatpy.EstablishmentError) -> None:
        prohibited = error.reason is neatpy.Reason.POLICY_PROHIBITED
        reason = ListenErrorReasons["PROHIBITED_BY_POLICY" if prohibited else "UNRESOLVED_LOCAL_ENDPOINT"]
        self.failed(error, self.HANDLE_STATE_LISTEN_ERROR, reason)
