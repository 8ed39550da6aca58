"""One attempt at one candidate, from its start until its Flow is bound to a Connection or ended.

The attempt is the Flow's observer while candidates race. What the Flow says in that time is recorded and replayed when
the Connection takes over; whatever happens to a loser ends here. It knows nothing about the race.
"""

from __future__ import annotations

from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

from neatpy.stacks.contract import Candidate, Flow, FlowObserver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from neatpy.errors import TransportServicesError
    from neatpy.message import MessageContext

_RECORDED_BYTES = 256 * 1024


class Attempt(FlowObserver):
    """Connects one candidate and keeps what its Flow says until somebody listens."""

    __slots__ = ("_bytes", "_events", "_over", "_paused", "candidate", "flow")

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.flow: Flow | None = None
        self._events: list[tuple[str, tuple[object, ...]]] | None = None
        self._bytes = 0
        self._paused = False
        self._over = False

    async def connect(self, prepare: Callable[[Flow], Awaitable[Flow]] | None = None) -> Flow:
        """Make the Flow, handshakes of stack and framers included. Raises what these raise; nothing is left then."""
        return await self.connect_on(self.begin(), prepare)

    def begin(self) -> Flow | Coroutine[Any, Any, Flow]:
        """Start: gives the Flow if it is there at once, else what ``connect_on`` takes. Raises what the stack does."""
        started = self.candidate.stack.begin(self.candidate, self)
        if type(started) is not CoroutineType:
            self.flow = cast("Flow", started)
        return started

    async def connect_on(
        self, started: Flow | Coroutine[Any, Any, Flow], prepare: Callable[[Flow], Awaitable[Flow]] | None
    ) -> Flow:
        """Go on with what ``begin`` gave, as ``connect`` does."""
        if self.flow is None:
            self.flow = await cast("Coroutine[Any, Any, Flow]", started)
        return self.flow if prepare is None else await self.prepare(prepare)

    async def prepare(self, prepare: Callable[[Flow], Awaitable[Flow]]) -> Flow:
        """Run the framers' handshake over the Flow; the Flow is theirs then. Raises what it raises; the Flow is
        aborted then."""
        assert self.flow is not None, "only a Flow that is there can be prepared"
        try:
            self.flow = await prepare(self.flow)
        except BaseException:
            self.abort()
            raise
        return self.flow

    def insert(self, layer: FlowObserver, below: Flow) -> None:
        """Put a layer between: it observes ``below`` from now on and hears what was recorded of it. The attempt goes
        on to record what the layer says, if the layer (a Flow itself) takes the attempt as its observer."""
        events, self._events = self._events, None
        below.observer = layer
        self._resume(below)
        if events:
            _replay(events, layer)

    def bind(self, observer: FlowObserver) -> None:
        """Let this observer drive the Flow from now on, and tell it what was recorded, in order."""
        flow = self.flow
        assert flow is not None, "only an attempt that succeeded can be bound"
        flow.observer = observer
        self._resume(flow)
        events = self._events
        if events is not None:
            self._events = None
            _replay(events, observer)

    def abort(self) -> None:
        """End the attempt; its Flow, if there is one, and the streams that the peer opened on it are aborted."""
        self._over = True
        events, self._events = self._events, None
        for name, arguments in events or ():
            if name == "sibling":
                nested = arguments[1]
                assert isinstance(nested, Attempt)
                nested.abort()
        if self.flow is not None:
            self.flow.abort()

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        self._record("received", data, context, end_of_message)
        self._bytes += len(data)
        if self._bytes > _RECORDED_BYTES and self.flow is not None and not self._paused:
            self._paused = True
            self.flow.pause_receiving()

    def received_apart(self, data: bytes, context: MessageContext) -> bool:
        self._bytes += len(data)
        if self._bytes > _RECORDED_BYTES:
            return False
        self._record("received_apart", data, context)
        return True

    def abandoned(self) -> None:
        self._record("abandoned")

    def sent(self, token: object) -> None:
        self._record("sent", token)

    def expired(self, token: object) -> None:
        self._record("expired", token)

    def failed(self, token: object, error: TransportServicesError) -> None:
        self._record("failed", token, error)

    def writable(self) -> None:
        self._record("writable")

    def sibling(self, flow: Flow) -> None:
        if self._over:
            flow.abort()
            return
        nested = Attempt(self.candidate)
        nested.flow = flow
        flow.observer = nested
        self._record("sibling", flow, nested)

    def soft_error(self, error: TransportServicesError) -> None:
        self._record("soft_error", error)

    def path_changed(self) -> None:
        self._record("path_changed")

    def finished(self) -> None:
        self._record("finished")

    def closed(self, error: TransportServicesError | None) -> None:
        self._record("closed", error)

    def _record(self, event: str, *arguments: object) -> None:
        if self._over:
            return
        if self._events is None:
            self._events = []
        self._events.append((event, arguments))

    def _resume(self, flow: Flow) -> None:
        self._bytes = 0
        if self._paused:
            self._paused = False
            flow.resume_receiving()


def _replay(events: list[tuple[str, tuple[object, ...]]], observer: FlowObserver) -> None:
    for name, arguments in events:
        if name == "sibling":
            _hand_over_sibling(arguments, observer)
        else:
            getattr(observer, name)(*arguments)


def _hand_over_sibling(arguments: tuple[object, ...], observer: FlowObserver) -> None:
    """The observer either puts an observer of its own on the stream, or does not want it."""
    flow, nested = arguments
    assert isinstance(flow, Flow)
    assert isinstance(nested, Attempt)
    observer.sibling(flow)
    if flow.observer is nested:
        nested.abort()
    else:
        nested.bind(flow.observer)
