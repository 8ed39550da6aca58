"""The framers of one Connection as a layer: a Flow of Messages over the Flow of a protocol stack.

A Connection never knows whether there are framers: :class:`FramedFlow` keeps the contract of ``stacks/contract.py``
both ways. It starts and stops the framers, carries what they send, keeps the account of what was Sent, and holds what
they may not deliver yet. Parsing is the handles' business (:mod:`neatpy.framer_handle`); protocols are unknown here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from neatpy.errors import ConnectionError, EstablishmentError, Reason, SendError, TransportServicesError
from neatpy.framer import Framer, MessageFramer
from neatpy.framer_handle import Handle
from neatpy.framer_shortcuts import shortcut_of
from neatpy.framing_layer import OWN, Below, LayeredFlow, Piece, Several, coalesced, frames_stand_alone
from neatpy.message import MessageContext
from neatpy.stacks.contract import Flow, FlowObserver

if TYPE_CHECKING:
    from neatpy.stacks.contract import Data

# ruff: noqa: D102 - the contract documents the methods of a Flow

LINGER = 5.0
"""Seconds that framers have for their closing handshakes."""

_OUTBOX_LIMIT = 256 * 1024
"""Bytes of the framers' own (answers to the peer, say) that may wait before nothing more is read from the peer."""

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


