"""SCTP (RFC 9260) carried in UDP (RFC 6951): reliable Messages on many streams, on the library usrsctp."""

from __future__ import annotations

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

_INTRINSIC, _OPTIONAL = Provision.INTRINSIC, Provision.OPTIONAL


class SctpStack(Stack):
    """The stack ``sctp``."""

    name = "sctp"
    features = Features(
        rank=40,
        selection={
            "reliability": _INTRINSIC,
            "preserve_msg_boundaries": _INTRINSIC,
            "per_msg_reliability": _OPTIONAL,
            "preserve_order": _INTRINSIC,
            "multistreaming": _INTRINSIC,
            "congestion_control": _INTRINSIC,
            "full_checksum_send": _INTRINSIC,
            "full_checksum_recv": _INTRINSIC,
            "soft_error_notify": _OPTIONAL,
        },
        effects={
            "conn_priority": "the more urgent streams of the association are served first (RFC 8260)",
            "conn_scheduler": "how the streams share the association; for weighted fair queueing, which usrsctp lacks, "
            "fair capacity (fragment by fragment) among equal priorities and strict priority among unequal ones",
            "conn_capacity_profile": "DSCP of all packets",
            "msg_lifetime": "a Message still in our queue expires; one that was sent is given up (PR-SCTP)",
            "msg_priority": "order of what waits in our queue",
            "msg_ordered": "unordered Messages are delivered as they come",
            "msg_reliable": "an unreliable Message is sent once (PR-SCTP)",
            "final": "the stream is reset after the Message",
            "_neatpy.encapsulation_port": "the UDP port of the peer, or of the Listener, if not the SCTP port's number",
            "_neatpy.payload_protocol_id": "the payload protocol identifier of the Message",
        },
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
