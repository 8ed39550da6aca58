"""The Preconnection: what is wanted, before anything is there (RFC 9622 sections 6 and 7).

Reusable: each action takes a snapshot, so that a later change never touches what an earlier action made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, TypeVar

from neatpy.connection import Connection
from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.errors import EstablishmentError, Reason
from neatpy.hook import hook
from neatpy.intent import Intent
from neatpy.properties import TransportProperties
from neatpy.security import SecurityParameters

if TYPE_CHECKING:
    from neatpy.establishment.request import EstablishmentRequest
    from neatpy.establishment.selection import Selection
    from neatpy.framer import Framer
    from neatpy.listener import Listener
    from neatpy.message import MessageContext
    from neatpy.stacks.contract import Data

_T = TypeVar("_T")


class Preconnection:
    """Endpoints, properties, security and framers of Connections to be.

    ``local`` and ``remote`` take one endpoint or several. Without ``properties`` the RFC's defaults hold; without
    ``security`` Connections are secure, with the system's trust store and verified names. Raises TypeError for
    arguments of the wrong type.
    """

    __slots__ = ("_framers", "_last", "_locals", "_remotes", "properties", "security")

    def __init__(
        self,
        local: LocalEndpoint | Iterable[LocalEndpoint] | None = None,
        remote: RemoteEndpoint | Iterable[RemoteEndpoint] | None = None,
        properties: TransportProperties | None = None,
        security: SecurityParameters | None = None,
        framers: Iterable[Framer] = (),
    ) -> None:
        self._locals = _several(local, LocalEndpoint, "local")
        self._remotes = _several(remote, RemoteEndpoint, "remote")
        self.properties = _one(properties, TransportProperties, "properties") or TransportProperties()
        self.security = _one(security, SecurityParameters, "security") or SecurityParameters()
        self._framers: list[Framer] = []
        self._last: Intent | None = None
        for framer in framers:
            self.add_framer(framer)

    def add_local(self, *endpoints: LocalEndpoint) -> Preconnection:
        """Add Local Endpoints to the alternatives (RFC 9622 section 6.1)."""
        self._locals += _several(endpoints, LocalEndpoint, "local")
        return self

    def add_remote(self, *endpoints: RemoteEndpoint) -> Preconnection:
        """Add Remote Endpoints to the alternatives (RFC 9622 section 6.1)."""
        self._remotes += _several(endpoints, RemoteEndpoint, "remote")
        return self

    def add_framer(self, framer: Framer) -> Preconnection:
        """Put a framer on top: the last one added sees application data first (RFC 9622 section 9.1.2.1).

        Raises TypeError for what is no Framer, or has a method that is ``async``."""
        from neatpy.framer import checked_framer

        self._framers.append(checked_framer(framer))
        return self

    def initiate(self, timeout: float | None = None) -> Connection:
        """Start connecting (RFC 9622 section 7.1) and return the Connection at once, in state ESTABLISHING.

        ``timeout`` is in seconds; None waits as long as the protocols do. Failures are the Connection's: awaiting it
        raises EstablishmentError. Needs the running loop (RuntimeError otherwise).
        """
        return self._initiate(timeout, None)

    def initiate_with_send(
        self, data: Data, context: MessageContext | None = None, timeout: float | None = None
    ) -> Connection:
        """Start connecting and send a first Message (RFC 9622 section 9.2.5), with 0-RTT where the Message is
        safely replayable and the stack can. ``initial_send`` of the Connection is the Message's future."""
        return self._initiate(timeout, (data, context))

    def listen(self) -> Listener:
        """Start listening (RFC 9622 section 7.2) on every eligible stack and return the Listener at once.

        Failures are the Listener's: awaiting it raises EstablishmentError. Remote Endpoints restrict who may connect.
        Needs the running loop (RuntimeError otherwise).
        """
        from neatpy.listener import Listener

        listener = Listener(self._snapshot(), asyncio.get_running_loop())
        listener._start()
        return listener

    def rendezvous(self) -> Connection:
        """Connect to a peer that connects at the same time (RFC 9622 section 7.3).

        The Connection fails with NO_CANDIDATES as long as no stack offers simultaneous establishment.
        """
        from neatpy.establishment.policy import RENDEZVOUS

        return self._initiate(None, None, RENDEZVOUS)

    def join(self) -> tuple[Connection, Listener]:
        """Send to and receive from an any-source multicast group (RFC 9622 section 7.3).

        Raises EstablishmentError: INVALID_CONFIGURATION without a group, NO_CANDIDATES as long as no stack offers
        multicast.
        """
        if not any(endpoint.multicast_group for endpoint in (*self._remotes, *self._locals)):
            raise EstablishmentError(
                "join needs an endpoint with a multicast group", Reason.INVALID_CONFIGURATION
            )
        raise EstablishmentError("no stack on this host offers multicast", Reason.NO_CANDIDATES)

    async def resolve(self) -> tuple[list[LocalEndpoint], list[RemoteEndpoint]]:
        """The endpoints with names turned into addresses (RFC 9622 section 7.3), for signalling to a peer.

        Raises EstablishmentError with RESOLUTION_FAILED.
        """
        from neatpy.establishment.resolution import resolve_endpoints

        return await resolve_endpoints(self._locals, self._remotes)

    async def explain(self) -> Selection:
        """What ``initiate`` would try, in which order, and why everything else was ruled out or ranked lower.

        ``str()`` of it is the tree in RFC 9623's notation with one reason a line. Nothing is sent but name lookups.
        Raises EstablishmentError as ``initiate`` would before its first attempt.
        """
        from neatpy.establishment.selection import explain

        return await explain(self._request(self._snapshot()))

    def _snapshot(self) -> Intent:
        return Intent(
            [endpoint.copy() for endpoint in self._locals],
            [endpoint.copy() for endpoint in self._remotes],
            self.properties.snapshot(),
            self.security.snapshot(),
            tuple(self._framers),
        )

    def _shared_snapshot(self) -> Intent:
        """The snapshot of the last time if nothing has changed since: programs initiate again and again."""
        last = self._last
        if (
            last is not None
            and last.properties.explicit() == self.properties.explicit()
            and last.remotes == self._remotes
            and last.locals == self._locals
            and last.security == self.security
            and len(last.framers) == len(self._framers)
            and all(map(is_, last.framers, self._framers))
        ):
            return last
        self._last = last = self._snapshot()
        return last

    def _request(
        self, intent: Intent, timeout: float | None = None, action: str | None = None
    ) -> EstablishmentRequest:
        from neatpy.establishment.policy import INITIATE
        from neatpy.establishment.request import EstablishmentRequest

        return EstablishmentRequest(
            intent.remotes,
            intent.properties,
            intent.security,
            local_endpoints=intent.locals,
            has_framers=bool(intent.framers),
            timeout=timeout,
            action=action or INITIATE,
            plan=intent.plan,
        )

    def _initiate(
        self,
        timeout: float | None,
        first: tuple[Data, MessageContext | None] | None,
        action: str | None = None,
    ) -> Connection:
        loop = asyncio.get_running_loop()
        intent = self._shared_snapshot()
        if intent.plan is None and action is None:
            from neatpy.establishment.request import Plan

            intent.plan = Plan()
        connection = Connection(intent, loop)
        early: bytes | None = None
        if first is not None:
            from neatpy.early import early_data
            from neatpy.sending import bytes_like, check_context

            data, context = first
            check_context(context)
            early = early_data(intent, bytes_like(data), context)
        request = self._request_for(connection, intent, loop, timeout, action, early)
        if first is not None:
            connection.initial_send = connection._send_first(*first)
        connection._establish_soon(request)
        return connection

    def _request_for(
        self,
        connection: Connection,
        intent: Intent,
        loop: asyncio.AbstractEventLoop,
        timeout: float | None,
        action: str | None,
        early: bytes | None,
    ) -> EstablishmentRequest:
        plan = intent.plan
        if timeout is not None or intent.framers or hook.active or early is not None:
            plan = None
        if plan is not None and plan.request is not None and plan.request.loop is loop:
            return plan.request
        request = self._request(intent, _checked_timeout(timeout), action)
        request.loop = loop
        if early is not None:
            request.early, request.plan = early, None
        if intent.framers:
            request.prepare = connection._prepare
        if hook.active:
            request.trace = _tracer(connection)
        if plan is not None:
            plan.request = request
        return request


