"""A toy Flow to put framers on, toy framers, and an observer above that puts Messages together as a Connection does."""

from __future__ import annotations

import asyncio
from typing import Any

from neatpy.errors import CloneError, ConnectionError, Reason
from neatpy.framer import Framer
from neatpy.framing import FramedFlow, frame
from neatpy.message import MessageContext
from neatpy.stacks.contract import Address, Flow, FlowObserver

CONNECTION: Any = object()
SOMEWHERE = Address("192.0.2.1", 7)


class ToyFlow(Flow):
    """Records what it is told; takes everything at once while ``writable`` and not ``slow``."""

    def __init__(self) -> None:
        self.observer = FlowObserver()
        self.writable = True
        self.slow = False
        self.corked: list[tuple[bytes, object]] | None = None
        self.wire: list[bytes] = []
        self.ends: list[bool] = []
        self.contexts: list[MessageContext] = []
        self.untaken: list[object] = []
        self.calls: list[str] = []
        self.limit: object = 1 << 62
        self.siblings: list[ToyFlow] = []

    @property
    def stack(self) -> Any:
        return "toy"

    @property
    def local_address(self) -> Address:
        return SOMEWHERE

    @property
    def remote_address(self) -> Address:
        return SOMEWHERE

    @property
    def sent(self) -> bytes:
        return b"".join(self.wire)

    def send(self, data: Any, context: MessageContext, end_of_message: bool, token: object) -> bool:
        assert self.writable, "the contract: only while writable"
        assert isinstance(context, MessageContext)
        self.ends.append(end_of_message)
        self.contexts.append(context)
        if self.corked is not None:
            self.corked.append((bytes(data), token))
            return False
        self.wire.append(bytes(data))
        if self.slow:
            self.untaken.append(token)
        return not self.slow

    def take(self, count: int | None = None) -> None:
        """The network takes what was sent, or the first ``count`` pieces of it."""
        taken, self.untaken = (
            self.untaken[:count],
            self.untaken[len(self.untaken) if count is None else count :],
        )
        for token in taken:
            self.observer.sent(token)

    def cork(self) -> None:
        self.calls.append("cork")
        self.corked = []

    def uncork(self) -> None:
        self.calls.append("uncork")
        corked, self.corked = self.corked or [], None
        self.wire.append(b"".join(data for data, _ in corked))
        for _, token in corked:
            if self.slow:
                self.untaken.append(token)
            else:
                self.observer.sent(token)

    def pause_receiving(self) -> None:
        self.calls.append("pause")

    def resume_receiving(self) -> None:
        self.calls.append("resume")

    def finish(self) -> None:
        self.calls.append("finish")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")
        self.observer = FlowObserver()

    def read(self, name: str) -> object:
        return self.limit

    def backlog(self) -> int:
        return 3

    def open_sibling(self, properties: Any) -> Flow:
        if not self.siblings:
            raise CloneError("no streams", Reason.NOT_CLONEABLE)
        return self.siblings.pop()


class ToyDatagramFlow(ToyFlow):
    preserves_boundaries = True


class Above(FlowObserver):
    """Puts the parts of Messages together, as a Connection does, and keeps everything else."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.parts: list[bytes] = []
        self.open: MessageContext | None = None
        self.contexts: list[MessageContext | None] = []
        self.events: list[Any] = []
        self.flow: Flow | None = None
        self.pause_after: int | None = None
        self.siblings: list[Flow] = []

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        assert type(data) is bytes
        if self.parts:
            assert context is self.open, "all parts of a Message have one context"
        elif not end_of_message and self.flow is not None and self.flow.preserves_boundaries:
            assert context is not None
        self.parts.append(data)
        self.open = context
        if end_of_message:
            self.messages.append(b"".join(self.parts))
            self.contexts.append(context)
            self.parts = []
        if self.pause_after is not None and self.flow is not None and len(self.messages) >= self.pause_after:
            self.flow.pause_receiving()

    def sent(self, token: object) -> None:
        self.events.append(("sent", token))

    def failed(self, token: object, error: Exception) -> None:
        self.events.append(("failed", token))

    def expired(self, token: object) -> None:
        self.events.append(("expired", token))

    def writable(self) -> None:
        self.events.append("writable")

    def finished(self) -> None:
        self.events.append("finished")

    def sibling(self, flow: Flow) -> None:
        self.siblings.append(flow)
        flow.observer = self

    def soft_error(self, error: Exception) -> None:
        self.events.append("soft_error")

    def path_changed(self) -> None:
        self.events.append("path_changed")

    def closed(self, error: Exception | None) -> None:
        self.events.append(("closed", error))


def framed(*framers: Framer, lower: ToyFlow | None = None) -> tuple[ToyFlow, FramedFlow, Above]:
    lower = lower or ToyFlow()
    above = Above()
    flow = above.flow = FramedFlow(lower, framers, CONNECTION, above)
    assert flow.start()
    return lower, flow, above


async def turn(times: int = 3) -> None:
    """Let what was scheduled for the next turns of the loop happen."""
    for _ in range(times):
        await asyncio.sleep(0)


class Plain(Framer):
    """Lets everything through, unframed; a base for framers that do one thing."""

    def new_sent_message(self, connection: Any, handle: Any, data: Any, context: Any, end: bool) -> None:
        handle.send(data, context, end)

    def handle_received_data(self, connection: Any, handle: Any) -> None:
        data, context, end = handle.parse(0)
        handle.deliver_and_advance_receive_cursor(context, len(data), end)


class Greeting(Plain):
    """Says hello and waits for one; then frames by a byte of length. Says goodbye likewise."""

    def __init__(self, name: bytes = b"!") -> None:
        self.name = name
        self.log: list[str] = []

    def start(self, connection: Any, handle: Any) -> None:
        assert connection is CONNECTION
        self.log.append("start")
        handle.state = "greeting"
        handle.send(b"hello" + self.name)

    def stop(self, connection: Any, handle: Any) -> None:
        self.log.append("stop")
        handle.state = "parting"
        handle.send(b"bye" + self.name)

    def new_sent_message(self, connection: Any, handle: Any, data: Any, context: Any, end: bool) -> None:
        handle.send(bytes([len(data)]) + data, context)

    def handle_received_data(self, connection: Any, handle: Any) -> None:
        if handle.state == "framing":
            (length,) = handle.parse(1, 1)[0]
            handle.advance_receive_cursor(1)
            handle.deliver_and_advance_receive_cursor(None, length, True)
            return
        expected = (b"hello" if handle.state == "greeting" else b"bye") + self.name
        got, _, _ = handle.parse(len(expected), len(expected))
        if got != expected:
            handle.fail_connection(ConnectionError(f"rude: {got!r}", Reason.PROTOCOL_FAILED))
            return
        handle.advance_receive_cursor(len(expected))
        if handle.state == "greeting":
            handle.state = "framing"
            handle.make_connection_ready()
        else:
            handle.make_connection_closed()


def prefixed(*messages: bytes) -> bytes:
    """The Messages as ``LengthPrefixFramer()`` frames them."""
    return b"".join(len(message).to_bytes(4, "big") + message for message in messages)


async def shaken(*framers: Greeting) -> tuple[ToyFlow, FramedFlow, Above]:
    """Those whose lowest framer has greeted and was greeted."""
    lower, above = ToyFlow(), Above()
    task = asyncio.ensure_future(frame(lower, framers, CONNECTION, above))
    await turn()
    lower.observer.received(b"hello" + framers[0].name, None, False)
    flow = await task
    await turn()
    return lower, flow, above
