"""DTLS 1.2 (RFC 6347) over UDP: secure Messages of one datagram each, which may be lost or overtake one another.

What does the work is loaded when the stack is first used.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks.contract import (
    Accepted,
    Availability,
    Candidate,
    Flow,
    FlowObserver,
    ListenRequest,
    Stack,
    StackListener,
)
from neatpy.stacks.features import Features

if TYPE_CHECKING:
    from collections.abc import Callable

    from neatpy.security import SecurityParameters
    from neatpy.stacks._dtls.accepting import DtlsPort
    from neatpy.stacks._dtls.engine import DtlsSettings
    from neatpy.stacks._dtls.flow import DtlsFlow
    from neatpy.stacks._dtls.parting import DtlsListener
    from neatpy.stacks._tls.settings import SettingsCache
    from neatpy.system.datagrams import DatagramPort

_EFFECTS = {
    "final": "close_notify, which the network may lose; no Message can be sent after it",
    "isolate_session": "always so: no session is resumed, and none is kept for resumption",
    "max_send_rate": "datagrams are spaced so that their records keep the rate",
    "no_segmentation": "always so: a Message is one record in one datagram",
}


class DtlsStack(Stack):
    """The stack ``dtls/udp``."""

    name = "dtls/udp"
    carrier = "udp"
    rank = 60
    """Place in the order of stacks when everything else ties."""

    def __init__(self) -> None:
        self._settings: SettingsCache | None = None
        self._ports: dict[DatagramPort, DtlsPort] = {}
        self._features: Features | None = None

    @property
    def features(self) -> Features:  # type: ignore[override]  # composed: what acts below acts through this layer
        """The rows of the stack below, which DTLS passes through, and its own; records are protected from replay."""
        if self._features is None:
            below = self.lower.features if self.lower is not None else Features(0, {}, {})
            self._features = Features(
                self.rank,
                below.selection,
                {**below.effects, **_EFFECTS},
                secure=True,
                handshake=True,
                may_duplicate=False,
                preserves_boundaries=True,
                namespace=below.namespace,
            )
        return self._features

    def available(self) -> Availability:
        from importlib.util import find_spec

        for module, package in (("OpenSSL", "pyOpenSSL"), ("cryptography", "cryptography")):
            if find_spec(module) is None:
                return Availability(False, f"{package} is not installed: install NEATPy with its extra dtls")
        if self.lower is None:
            return Availability(False, f"there is no stack {self.name.partition('/')[2]} below")
        return self.lower.available()

    def security_obstacle(self, security: SecurityParameters, *, listening: bool = False) -> str | None:
        from neatpy.stacks._tls import plan

        return plan.dtls_obstacle(security, listening)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        return await self._connect(candidate, observer)

    async def _connect(self, candidate: Candidate, observer: FlowObserver) -> DtlsFlow:
        from neatpy.enumerations import Preference
        from neatpy.stacks._dtls.flow import Below, DtlsFlow
        from neatpy.system.datagram_options import wants_errors

        settings = self._settings_for(candidate.security, listening=False)
        engine = settings.client(candidate.server_name or candidate.remote.ip, None)
        shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def outcome(flow: DtlsFlow, error: BaseException | None) -> None:
            if not shaken.done():
                if error is None:
                    shaken.set_result(None)
                else:
                    shaken.set_exception(error)

        properties = candidate.properties.snapshot()
        properties.soft_error_notify = Preference.PREFER  # a port unreachable ends the handshake
        below = Candidate(
            self._lower(),
            candidate.remote,
            properties,
            candidate.security,
            local=candidate.local,
            interface=candidate.interface,
            server_name=candidate.server_name,
            hop_limit=candidate.hop_limit,
            label=candidate.label,
        )
        wanted = wants_errors(candidate.properties)
        flow = DtlsFlow(self, candidate.security, engine, observer, outcome, wanted)
        try:
            flow.start(await self._lower().connect(below, Below(flow)))
            await shaken
        except BaseException:
            flow.abort()
            if shaken.done() and not shaken.cancelled():
                shaken.exception()  # seen, even if the attempt was cancelled at the same time
            raise
        return flow

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        listener = self._listen(request, accepted, None)
        if request.plain_allowed:
            try:
                listener.plain = await self._lower().listen(request, accepted)
            except BaseException:
                listener.close()
                raise
        return listener

    async def connect_above(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        """Connect for a stack above this one, whose packets are all to be sent: one that has become larger than the
        path's MTU goes in fragments (RFC 8261 section 5), and all soft errors are told."""
        flow = await self._connect(candidate, observer)
        flow.fragments = True
        return flow

    async def listen_above(
        self, request: ListenRequest, accepted: Accepted, recognises: Callable[[bytes], bool]
    ) -> StackListener:
        """Listen for a stack above this one, on a port that it may share with this one and with others: it gets the
        Flows whose first record ``recognises``, which are as those of ``connect_above``."""

        def take(flow: Flow) -> None:
            cast("DtlsFlow", flow).fragments = True
            accepted(flow)

        return self._listen(request, take, recognises)

    def _listen(
        self, request: ListenRequest, accepted: Accepted, recognises: Callable[[bytes], bool] | None
    ) -> DtlsListener:
        from neatpy.stacks._dtls.accepting import DtlsPort
        from neatpy.stacks._dtls.parting import DtlsListener, Taker

        settings = self._settings_for(request.security, listening=True)
        port = request.datagrams.open(request.local, request.interface, request.properties, request.hop_limit)
        shared = self._ports.get(port)
        if shared is None:
            shared = DtlsPort(self, self._lower(), settings, request, port, self._ports.pop)
            self._ports[port] = shared
        return DtlsListener(shared, Taker(recognises, accepted))

    def _lower(self) -> Stack:
        if self.lower is None:
            raise EstablishmentError(f"{self.name} has no stack below", Reason.NO_CANDIDATES)
        return self.lower

    def _settings_for(self, security: SecurityParameters, *, listening: bool) -> DtlsSettings:
        from neatpy.stacks._dtls.engine import DtlsSettings
        from neatpy.stacks._tls import plan
        from neatpy.stacks._tls.settings import SettingsCache

        obstacle = plan.dtls_obstacle(security, listening)
        if obstacle is not None:
            raise EstablishmentError(f"{self.name} cannot be used: {obstacle}", Reason.NO_CANDIDATES)
        if self._settings is None:
            self._settings = SettingsCache()
        return self._settings.get(security, listening, DtlsSettings)
