"""A protocol stack of its own package: Messages between two sides of one process, through its memory."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

from neatpy.errors import ConnectionError, Reason
from neatpy.message import MessageContext
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

HERE = "127.0.0.1"


class MailboxFlow(Flow):
    """One side of a pair: what is sent here is received by ``other``."""

    preserves_boundaries = True
    other: MailboxFlow

    def __init__(self, stack: Stack, local: Address, remote: Address) -> None:
        self.observer = FlowObserver()  # hears nothing; whoever takes the Flow sets its own
        self.writable = True
        self._stack, self._local, self._remote = stack, local, remote
        self._letters: deque[tuple[bytes, MessageContext, bool]] = deque()
        self._incoming: MessageContext | None = None
        self._paused = self._over = False

    stack = property(lambda self: self._stack)
    local_address = property(lambda self: self._local)
    remote_address = property(lambda self: self._remote)

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        # Never call the observer from inside one of its calls: let the loop bring the letter.
        _soon(self.other._arrived, bytes(data), end_of_message)
        return True  # Sent: nobody can lose it now

    def _arrived(self, data: bytes, end_of_message: bool) -> None:
        # All parts of one Message have the same context.
        context = self._incoming or MessageContext()
        self._incoming = None if end_of_message else context
        self._letters.append((data, context, end_of_message))
        self._deliver()

    def _deliver(self) -> None:
        while self._letters and not self._paused and not self._over:
            self.observer.received(*self._letters.popleft())

    def pause_receiving(self) -> None:
        self._paused = True

    def resume_receiving(self) -> None:
        if self._paused:
            self._paused = False
            _soon(self._deliver)

    def finish(self) -> None:
        _soon(self.other._tell, "finished")

    def close(self) -> None:
        self.finish()
        _soon(self._end, None)

    def abort(self) -> None:
        if not self._over:
            self._over = True
            _soon(self.other._end, ConnectionError("the other side left", Reason.CONNECTION_ABORTED))

    def _tell(self, event: str) -> None:
        if not self._over:
            getattr(self.observer, event)()

    def _end(self, error: ConnectionError | None) -> None:
        if not self._over:
            self._over = True
            self.observer.closed(error)


class MailboxListener(StackListener):
    def __init__(self, stack: MailboxStack, address: Address, accepted: Accepted) -> None:
        self._stack, self._address, self.accepted = stack, address, accepted

    local_address = property(lambda self: self._address)

    def close(self) -> None:
        self._stack.listeners.pop(self._address, None)


class MailboxStack(Stack):
    name = "mailbox"
    features = Features(
        rank=90,  # behind everything else, if everything else ties
        selection={
            "reliability": Provision.INTRINSIC,
            "preserve_order": Provision.INTRINSIC,
            "preserve_msg_boundaries": Provision.INTRINSIC,
            "congestion_control": Provision.INTRINSIC,
            "full_checksum_send": Provision.INTRINSIC,
            "full_checksum_recv": Provision.INTRINSIC,
        },
        effects={"final": "the other side sees the end"},
        preserves_boundaries=True,
    )

    def __init__(self) -> None:
        self.listeners: dict[Address, MailboxListener] = {}
        self._ports = itertools.count(50_000)

    async def connect(self, candidate: Candidate, observer: FlowObserver) -> Flow:
        listener = self.listeners.get(candidate.remote)
        if listener is None:
            raise ConnectionRefusedError(f"nobody reads the mail at {candidate.remote}")
        here = Address(HERE, next(self._ports))
        ours, theirs = MailboxFlow(self, here, candidate.remote), MailboxFlow(self, candidate.remote, here)
        ours.other, theirs.other = theirs, ours
        ours.observer = observer
        listener.accepted(theirs)
        return ours

    async def listen(self, request: ListenRequest, accepted: Accepted) -> StackListener:
        address = request.local._replace(port=request.local.port or next(self._ports))
        listener = self.listeners[address] = MailboxListener(self, address, accepted)
        return listener


def _soon(call: object, *arguments: object) -> None:
    asyncio.get_running_loop().call_soon(call, *arguments)  # type: ignore[arg-type]
