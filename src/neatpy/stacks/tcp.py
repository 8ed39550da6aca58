"""TCP (RFC 9293): a reliable, ordered byte stream, on the kernel's implementation."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from neatpy.stacks._stream_socket import begin_stream
from neatpy.stacks.contract import (
    Accepted,
    Candidate,
    Flow,
    FlowObserver,
    ListenRequest,
    Stack,
    StackListener,
)
from neatpy.stacks.features import Features, Provision

_INTRINSIC, _OPTIONAL = Provision.INTRINSIC, Provision.OPTIONAL


class TcpStack(Stack):
    """The stack ``tcp``."""

    name = "tcp"
    features = Features(
        rank=50,
        selection={
            "reliability": _INTRINSIC,
            "preserve_order": _INTRINSIC,
            "congestion_control": _INTRINSIC,
            "full_checksum_send": _INTRINSIC,
            "full_checksum_recv": _INTRINSIC,
            "active_read_before_send": _INTRINSIC,
            "keep_alive": _OPTIONAL,
            "zero_rtt_msg": _OPTIONAL,
            "use_temporary_local_address": _OPTIONAL,
        },
        effects={
            "conn_priority": "whose turn it is to send among clones, which have a connection of their own each",
            "conn_scheduler": "how clones, which have a connection of their own each, take turns in sending",
            "conn_timeout": "the kernel's user timeout (TCP_USER_TIMEOUT)",
            "keep_alive_timeout": "idle seconds before the first probe; asks for probes unless keep_alive says no",
            "conn_capacity_profile": "DSCP of all packets, and whether small packets wait (Nagle's algorithm)",
            "max_send_rate": "the kernel paces what it sends",
            "tcp.user_timeout_value": "the local half of RFC 5482; Linux cannot send the option",
            "tcp.user_timeout_enabled": "whether user_timeout_value acts",
            "msg_lifetime": "a Message still in our queue expires",
            "msg_priority": "order of what waits in our queue",
            "final": "half-close after the Message",
        },
        namespace="tcp",
    )

    def begin(self, candidate: Candidate, observer: FlowObserver) -> Flow | Coroutine[Any, Any, Flow]:
        if candidate.early is not None:
            from neatpy.stacks._fast_open import begin_fast_open, wants_fast_open

            if wants_fast_open(candidate.properties):
                return begin_fast_open(self, candidate, observer, candidate.early)
        return begin_stream(self, candidate, observer)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        started = self.begin(candidate, observer)
        return started if isinstance(started, Flow) else await started

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        from neatpy.stacks._stream_listener import listen_stream

        return await listen_stream(self, request, accepted)
