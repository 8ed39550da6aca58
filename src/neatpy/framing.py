"""The framers of one Connection as a layer: a Flow of Messages over the Flow of a protocol stack.

A Connection never knows whether there are framers: :class:`FramedFlow` keeps the contract of ``stacks/contract.py``
both ways. Here it starts and stops the framers, and holds what they may not deliver yet. Sending has a room of its own
(:mod:`neatpy.framing_sending`), parsing is the handles' (:mod:`neatpy.framer_handle`), and protocols are unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from neatpy.errors import ConnectionError, EstablishmentError, Reason, TransportServicesError
from neatpy.framer import Framer, MessageFramer
from neatpy.framer_handle import Handle
from neatpy.framer_shortcuts import shortcut_of
from neatpy.framing_layer import Below, frames_stand_alone
from neatpy.framing_sending import OUTBOX_LIMIT, FramedSending
from neatpy.message import MessageContext
from neatpy.stacks.contract import Flow, FlowObserver

# ruff: noqa: D102 - the contract documents the methods of a Flow

LINGER = 5.0
"""Seconds that framers have for their closing handshakes."""

_MESSAGE_LIMITS = ("send_msg_max_len", "recv_msg_max_len", "singular_transmission_msg_max_len")

_UNBOUND = FlowObserver()


async def frame(
    lower: Flow, framers: Sequence[Framer], connection: object, observer: FlowObserver | None = None
) -> FramedFlow:
    """Put framers on a Flow and wait until all are ready; the last framer is the topmost.

    ``observer`` becomes the observer of the FramedFlow; by default it is who observes ``lower``. Raises
    EstablishmentError if a framer fails, or the Flow meanwhile; everything is aborted then.
    """
    above = lower.observer if observer is None else observer
    flow = FramedFlow(lower, framers, connection, above)
    insert = getattr(above, "insert", None)
    if insert is not None:
        insert(flow.below, lower)  # an attempt: what it recorded belongs to the framers
    try:
        if not flow.start():
            await flow.wait_until_ready()
    except BaseException:
        flow.abort()
        raise
    return flow


class FramedFlow(FramedSending):
    """A Flow of Messages, made by framers from the Flow below.

    ``connection`` is what framers get to see as the Connection. The Flow below tells everything to ``below`` from the
    start; what arrives before ``start`` is not lost.
    """

    __slots__ = (
        "_bottom",
        "_closing",
        "_connection",
        "_early",
        "_failure",
        "_framers",
        "_linger",
        "_pump",
        "_started",
        "_starting",
        "_stopping",
        "_when_started",
        "below",
        "blocked",
        "holds_back",
    )

    below: FlowObserver
    """The observer of the Flow below."""

    def __init__(
        self,
        lower: Flow,
        framers: Sequence[Framer],
        connection: object,
        observer: FlowObserver = _UNBOUND,
    ) -> None:
        if not framers:
            raise ValueError("a FramedFlow has at least one framer")
        super().__init__(lower)
        self._framers = framers
        self._connection: Any = connection
        self.observer = observer
        self._bottom = self._top = handle = Handle(self, framers[0])
        for framer in framers[1:]:
            self._top = Handle(self, framer)
            handle._above, self._top._below = self._top, handle
            handle = self._top
        self._whole_frame = shortcut_of(framers[0], "whole_frame") if len(framers) == 1 else None
        self.blocked = self.holds_back = False
        self._started = self._starting = False
        self._when_started: Callable[[EstablishmentError | None], None] | None = None
        self._failure: EstablishmentError | None = None
        self._early: list[tuple[Any, ...]] | None = None
        self._pump: asyncio.Handle | None = None
        self._closing = self._stopping = False
        self._linger: asyncio.TimerHandle | None = None
        if not frames_stand_alone(self._bottom):
            lower.keep_together()
        self.below = lower.observer = Below(self, self._bottom)

    # Starting

    def start(self, when_started: Callable[[EstablishmentError | None], None] | None = None) -> bool:
        """Start the framers, the lowest first, each when the one below is ready.

        True: all are ready. False: ``when_started`` will be called with None or an error; until ``release`` what
        arrives for the observer is kept. Raises EstablishmentError if a framer failed at once."""
        self._start_next()
        if self._failure is not None:
            raise self._failure
        if self._started:
            return True
        self._when_started = when_started
        self._early = []
        self.holds_back = True
        return False

    async def wait_until_ready(self) -> None:
        """After ``start`` gave False: wait, then go on as ``release`` says. Raises EstablishmentError."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def report(error: EstablishmentError | None) -> None:
            if started.done():
                return
            if error is None:
                started.set_result(None)
            else:
                started.set_exception(error)

        self._when_started = report
        await started
        self.release()

    def release(self) -> None:
        """The observer is in place, or will be at the end of this turn of the loop: tell it what was kept."""
        if self._early is not None:
            asyncio.get_running_loop().call_soon(self._tell_early)

    def _start_next(self) -> None:
        if self._starting:
            return
        self._starting = True
        handle: Handle | None = self._bottom
        try:
            while handle is not None and not self.over:
                if not handle._started:
                    handle._started = True
                    handle._framer.start(self._connection, handle)
                    handle.resume()
                if not handle._ready:
                    return
                handle = handle._above
        except Exception as error:
            self.fail(error)
            return
        finally:
            self._starting = False
        if not self.over and not self._started:
            self._started = True
            self._tell_started(None)

    def _tell_started(self, error: EstablishmentError | None) -> None:
        when_started, self._when_started = self._when_started, None
        if when_started is not None:
            when_started(error)

    def _tell_early(self) -> None:
        early, self._early = self._early, None
        self.holds_back = self._closing
        for name, *arguments in early or ():
            if name == "closed":
                self._tell_closed(*arguments)
            else:
                getattr(self.observer, name)(*arguments)

    # Receiving

    @property
    def reads_ahead(self) -> int:
        return self._lower.reads_ahead

    def pause_receiving(self) -> None:
        if not self._closing:
            self.blocked = True
            self._lower.pause_receiving()
            if self._pump is not None:
                self._pump.cancel()
                self._pump = None

    def resume_receiving(self) -> None:
        if self.over or self._closing:
            return
        if self.blocked:
            self.run_soon()
        else:
            self._lower.resume_receiving()

    def upward(self) -> Callable[[bytes, MessageContext | None, bool, bool], None]:
        """The shortest way to ``deliver``."""
        return self.deliver if self.holds_back else self.observer.received

    def deliver(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        """The topmost framer delivers."""
        if self._early is not None:
            self._early.append(("received", data, context, end_of_message))
        elif not self._closing:
            self.observer.received(data, context, end_of_message, last)

    def deliver_apart(self, data: bytes, context: MessageContext) -> bool:
        """A whole Message came beside the byte stream; whether it was taken."""
        if self._early is None:
            return self.observer.received_apart(data, context)
        self._early.append(("received_apart", data, context))
        return True

    def end_of_data(self) -> None:
        """All that the peer sent has been delivered."""
        if self._early is not None:
            self._early.append(("finished",))
        elif not self._closing:
            self.observer.finished()

    def run_soon(self) -> None:
        """Deliver what waits in the handles, in a later turn of the loop."""
        if self._pump is None:
            self._pump = asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._pump = None
        if self.over:
            return
        self._drain()
        if not self.blocked and self._outbox_size <= OUTBOX_LIMIT:
            self._lower.resume_receiving()

    def _drain(self) -> None:
        self.blocked = False
        handle: Handle | None = self._top
        while handle is not None and not self.blocked:
            handle.resume()
            handle = handle._below

    # Ending

    def outbox_is_empty(self) -> None:
        if not self.blocked:
            self._lower.resume_receiving()
        super().outbox_is_empty()
        if self._closing and not self._stopping and self._linger is None:
            self.close_lower()

    def close(self) -> None:
        if self._closing or self.over:
            return
        self._closing = self.holds_back = True
        self._top._express = None
        self._stop_next()
        if self._linger is not None:  # a closing handshake, which needs what the peer says
            if self.blocked:
                self.run_soon()
            self._lower.resume_receiving()

    def abort(self) -> None:
        self.observer = _UNBOUND
        if not self.over:
            self._end()
        self._lower.abort()

    def fail(self, error: Exception) -> None:
        """A framer, or the data it got, makes the Connection fail; the observer hears of it from the loop."""
        if self.over:
            return
        if not self._started:
            self._failure = _as(EstablishmentError, error)
        self._end()
        self._lower.abort()
        if self._failure is not None:
            self._tell_started(self._failure)
        elif self._early is not None:
            self._early.append(("closed", _as(ConnectionError, error)))
        else:
            asyncio.get_running_loop().call_soon(self._tell_closed, _as(ConnectionError, error))

    def lower_closed(self, error: TransportServicesError | None) -> None:
        """The Flow below is over."""
        if self.over:
            return
        if not self._started:
            self.fail(error or EstablishmentError("the peer closed the connection", Reason.CONNECTION_CLOSED))
            return
        if not self._closing:
            self._drain()  # what arrived whole is not lost, and waits above, however much that is
            while self.blocked and not self.over:
                self._drain()
            if self.over:
                return
        self._end()
        if self._early is not None:
            self._early.append(("closed", error))
        else:
            self._tell_closed(error)

    def _tell_closed(self, error: TransportServicesError | None) -> None:
        observer, self.observer = self.observer, _UNBOUND
        observer.closed(error)

    def _end(self) -> None:
        """Nothing is sent or delivered from now on; framers that were started may clean up."""
        self.over = self.blocked = True
        self._whole_frame = None
        self._outbox = None
        for timer in (self._linger, self._pump):
            if timer is not None:
                timer.cancel()
        handle: Handle | None = self._top
        while handle is not None:
            if handle._started and not handle._stopped:
                self._stop(handle)
            handle = handle._below

    def _stop_next(self) -> None:
        """Stop the framers, the topmost first, each when the one above is closed; then close the Flow below."""
        if self._stopping:
            return
        self._stopping = True
        handle: Handle | None = self._top
        while handle is not None and not self.over:
            if not handle._stopped:
                self._stop(handle)
            if not handle._closed:
                break
            handle = handle._below
        self._stopping = False
        if self.over:
            return
        if handle is None:
            self.close_lower()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self.close_lower)

    def _stop(self, handle: Handle) -> None:
        handle._stopped = True
        try:
            handle._framer.stop(self._connection, handle)
        except Exception as error:
            handle._closed = True
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{type(handle._framer).__name__}.stop raised", "exception": error}
            )

    def close_lower(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self.blocked = True
        if self._outbox is None:
            self._lower.close()

    # The handles

    @property
    def connection(self) -> Any:
        """The Connection, as framers get it."""
        return self._connection

    def handle_ready(self) -> None:
        """A framer is ready: the next may start."""
        if not self._started:
            self._start_next()

    def handle_closed(self) -> None:
        """A framer is done with ``stop``."""
        if self._closing and not self.over:
            self._stop_next()

    def handle_passthrough(self) -> None:
        """A framer lets data pass from now on."""
        self._whole_frame = None
        self._lower.keep_together()

    def insert_above(self, handle: MessageFramer, framer: Framer) -> None:
        """Put a framer into the chain; it starts when ``handle`` is ready."""
        assert isinstance(handle, Handle)
        self._whole_frame = None
        self._lower.keep_together()
        new = Handle(self, framer)
        new._below, new._above = handle, handle._above
        if handle._above is None:
            self._top = new
        else:
            handle._above._below = new
        handle._above = new

    def make_context(self) -> MessageContext:
        """A new context."""
        return MessageContext()

    # Streams beside this one

    def frame_sibling(self, lower: Flow) -> None:
        """The peer opened a stream: the observer hears of it when its framers are ready."""
        flow = FramedFlow(lower, self._framers, self._connection)

        def started(error: EstablishmentError | None) -> None:
            if error is None and not self.over:
                self.observer.sibling(flow)
                flow.release()
            else:
                flow.abort()

        try:
            if flow.start(started):
                started(None)
        except EstablishmentError:
            flow.abort()

    # What the Flow below knows

    @property
    def preserves_boundaries(self) -> bool:  # type: ignore[override]
        """True, unless all framers let data pass over a byte stream."""
        handle: Handle | None = self._top
        while handle is not None:
            if not handle._passthrough:
                return True
            handle = handle._below
        return self._lower.preserves_boundaries

    def read(self, name: str) -> object:
        value = self._lower.read(name)
        if name in _MESSAGE_LIMITS and isinstance(value, int):
            handle: Handle | None = self._bottom
            while handle is not None:
                if not handle._passthrough:
                    value = handle._framer.message_limit(value)
                handle = handle._above
        return value


def _as(kind: type[Any], error: Exception) -> Any:
    """The error as this kind, with its reason; the original is its cause."""
    if isinstance(error, kind):
        return error
    known = isinstance(error, TransportServicesError)
    result = kind(
        str(error) if known else f"a framer failed: {error!r}",
        error.reason if isinstance(error, TransportServicesError) else Reason.PROTOCOL_FAILED,
    )
    result.__cause__ = error
    return result
