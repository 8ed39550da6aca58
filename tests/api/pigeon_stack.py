"""A toy protocol stack for tests, as another package would add it: reliable Messages inside the process.

An association is between two sides; either opens streams, each a Flow. Everything is delivered in the next turn of
the loop. ``conn_timeout`` 13 cannot be applied.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from neatpy.errors import CloneError, ConnectionError, PropertyError, Reason
from neatpy.message import MessageContext
from neatpy.properties import TransportProperties
from neatpy.stacks.contract import (
    Accepted,
    Address,
    Candidate,
    Data,
    Flow,
    FlowObserver,
    ListenRequest,
    Stack,
    StackListener,
)
from neatpy.stacks.features import Features, Provision
from neatpy.stacks.registry import registry

_UNBOUND = FlowObserver()


class PigeonFlow(Flow):
    """One stream."""

    preserves_boundaries = True

    def __init__(self, stack: PigeonStack, local: Address, remote: Address) -> None:
        self._stack = stack
        self._local, self._remote = local, remote
        self.observer = _UNBOUND
        self.writable = True
        self.peer: PigeonFlow
        self.over = False
        self._waiting: list[tuple[bytes, MessageContext, bool]] = []
        self._paused = False
        self._contexts: dict[MessageContext, MessageContext] = {}

    @classmethod
    def couple(cls, stack: PigeonStack, near: Address, far: Address) -> tuple[PigeonFlow, PigeonFlow]:
        one, other = cls(stack, near, far), cls(stack, far, near)
        one.peer, other.peer = other, one
        return one, other

    @property
    def stack(self) -> Stack:
        return self._stack

    @property
    def local_address(self) -> Address:
        return self._local

    @property
    def remote_address(self) -> Address:
        return self._remote

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        _soon(self.peer.arrived, bytes(data), end_of_message)
        return True

    def arrived(self, data: bytes, end_of_message: bool) -> None:
        self._waiting.append((data, MessageContext(), end_of_message))
        self._deliver()

    def _deliver(self) -> None:
        while self._waiting and not self._paused and not self.over:
            self.observer.received(*self._waiting.pop(0))

    def pause_receiving(self) -> None:
        self._paused = True

    def resume_receiving(self) -> None:
        if self._paused:
            self._paused = False
            _soon(self._deliver)

    def finish(self) -> None:
        _soon(self.peer.peer_finished)

    def peer_finished(self) -> None:
        if not self.over:
            self.observer.finished()

    def close(self) -> None:
        if not self.over:
            self.finish()
            _soon(self._end, None)

    def abort(self) -> None:
        if not self.over:
            self.over = True
            self.observer = _UNBOUND
            _soon(self.peer._end, ConnectionError("the pigeon did not come back", Reason.CONNECTION_ABORTED))

    def _end(self, error: ConnectionError | None) -> None:
        if not self.over:
            self.over = True
            self.observer.closed(error)

    async def open_sibling(self, properties: TransportProperties) -> Flow:
        if self._stack.refuses_streams:
            raise CloneError("no more pigeons", Reason.PROTOCOL_FAILED)
        ours, theirs = self.couple(self._stack, self._local, self._remote)
        _soon(self.peer.observer.sibling, theirs)
        return ours

    def apply(self, name: str, value: object) -> None:
        if name == "conn_timeout" and value == 13:
            raise PropertyError("13 brings bad luck")


class PigeonListener(StackListener):
    """A dovecote."""

    def __init__(self, stack: PigeonStack, address: Address, accepted: Accepted) -> None:
        self._stack, self._address = stack, address
        self.accepted = accepted

    @property
    def local_address(self) -> Address:
        return self._address

    def close(self) -> None:
        self._stack.dovecotes.pop(self._address, None)


class PigeonStack(Stack):
    """The stack ``pigeon``."""

    name = "pigeon"
    features = Features(
        rank=5,
        selection=dict.fromkeys(
            (
                "reliability",
                "preserve_order",
                "preserve_msg_boundaries",
                "congestion_control",
                "multistreaming",
                "zero_rtt_msg",
                "full_checksum_send",
                "full_checksum_recv",
            ),
            Provision.INTRINSIC,
        ),
        effects={"conn_timeout": "13 is refused"},
        preserves_boundaries=True,
    )

    def __init__(self) -> None:
        self.dovecotes: dict[Address, PigeonListener] = {}
        self.refuses_streams = False
        self._ports = itertools.count(50_000)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        dovecote = self.dovecotes.get(candidate.remote)
        if dovecote is None:
            raise ConnectionRefusedError(f"no dovecote at {candidate.remote}")
        ours, theirs = PigeonFlow.couple(self, Address("127.0.0.1", next(self._ports)), candidate.remote)
        ours.observer = observer
        dovecote.accepted(theirs)
        return ours

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        address = request.local._replace(port=request.local.port or next(self._ports))
        listener = self.dovecotes[address] = PigeonListener(self, address, accepted)
        return listener


def refuse_streams(name: str | None, refuses: bool) -> None:
    """Whether no more streams can be opened."""
    stack: Any = registry.stacks()[name or ""]
    stack.refuses_streams = refuses


def _soon(call: Any, *arguments: object) -> None:
    asyncio.get_running_loop().call_soon(call, *arguments)
