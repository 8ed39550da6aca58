"""What the layer of framers needs beside its framers: the part of the contract in which it stands aside, the observer
of the Flow below, and the tokens by which that one tells what was Sent. Parsing and protocols are unknown here.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from neatpy.errors import ConnectionError, Reason
from neatpy.framer import Framer
from neatpy.stacks.contract import Address, Flow, FlowObserver

if TYPE_CHECKING:
    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.errors import TransportServicesError
    from neatpy.framer_handle import Handle
    from neatpy.framing import FramedFlow
    from neatpy.message import MessageContext
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Stack

OWN = object()
"""The token of what framers send of their own."""

# ruff: noqa: D102 - the contract documents the methods of a Flow and its observer


class LayeredFlow(Flow):
    """A Flow over another one, which answers all that is not the layer's business."""

    __slots__ = ("_lower",)

    _lower: Flow

    @property
    def stack(self) -> Stack:
        return self._lower.stack

    @property
    def can_send(self) -> bool:
        return self._lower.can_send

    @property
    def local_address(self) -> Address:
        return self._lower.local_address

    @property
    def remote_address(self) -> Address:
        return self._lower.remote_address

    @property
    def paths(self) -> Sequence[tuple[Address, Address]]:
        return self._lower.paths

    @property
    def coalesces(self) -> bool:
        return self._lower.coalesces

    @property
    def sends_apart(self) -> bool:
        return self._lower.sends_apart

    def keep_together(self) -> None:
        self._lower.keep_together()

    def apply(self, name: str, value: object) -> None:
        self._lower.apply(name, value)

    def change_paths(self, action: str, endpoint: LocalEndpoint | RemoteEndpoint) -> None:
        self._lower.change_paths(action, endpoint)

    def open_sibling(self, properties: TransportProperties) -> Flow | Coroutine[Any, Any, Flow]:
        """A stream without the layer: who opened it puts on it what it needs."""
        return self._lower.open_sibling(properties)

    def statistics(self) -> dict[str, float]:
        return self._lower.statistics()

    def security(self) -> dict[str, object]:
        return self._lower.security()


class Below(FlowObserver):
    """Hears what the Flow below says; an object of its own, because a Flow's ``writable`` is not an observer's."""

    __slots__ = ("_bottom", "_flow", "received")

    def __init__(self, flow: FramedFlow, bottom: Handle) -> None:
        self._flow = flow
        self._bottom = bottom
        self.received = bottom.receive  # type: ignore[method-assign]  # one call less for all that comes

    def received_apart(self, data: bytes, context: MessageContext) -> bool:
        flow = self._flow
        return flow.sends_apart and not flow._closing and parsed_apart(self._bottom, data, context, flow)

    def abandoned(self) -> None:
        self._flow.fail(
            ConnectionError("the peer gave up what holds part of a frame", Reason.DEFRAMING_FAILED)
        )

    def finished(self) -> None:
        flow = self._flow
        if flow._closing and not flow.over and flow._linger is not None:
            flow.close_lower()  # the peer will not answer any more
        else:
            self._bottom.end_of_data()

    def sent(self, token: object) -> None:
        flow = self._flow
        if type(token) is Several:
            token.left -= 1
            if token.left == 0 and not token.in_send:
                flow.observer.sent(token.token)
        elif token is not OWN:
            flow.observer.sent(token)
        flow.settled()

    def expired(self, token: object) -> None:
        flow = self._flow
        if type(token) is Several:
            if token.left > 0:
                token.left = -1
                flow.observer.expired(token.token)
        elif token is not OWN:
            flow.observer.expired(token)
        flow.settled()

    def failed(self, token: object, error: TransportServicesError) -> None:
        flow = self._flow
        if type(token) is Several:
            if token.left > 0:
                token.left = -1
                flow.observer.failed(token.token, error)
        elif token is not OWN:
            flow.observer.failed(token, error)
        flow.settled()

    def writable(self) -> None:
        flow = self._flow
        flow.flush_outbox()
        if flow._started and flow.writable and not flow.over and not flow._finish_waits:
            flow.observer.writable()

    def sibling(self, flow: Flow) -> None:
        self._flow.frame_sibling(flow)

    def soft_error(self, error: TransportServicesError) -> None:
        self._flow.observer.soft_error(error)

    def path_changed(self) -> None:
        self._flow.observer.path_changed()

    def closed(self, error: TransportServicesError | None) -> None:
        self._flow.lower_closed(error)


def frames_stand_alone(handle: Handle | None) -> bool:
    """Whether what these framers (from this one up) make of one Message can be read without what went before: none
    shakes hands, and each finds its frames in the bytes alone."""
    while handle is not None:
        if handle._next_frame is None or type(handle._framer).start is not Framer.start:
            return False
        handle = handle._above
    return True


def parsed_apart(handle: Handle, data: bytes, context: MessageContext, flow: FramedFlow) -> bool:
    """Deliver the Messages in a Message of the stack's own that came beside the byte stream. Whether they were whole
    and taken; such Messages may be lost, so that what is malformed is."""
    find = handle._next_frame
    assert find is not None
    above = handle._above
    at, taken = 0, bool(data)
    while taken and at < len(data):
        try:
            frame = find(data, at)
        except Exception:
            return False
        if frame is None:
            return False
        start, stop, at, metadata = frame
        inner = context.copy()
        for key, value in (metadata or {}).items():
            inner.add(handle._framer, key, value)
        if above is None:
            taken = flow.deliver_apart(data[start:stop], inner)
        else:
            taken = parsed_apart(above, data[start:stop], inner, flow)
    return taken


class Several:
    """The token of a send that became several pieces; ``left`` of them are not settled yet."""

    __slots__ = ("in_send", "left", "token")

    def __init__(self, token: object, left: int) -> None:
        self.token = token
        self.left = left
        self.in_send = True
