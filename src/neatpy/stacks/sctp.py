"""SCTP (RFC 9260) carried in UDP (RFC 6951): reliable Messages on many streams, on the library usrsctp."""

from __future__ import annotations

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
from neatpy.stacks.features import Features


class SctpStack(Stack):
    """The stack ``sctp``."""

    name = "sctp"
    features = Features(
        rank=40,
        selection=SELECTION,
        effects=EFFECTS,
        preserves_boundaries=True,
        namespace="sctp",
    )

    def available(self) -> Availability:
        from neatpy.stacks._sctp.library import obstacle

        problem = obstacle()
        return AVAILABLE if problem is None else Availability(False, problem)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        from neatpy.stacks._sctp.meeting import connect

        return await connect(self, candidate, observer)

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        from neatpy.stacks._sctp.meeting import SctpListener

        return SctpListener(self, request, accepted)
