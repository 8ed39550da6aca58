"""SCTP over DTLS over UDP (RFC 8261): secure, reliable Messages on many streams.

DTLS shakes hands first; then the association is made inside of it. What does the work is loaded when the stack is
first used.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING, cast

from neatpy.errors import EstablishmentError, Reason
from neatpy.stacks._sctp.rows import EFFECTS, SELECTION
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
    from neatpy.security import SecurityParameters
    from neatpy.stacks._sctp.secure_meeting import SecureDatagrams

_WORK = ("neatpy.stacks._dtls.engine", "neatpy.stacks._dtls.flow", "neatpy.stacks._sctp.secure_meeting")
"""Where the work is done."""

_ISOLATION = "always so: no session is resumed, and none is kept for resumption"


class SctpDtlsStack(Stack):
    """The stack ``sctp/dtls/udp``."""

    name = "sctp/dtls/udp"
    carrier = "udp"
    features = Features(
        rank=20,
        selection={**SELECTION, "use_temporary_local_address": Provision.OPTIONAL},
        effects={**EFFECTS, "isolate_session": _ISOLATION},
        secure=True,
        preserves_boundaries=True,
        namespace="sctp",
    )

    def available(self) -> Availability:
        from neatpy.stacks._sctp.library import obstacle

        if self.lower is None:
            return Availability(False, f"there is no stack {self.name.partition('/')[2]} below")
        below = self.lower.available()
        lacking = [text for text in (obstacle(), None if below.available else below.reason) if text]
        return Availability(False, "; ".join(lacking)) if lacking else AVAILABLE

    def security_obstacle(self, security: SecurityParameters, *, listening: bool = False) -> str | None:
        return self._lower().security_obstacle(security, listening=listening)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        for work in _WORK:
            if work not in sys.modules:
                # Other candidates go on meanwhile: it takes longer than a handshake.
                await asyncio.get_running_loop().run_in_executor(None, importlib.import_module, work)
        from neatpy.stacks._sctp.secure_meeting import connect

        return await connect(self, self._secure_datagrams(), candidate, observer)

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        from neatpy.stacks._sctp.secure_meeting import SecureListener

        return await SecureListener.open(self, self._secure_datagrams(), request, accepted)

    def _lower(self) -> Stack:
        if self.lower is None:
            raise EstablishmentError(f"{self.name} has no stack below", Reason.NO_CANDIDATES)
        return self.lower

    def _secure_datagrams(self) -> SecureDatagrams:
        return cast("SecureDatagrams", self._lower())
