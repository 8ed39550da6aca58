"""TLS 1.2 and 1.3 (RFC 8446) over TCP: a secure, reliable, ordered byte stream.

A layer of our own over the Flow of the stack below, since asyncio's TLS transport cannot half-close. What does the
work is loaded when the stack is first used.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from neatpy.enumerations import Preference
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
    from neatpy.security import SecurityParameters
    from neatpy.stacks._tls.engine import Settings
    from neatpy.stacks._tls.settings import SettingsCache

_EFFECTS = {"isolate_session": "no session is resumed, and none is kept for resumption"}


class TlsStack(Stack):
    """The stack ``tls/tcp``."""

    name = "tls/tcp"
    rank = 30
    """Place in the order of stacks when everything else ties."""

    def __init__(self) -> None:
        self._settings: SettingsCache | None = None
        self._features: Features | None = None

    @property
    def features(self) -> Features:  # type: ignore[override]  # composed: what acts below acts through this layer
        """The rows of the stack below, which TLS passes through, and its own."""
        if self._features is None:
            below = self.lower.features if self.lower is not None else Features(0, {}, {})
            self._features = below.below(self.rank, _EFFECTS, lacking=("zero_rtt_msg",))
        return self._features

    def available(self) -> Availability:
        try:
            import ssl  # noqa: F401 - Python can be built without it
        except ImportError as error:
            return Availability(False, f"this Python has no ssl module: {error}")
        if self.lower is None:
            return Availability(False, f"there is no stack {self.name.partition('/')[2]} below")
        return self.lower.available()

    def security_obstacle(self, security: SecurityParameters, *, listening: bool = False) -> str | None:
        from neatpy.stacks._tls import plan

        return plan.obstacle(security, listening)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        from neatpy.stacks._tls.flow import Below, TlsFlow

        settings = self._settings_for(candidate.security, listening=False)
        name = candidate.server_name or candidate.remote.ip
        isolated = candidate.properties.isolate_session
        engine = settings.client(name, None if isolated else (name, candidate.remote.port))
        shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def outcome(flow: TlsFlow, error: BaseException | None) -> None:
            if not shaken.done():
                if error is None:
                    shaken.set_result(None)
                else:
                    shaken.set_exception(error)

        flow = TlsFlow(self, candidate.security, engine, observer, outcome)
        try:
            below = self._candidate_below(candidate)
            if not isolated and candidate.properties.zero_rtt_msg in (Preference.REQUIRE, Preference.PREFER):
                below.early = flow.hello()  # it may be replayed: nothing of the application's is in it
            flow.start(await self._lower().connect(below, Below(flow)), below.early or b"")
            await shaken
        except BaseException:
            flow.abort()
            if shaken.done() and not shaken.cancelled():
                shaken.exception()  # seen, even if the attempt was cancelled at the same time
            raise
        return flow

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        from neatpy.stacks._tls.accepting import TlsListener

        settings = self._settings_for(request.security, listening=True)
        listener = TlsListener(self, settings, request, accepted)
        listener.lower = await self._lower().listen(request, listener.begin)
        return listener

    @staticmethod
    def sniff(first_bytes: bytes) -> bool:
        """Whether a connection that begins with these bytes speaks TLS: its first record is a handshake."""
        return first_bytes[:1] == b"\x16"

    def _lower(self) -> Stack:
        if self.lower is None:
            raise EstablishmentError(f"{self.name} has no stack below", Reason.NO_CANDIDATES)
        return self.lower

    def _candidate_below(self, candidate: Candidate) -> Candidate:
        return Candidate(
            self._lower(),
            candidate.remote,
            candidate.properties,
            candidate.security,
            local=candidate.local,
            interface=candidate.interface,
            server_name=candidate.server_name,
            hop_limit=candidate.hop_limit,
            label=candidate.label,
        )

    def _settings_for(self, security: SecurityParameters, *, listening: bool) -> Settings:
        from neatpy.stacks._tls import plan
        from neatpy.stacks._tls.settings import SettingsCache

        obstacle = plan.obstacle(security, listening)
        if obstacle is not None:
            raise EstablishmentError(f"{self.name} cannot be used: {obstacle}", Reason.NO_CANDIDATES)
        if self._settings is None:
            self._settings = SettingsCache()
        return self._settings.get(security, listening, _make_settings)


def _make_settings(security: SecurityParameters, listening: bool) -> Settings:
    from neatpy.stacks._tls import plan

    if plan.needs_pyopenssl(security, listening) is not None:
        from neatpy.stacks._tls.pyopenssl import PyOpenSslSettings

        return PyOpenSslSettings(security, listening)
    from neatpy.stacks._tls.standard import StandardSettings

    return StandardSettings(security, listening)
