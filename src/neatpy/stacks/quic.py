"""QUIC (RFC 9000): secure streams in UDP, one handshake for all of them, on aioquic's protocol engine.

What does the work is loaded when the stack is first used.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from enum import Enum
from typing import TYPE_CHECKING

from neatpy.enumerations import MultipathPolicy, Preference
from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks.contract import (
    AVAILABLE,
    Accepted,
    Availability,
    Candidate,
    Flow,
    FlowObserver,
    ListenRequest,
    Stack,
    StackListener,
)
from neatpy.stacks.features import Features, Provision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from neatpy.properties import TransportProperties
    from neatpy.security import SecurityParameters
    from neatpy.stacks._quic.settings import QuicSettings
    from neatpy.stacks._tls.settings import SettingsCache

_INTRINSIC, _OPTIONAL = Provision.INTRINSIC, Provision.OPTIONAL
_UNWANTED = (Preference.AVOID, Preference.PROHIBIT)
_WANTED = (Preference.REQUIRE, Preference.PREFER)


_COMMON = {
    "conn_timeout": "the idle timeout: silence for so long, with the peer asked before, ends the connection",
    "conn_capacity_profile": "DSCP of all packets",
    "isolate_session": "no session is resumed or kept",
    "keep_alive_timeout": "seconds of silence after which the peer is asked (PING), if earlier than the idle timeout "
    "demands",
    "multipath_policy": "handover: the client's side goes on from another of its local endpoints when packets from the "
    "first get nowhere; the other values are hints, since a connection uses one path at a time",
    "msg_lifetime": "a Message still in our queue expires",
    "msg_priority": "order of what waits in our queue",
}

_ONLY = {"multipath_policy": (MultipathPolicy.HANDOVER,)}

_STREAM = Features(
    rank=10,
    selection={
        "reliability": _INTRINSIC,
        "preserve_order": _INTRINSIC,
        "multistreaming": _INTRINSIC,
        "zero_rtt_msg": _OPTIONAL,
        "congestion_control": _INTRINSIC,
        "full_checksum_send": _INTRINSIC,
        "full_checksum_recv": _INTRINSIC,
        "keep_alive": _OPTIONAL,
        "soft_error_notify": _OPTIONAL,
        "use_temporary_local_address": _OPTIONAL,
    },
    effects={
        **_COMMON,
        "conn_priority": "the share of the stream, or its place, in what the connection sends",
        "conn_scheduler": "how the streams share the connection, packet by packet",
        "group_conn_limit": "the peer's limit of open streams of each kind (MAX_STREAMS)",
        "final": "the end of the stream (FIN)",
    },
    secure=True,
    only=_ONLY,
)
"""Connections that are streams and nothing else."""

_STREAMS = Features(
    rank=_STREAM.rank,
    selection={**_STREAM.selection, "per_msg_reliability": _OPTIONAL},
    effects={
        **_STREAM.effects,
        "msg_reliable": "an unreliable Message on the first stream is one DATAGRAM frame (RFC 9221), if the peer takes "
        "them, it fits and it is not sent in parts; others are reliable",
    },
    secure=True,
    only=_ONLY,
)
"""Connections that are streams, the first of them with datagrams beside it where ``per_msg_reliability`` is wanted."""

_DATAGRAMS = Features(
    rank=65,
    selection={
        "preserve_msg_boundaries": _INTRINSIC,
        "congestion_control": _INTRINSIC,
        "full_checksum_send": _INTRINSIC,
        "full_checksum_recv": _INTRINSIC,
        "keep_alive": _OPTIONAL,
        "soft_error_notify": _OPTIONAL,
        "use_temporary_local_address": _OPTIONAL,
    },
    effects={
        **_COMMON,
        "final": "nothing on the wire; no Message can be sent after it",
        "no_segmentation": "always so: a Message is one DATAGRAM frame",
        "no_fragmentation": "always so",
    },
    secure=True,
    only=_ONLY,
    preserves_boundaries=True,
)
"""Connections whose Messages are datagrams (RFC 9221)."""


class Carries(Enum):
    """What a form of the stack makes of Messages."""

    STREAMS = "streams"
    BOTH = "streams, and datagrams beside the first"
    DATAGRAMS = "datagrams"


class QuicStack(Stack):
    """The stack ``quic``. A Connection is a stream, or all datagrams of a QUIC connection, or both, which are the forms
    of the stack. Each has sessions of its own, since a session remembers whether the server takes datagrams."""

    name = "quic"
    carrier = "udp"
    carries: Carries
    alone: QuicStack
    """The form in which streams appear that have no datagrams beside them, whatever carries them."""

    def __init__(self, carries: Carries = Carries.STREAMS, features: Features = _STREAMS) -> None:
        self.carries = carries
        self._features = features
        self._settings: SettingsCache | None = None
        self._forms: dict[Carries, QuicStack] = {}
        self.alone = self
        if features is _STREAMS and carries is Carries.STREAMS:
            self.alone = QuicStack(Carries.STREAMS, _STREAM)
            self._forms = {
                Carries.BOTH: QuicStack(Carries.BOTH),
                Carries.DATAGRAMS: QuicStack(Carries.DATAGRAMS, _DATAGRAMS),
            }
            for form in self._forms.values():
                form.alone = self.alone

    @property
    def carries_datagrams(self) -> bool:
        """Whether Connections are datagrams and nothing else."""
        return self.carries is Carries.DATAGRAMS

    @property
    def takes_datagrams(self) -> bool:
        """Whether the peer may send datagrams."""
        return self.carries is not Carries.STREAMS

    @property
    def features(self) -> Features:  # type: ignore[override]  # those of this form
        """The rows of this form."""
        return self._features

    def form(self, properties: TransportProperties) -> Stack:
        by_message = properties.per_msg_reliability
        if properties.reliability in _UNWANTED and by_message is not Preference.REQUIRE:
            wanted = Carries.DATAGRAMS
        else:
            wanted = Carries.BOTH if by_message in _WANTED else Carries.STREAMS
        return self._forms.get(wanted, self)

    @property
    def other_forms(self) -> Mapping[str, Stack]:
        return {"datagrams": self._forms[Carries.DATAGRAMS]} if self._forms else {}

    def available(self) -> Availability:
        from importlib.util import find_spec

        if find_spec("aioquic") is None:
            return Availability(False, "aioquic is not installed: install NEATPy with its extra quic")
        return AVAILABLE

    def security_obstacle(self, security: SecurityParameters, *, listening: bool = False) -> str | None:
        from neatpy.stacks._quic.parameters import obstacle

        return obstacle(security, listening)

    def load(self) -> Awaitable[object] | None:
        if _WORK in sys.modules:
            return None
        return asyncio.get_running_loop().run_in_executor(None, importlib.import_module, _WORK)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        await self._load()
        from neatpy.stacks._quic.meeting import connect

        settings = self._settings_for(candidate.security, listening=False)
        return await connect(self, settings, candidate, observer)

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        await self._load()
        from neatpy.stacks._quic.port import QuicListener

        settings = self._settings_for(request.security, listening=True)
        return QuicListener(self, settings, request, accepted)

    async def _load(self) -> None:
        """Import the engine without holding up the loop: it takes 0.1 s the first time."""
        loading = self.load()
        if loading is not None:
            await loading

    def _settings_for(self, security: SecurityParameters, *, listening: bool) -> QuicSettings:
        from neatpy.stacks._quic.parameters import obstacle
        from neatpy.stacks._quic.settings import QuicSettings
        from neatpy.stacks._tls.settings import SettingsCache

        problem = obstacle(security, listening)
        if problem is not None:
            raise EstablishmentError(f"{self.name} cannot be used: {problem}", Reason.NO_CANDIDATES)
        if self._settings is None:
            self._settings = SettingsCache()
        return self._settings.get(security, listening, QuicSettings)


_WORK = "neatpy.stacks._quic.port"