def _tracer(connection: Connection) -> Any:
    from neatpy.establishment import request as names

    events: dict[str, Any] = {
        names.STARTED: lambda subject, _: hook.events.CandidateStarted(connection, candidate=subject),
        names.FAILED: lambda subject, error: hook.events.CandidateFailed(
            connection, candidate=subject, error=error
        ),
        names.WON: lambda subject, _: hook.events.CandidateWon(connection, candidate=subject),
        names.ABANDONED: lambda subject, _: hook.events.CandidateAbandoned(connection, candidate=subject),
        names.RESOLVED: lambda subject, found: hook.events.Resolved(
            connection, name=subject, addresses=found
        ),
    }

    def emit(name: str, subject: object, detail: object) -> None:
        hook.emit(events[name](subject, detail))

    return emit


def _several(given: _T | Iterable[_T] | None, kind: type[_T], name: str) -> list[_T]:
    if given is None:
        return []
    endpoints: Sequence[Any] = [given] if isinstance(given, kind) else list(_iterable(given, kind, name))
    for endpoint in endpoints:
        _one(endpoint, kind, name)
        if endpoint is None:
            raise TypeError(f"{name} takes {kind.__name__} objects, not None")
    return list(endpoints)


def _iterable(given: Any, kind: type, name: str) -> Iterable[Any]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"{name} takes a {kind.__name__} or several, not {given!r}")
    return given


def _one(given: _T | None, kind: type[_T], name: str) -> _T | None:
    if given is not None and not isinstance(given, kind):
        raise TypeError(f"{name} takes a {kind.__name__}, not {given!r}")
    return given


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}")
    if not timeout > 0:
        raise ValueError(f"timeout is more than 0 seconds, not {timeout!r}")
    return timeout