class FramedFlow(LayeredFlow):
    """A Flow of Messages, made by framers from the Flow below.

    ``connection`` is what framers get to see as the Connection. The Flow below tells everything to ``below`` from the
    start; what arrives before ``start`` is not lost.
    """

    __slots__ = (
        "_accepted",
        "_bottom",
        "_closing",
        "_connection",
        "_corked",
        "_early",
        "_failure",
        "_finish_waits",
        "_finished",
        "_framers",
        "_linger",
        "_outbox",
        "_outbox_size",
        "_pieces",
        "_pump",
        "_started",
        "_starting",
        "_stopping",
        "_submitted",
        "_taken",
        "_top",
        "_when_started",
        "_whole_frame",
        "below",
        "blocked",
        "holds_back",
        "over",
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
        self._lower = lower
        self._framers = framers
        self._connection = connection
        self.observer = observer
        self._bottom = self._top = handle = Handle(self, framers[0])
        for framer in framers[1:]:
            self._top = Handle(self, framer)
            handle._above, self._top._below = self._top, handle
            handle = self._top
        # Where one framer is all there is, and while it frames: what a whole Message becomes in one step.
        self._whole_frame = shortcut_of(framers[0], "whole_frame") if len(framers) == 1 else None
        self.blocked = self.over = self.holds_back = False
        self._started = self._starting = False
        self._when_started: Callable[[EstablishmentError | None], None] | None = None
        self._failure: EstablishmentError | None = None
        self._early: list[tuple[Any, ...]] | None = None
        self._pump: asyncio.Handle | None = None
        self._closing = self._stopping = self._finished = self._finish_waits = self._corked = False
        self._linger: asyncio.TimerHandle | None = None
        self._pieces: list[Piece] | None = None
        self._outbox: deque[Piece] | None = None
        self._outbox_size = 0
        # Sends that the Flow below did not take at once, and how many of these it has settled since.
        self._submitted = self._taken = 0
        self._accepted: deque[tuple[int, object]] | None = None
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
                    handle._framer.start(self._connection, handle)  # type: ignore[arg-type]
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

    # Sending

    @property
    def writable(self) -> bool:  # type: ignore[override]
        """Whether the Flow below takes more and nothing of the framers' own waits for it."""
        return self._outbox is None and self._lower.writable

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        whole_frame = self._whole_frame
        if whole_frame is not None and end_of_message and type(data) is bytes:
            try:
                framed = whole_frame(self._top, data, context)
            except SendError:
                raise
            except Exception as error:
                raise _failed(error, context) from error
            if framed is not None:
                if self._lower.send(framed, context, True, token):
                    return True
                self._submitted += 1
                return False
        if self.over:
            raise SendError("the connection has failed", Reason.CONNECTION_ABORTED, context)
        pieces: list[Piece] = []
        self._pieces = pieces
        try:
            self._top.push(data, context, end_of_message)
        except SendError:
            raise
        except Exception as error:
            raise _failed(error, context) from error
        finally:
            self._pieces = None
        if len(pieces) == 1:
            data, piece_context, end_of_message = pieces[0]
            return self._pass_down(data, piece_context or context, end_of_message, token)
        if self.over:
            raise SendError("the connection has failed", Reason.CONNECTION_ABORTED, context)
        if not pieces:
            return self._accept(token)
        return self._send_several(coalesced(pieces, self._lower.preserves_boundaries), context, token)

    @property
    def coalesces(self) -> bool:
        return self._lower.coalesces

    def send_several(self, messages: Sequence[bytes], context: MessageContext, token: object) -> bool:
        if self.over:
            raise SendError("the connection has failed", Reason.CONNECTION_ABORTED, context)
        pieces: list[Piece] = []
        self._pieces = pieces
        push = self._top.push
        whole_frame = self._whole_frame
        try:
            for data in messages:
                framed = None if whole_frame is None else whole_frame(self._top, data, context)
                if framed is None:
                    push(data, context, True)
                else:
                    pieces.append((framed, None, True))
        except SendError:
            raise
        except Exception as error:
            raise _failed(error, context) from error
        finally:
            self._pieces = None
        if not pieces:
            return self._accept(token)
        return self._pass_down(b"".join([data for data, _, _ in pieces]), context, True, token)

    def cork(self) -> None:
        self._corked = True
        self._lower.cork()

    def uncork(self) -> None:
        self._corked = False
        self._lower.uncork()

    def output(self, data: Data, context: MessageContext | None, end_of_message: bool) -> None:
        """The lowest framer sends: for a Message that is being sent, or of its own."""
        if self._pieces is not None:
            self._pieces.append((data, context, end_of_message))
        elif self.over or self._finished:
            return  # nobody there to read it
        elif self._outbox is None and self._lower.writable:
            self._send_own(data, context, end_of_message)
        else:
            if self._outbox is None:
                self._outbox = deque()
            self._outbox.append((bytes(data), context, end_of_message))
            self._outbox_size += len(self._outbox[-1][0])
            if self._outbox_size > _OUTBOX_LIMIT:
                self._lower.pause_receiving()

    def _pass_down(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        if self._lower.send(data, context, end_of_message, token):
            return True
        self._submitted += 1
        return False

    def _send_own(self, data: Data, context: MessageContext | None, end_of_message: bool) -> None:
        if not self._lower.send(data, context or MessageContext(), end_of_message, OWN):
            self._submitted += 1

    def _send_several(self, pieces: list[Piece], context: MessageContext, token: object) -> bool:
        """What one send has become. The token is settled when the last piece is."""
        lower = self._lower
        several = Several(token, len(pieces))
        cork = not self._corked and len(pieces) > 1
        if cork:
            lower.cork()
        try:
            for data, piece_context, end_of_message in pieces:
                if lower.send(data, piece_context or context, end_of_message, several):
                    several.left -= 1
                else:
                    self._submitted += 1
        finally:
            if cork:
                lower.uncork()
        several.in_send = False
        return several.left == 0

    def _accept(self, token: object) -> bool:
        """A framer keeps all of this send: it is Sent, though not before those that went before it."""
        if self._taken == self._submitted:
            return True
        if self._accepted is None:
            self._accepted = deque()
        self._accepted.append((self._submitted, token))
        return False

    def settled(self) -> None:
        """The Flow below has settled one more of what it had not taken at once."""
        self._taken += 1
        accepted = self._accepted
        while accepted and accepted[0][0] <= self._taken:
            self.observer.sent(accepted.popleft()[1])

    def flush_outbox(self) -> None:
        outbox = self._outbox
        if outbox is None:
            return
        while outbox and self._lower.writable:
            data, context, end_of_message = outbox.popleft()
            self._outbox_size -= len(data)
            self._send_own(data, context, end_of_message)
        if outbox:
            return
        self._outbox = None
        if not self.blocked:
            self._lower.resume_receiving()
        if self._finish_waits:
            self._lower.finish()
        if self._closing and not self._stopping and self._linger is None:
            self.close_lower()

    # Receiving

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
        if not self.blocked and self._outbox_size <= _OUTBOX_LIMIT:
            self._lower.resume_receiving()

    def _drain(self) -> None:
        self.blocked = False
        handle: Handle | None = self._top
        while handle is not None and not self.blocked:
            handle.resume()
            handle = handle._below

    # Ending

    def finish(self) -> None:
        if not self._finished and not self.over:
            self._finished = True
            if self._outbox is None:
                self._lower.finish()
            else:
                self._finish_waits = True

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
            self._drain()  # what arrived whole is not lost
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
            handle._framer.stop(self._connection, handle)  # type: ignore[arg-type]
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

    def backlog(self) -> int:
        return self._lower.backlog() + self._outbox_size


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


def _failed(error: Exception, context: MessageContext) -> SendError:
    return SendError(f"a framer failed: {error!r}", Reason.PROTOCOL_FAILED, context)
