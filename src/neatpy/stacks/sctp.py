"""SCTP (RFC 9260) carried in UDP (RFC 6951): reliable Messages on many streams, on the library usrsctp."""

from __future__ import annotations

import asyncio
import sys

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
    carrier = "udp"
    features = Features(
        rank=40,
        selection=SELECTION,
        effects=EFFECTS,
        preserves_boundaries=True,
        namespace="sctp",
    )

    one_path = (
        "usrsctp is driven by the event loop here, with paths that are ours (AF_CONN), and has one path for each "
        "association then; only with threads and sockets of its own has it several"
    )

    def available(self) -> Availability:
        from neatpy.stacks._sctp.library import obstacle

        problem = obstacle() or _taken()
        return AVAILABLE if problem is None else Availability(False, problem)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        from neatpy.stacks._sctp.meeting import connect

        return await connect(self, candidate, observer)

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        from neatpy.stacks._sctp.meeting import SctpListener

        return SctpListener(self, request, accepted)


def _taken() -> str | None:
    """Why the running loop cannot have the engine that there is once in a process."""
    engine = sys.modules.get("neatpy.stacks._sctp.engine")
    return None if engine is None else engine.ENGINE.taken(asyncio._get_running_loop())
