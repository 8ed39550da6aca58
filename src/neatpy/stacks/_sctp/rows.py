"""The rows of the feature table that every stack with SCTP has, whatever carries its packets. Data alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from neatpy.stacks.features import Provision

_INTRINSIC, _OPTIONAL = Provision.INTRINSIC, Provision.OPTIONAL

SELECTION: Mapping[str, Provision] = MappingProxyType(
    {
        "reliability": _INTRINSIC,
        "preserve_msg_boundaries": _INTRINSIC,
        "per_msg_reliability": _OPTIONAL,
        "preserve_order": _INTRINSIC,
        "multistreaming": _INTRINSIC,
        "congestion_control": _INTRINSIC,
        "full_checksum_send": _INTRINSIC,
        "full_checksum_recv": _INTRINSIC,
        "keep_alive": _INTRINSIC,
        "soft_error_notify": _OPTIONAL,
    }
)

EFFECTS: Mapping[str, str] = MappingProxyType(
    {
        "conn_priority": "the more urgent streams of the association are served first (RFC 8260)",
        "conn_scheduler": "how the streams share the association; for weighted fair queueing, which usrsctp lacks, "
        "fair capacity (fragment by fragment) among equal priorities and strict priority among unequal ones",
        "group_conn_limit": "streams of the peer beyond it are refused",
        "conn_timeout": "how often in a row the association retransmits before it gives the peer up",
        "keep_alive_timeout": "how often an idle peer is probed by heartbeats (RFC 9260 section 8.3)",
        "conn_capacity_profile": "DSCP of all packets",
        "msg_lifetime": "a Message still in our queue expires; one that was sent is given up (PR-SCTP)",
        "msg_priority": "order of what waits in our queue",
        "msg_ordered": "unordered Messages are delivered as they come",
        "msg_reliable": "an unreliable Message is sent once (PR-SCTP)",
        "final": "the stream is reset after the Message",
        "_neatpy.encapsulation_port": "the UDP port of the peer, or of the Listener, if not the SCTP port's number",
        "_neatpy.payload_protocol_id": "the payload protocol identifier of the Message",
    }
)
