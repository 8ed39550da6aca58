"""The handle of a framer at work: it holds what came from below, and has its framer parse that while there is enough of
it and the Connection takes more. What a framer may ask of it is in :mod:`neatpy.framer`. The room knows no protocol, no
socket and no clock, and of the Flow that the handles make up only what :class:`~neatpy.framer.Chain` says.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from neatpy.errors import ConnectionError, EstablishmentError, Reason
from neatpy.framer import MessageFramer, NeedMore
from neatpy.framer_shortcuts import shortcut_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from neatpy.framer import Chain, Frame, Framer
    from neatpy.message import Data, MessageContext

_FRUITLESS_CALLS = 1000
"""Calls of ``handle_received_data`` that may deliver without advancing before the framer is taken to be stuck."""


class Handle(MessageFramer):
    """The handle of one framer on one Connection, as the chain and its neighbours there use it."""

    __slots__ = (
        "_backlog",
        "_end_waits",
        "_express",
        "_fruitless",
        "_next_frame",
        "_no_more",
        "_started",
        "_stopped",
        "_whole_payload",
    )

    _above: Handle | None
    _below: Handle | None

    def __init__(self, chain: Chain, framer: Framer) -> None:
        super().__init__(chain, framer)
        self._started = self._stopped = False
        self._next_frame = shortcut_of(framer, "next_frame")
        self._whole_payload = None if self._next_frame is None else shortcut_of(framer, "whole_payload")
        # ``_whole_payload`` while nothing is begun, so that a frame which comes whole and alone goes straight up.
        self._express: Callable[[bytes], bytes | None] | None = None
        # What waits until it can be taken in.
        self._backlog: deque[tuple[bytes, MessageContext | None, bool]] | None = None
        self._end_waits = False
        self._no_more = False  # nothing comes after what is there
        self._fruitless = 0

    def start_passthrough(self) -> None:
        """As the framer knows it; nothing is a frame any more."""
        self._express = None
        super().start_passthrough()

    # For the chain and its neighbours

    def push(self, data: Data, context: MessageContext, end_of_message: bool) -> None:
        """Something to be sent comes from above."""
        if self._passthrough:
            self.send(data, context, end_of_message)
        else:
            self._framer.new_sent_message(self._chain.connection, self, data, context, end_of_message)

    def receive(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        """Data come from below; what cannot be dealt with now waits."""
        chain = self._chain
        express = self._express
        if express is not None and context is None and not chain.blocked:
            try:
                payload = express(data)
            except Exception:
                payload = None  # the framer meets the same error again, and is heard
            if payload is not None:
                above = self._above
                if above is None:
                    chain.observer.received(payload, None, True, last)
                else:
                    above.receive(payload, None, True, last)
                return
        self._express = None
        if chain.blocked or self._backlog or not self._started:
            if self._backlog is None:
                self._backlog = deque()
            self._backlog.append((data, context, end_of_message))
            return
        self._take_in(data, context, end_of_message)
        if not (
            self._buffer.size
            or self._earmarked
            or self._wanted
            or self._backlog
            or self._open is not None
            or self._passthrough
            or chain.holds_back
        ):
            self._express = self._whole_payload  # what comes next begins a frame

    def end_of_data(self) -> None:
        """Nothing more will come from below."""
        if self._chain.blocked or self._backlog or not self._started:
            self._end_waits = True
            return
        self._end_waits = False
        self._no_more = True
        if self._passthrough:
            self._tell_end()
        else:
            self._ended = True
            self._run()

    def resume(self) -> None:
        """Go on with what waits, until the chain is blocked again."""
        chain = self._chain
        if self._buffer.size or self._ended:
            self._run()
        while self._backlog and not chain.blocked:
            self._take_in(*self._backlog.popleft())
        if self._end_waits and not self._backlog and not chain.blocked:
            self.end_of_data()

    # The inbound loop

    def _take_in(self, data: bytes, context: MessageContext | None, end_of_message: bool) -> None:
        if self._passthrough and not self._buffer.size and not self._earmarked:
            self._forward(data, context, end_of_message)
            return
        self._context = context
        self._ended = end_of_message
        self._buffer.append(data)
        self._run()

    def _run(self) -> None:
        """Have the framer parse what is there, until it wants more or the chain is blocked."""
        chain, buffer = self._chain, self._buffer
        self._fruitless = 0
        while not chain.blocked:
            if self._passthrough and not self._earmarked:
                self._release()
                return
            if not self._step():
                return
            if not buffer.size:
                if self._ended and not chain.over:
                    self._end_input()
                return

    def _step(self) -> bool:
        """Whether to go on: something was consumed, and no more is asked for than may be there."""
        buffer = self._buffer
        if self._earmarked:
            if buffer.size:
                self._pass_earmarked()
            return True
        if buffer.size and self._next_frame is not None and self._open is None:
            self._run_shortcut(self._next_frame)
            return not buffer.size or (not self._chain.blocked and self._call_framer())
        return self._call_framer() if buffer.size or self._ended else True

    def _run_shortcut(self, next_frame: Callable[[bytes, int], Frame | None]) -> None:
        """Deliver the frames that lie whole in the first chunk."""
        chain, buffer, inbound = self._chain, self._buffer, self._context
        data, cursor, end = buffer.data, buffer.cursor, len(buffer.data)
        deliver = chain.upward() if self._above is None else self._above.receive
        begin = cursor
        while cursor < end:
            try:
                frame = next_frame(data, cursor)
            except Exception as error:
                chain.fail(_deframing(f"{self._name}: {error}", error))
                break
            if frame is None:
                break
            start, stop, cursor, metadata = frame
            if metadata is None and inbound is None:
                deliver(data[start:stop], None, True, False)
            else:
                deliver(data[start:stop], self.new_context(**(metadata or {})), True, False)
            if chain.blocked:
                break
        if cursor != begin:
            self._wanted = 0
            buffer.skip(cursor - begin)

    def _call_framer(self) -> bool:
        """Whether to go on: the framer has consumed something and does not ask for more than is there."""
        buffer = self._buffer
        if buffer.size < self._wanted and not self._ended:
            return False
        self._wanted = 0
        before, progress = buffer.size, self._progress
        try:
            self._framer.handle_received_data(self._chain.connection, self)
        except NeedMore:
            if self._ended and not self._chain.over:
                self._end_input()
            return False
        except Exception as error:
            self._chain.fail(_deframing(f"{self._name}: {error}", error))
            return False
        if buffer.size == before > 0:
            self._fruitless += 1
            if self._progress == progress or self._fruitless > _FRUITLESS_CALLS:
                self._chain.fail(_deframing(f"{self._name} neither consumes data nor asks for more"))
                return False
        return True

    def _end_input(self) -> None:
        """The inbound Message, or the stream, has ended: it must not end within a Message of ours."""
        self._ended = False
        self._wanted = 0
        self._context = None
        if self._buffer.size or self._earmarked or self._open is not None:
            self._chain.fail(_deframing(f"{self._name}: the data ended inside a Message"))
        elif self._no_more:
            self._tell_end()

    def _tell_end(self) -> None:
        if not self._ready:
            text = f"the peer finished sending before {self._name} was ready"
            self._chain.fail(EstablishmentError(text, Reason.PROTOCOL_FAILED))
        elif self._above is None:
            self._chain.end_of_data()
        else:
            self._above.end_of_data()

    def _pass_earmarked(self) -> None:
        chunk = self._buffer.take_chunk(self._earmarked)
        self._earmarked -= len(chunk)
        if not self._discarding:
            self._emit(chunk, None, self._earmarked_end and not self._earmarked)

    def _release(self) -> None:
        """Passthrough began: what is buffered goes up as it came."""
        ended, self._ended = self._ended, False
        data = self._buffer.take(self._buffer.size)
        if data or (ended and not self._no_more):
            self._forward(data, self._context, ended and not self._no_more)
        if self._no_more:
            self._tell_end()

    @property
    def _name(self) -> str:
        return type(self._framer).__name__


def _deframing(text: str, cause: Exception | None = None) -> ConnectionError:
    error = ConnectionError(text, Reason.DEFRAMING_FAILED)
    error.__cause__ = cause
    return error
