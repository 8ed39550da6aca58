"""The receives of one Connection: one at a time is asked of today's.

While nobody receives, this looks one Message ahead: that is how the end of the peer's data is noticed, of which 1.0
told a program that did not receive just then, too. What it finds is kept for the next receive.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import neatpy
from neatpy.classic.message_context import MessageContext, MessageDataObject
from neatpy.classic.running import Activity
from neatpy.classic.utils import Handler, fire

if TYPE_CHECKING:
    from neatpy.classic.preconnection import Preconnection

_Answer = asyncio.Future[neatpy.Message]


class Receiving(Activity[neatpy.Connection]):
    """Base of Connection: tells handlers what came, and closes when the peer is done."""

    def __init__(self, preconnection: Preconnection, open_real: Callable[[], neatpy.Connection]) -> None:
        super().__init__(preconnection, open_real)
        self._requests: deque[tuple[Handler | None, int | None, int | None]] = deque()
        self._answer: _Answer | None = None  # to the first request, or, without any, what looks ahead
        self._kept: tuple[neatpy.Message, int] | None = None  # and how much of it has been handed out
        self._is_stream: bool | None = None  # known when it is established
        self._in_use = self._in_parts = self._over = self._peer_is_done = False
        self.unreported = 0  # sends of which nobody was told yet what became of them

    def receive(
        self, handler: Handler | None, min_incomplete_length: int | None = None, max_length: float = math.inf
    ) -> None:
        """Ask for one Message. ``handler(connection, message_data_object, message_context, is_end_of_message, error)``
        is called once: ``is_end_of_message`` is None for a whole Message, False for a part of one and True for its
        last part. Parts come from ``min_incomplete_length`` bytes on, or above ``max_length``.

        Over a stream of bytes without a framer, whatever bytes are there are taken for a Message; it is False where
        they reach ``max_length``. When the Connection breaks, ``error`` says how and there are no data. Nothing comes
        of it when no more can come, as handlers of 1.0 receive again whatever they are told. Raises ValueError for
        lengths below 1 (but 0 bytes on are whole Messages)."""
        if (min_incomplete_length or 1) < 1 or max_length < 1:
            raise ValueError("a receive takes at least 1 byte")
        if not self._over:
            maximum = None if max_length == math.inf else int(max_length)
            self._requests.append((handler, min_incomplete_length or None, maximum))
            if self._answer is None or (self._is_ahead and self._answer.cancel()):
                self._ask()  # no longer ahead, of which nothing is lost

    def established(self, *, initiated: bool) -> None:
        """Messages come from now on. Over a stream any bytes will do; otherwise whole Messages come."""
        framed = self.preconnection.framers or self._real.get_properties()["preserve_msg_boundaries"]
        self._is_stream, self._in_use = not framed, initiated
        self._ask()

    def hand_over(self) -> None:
        """The Connection is about to close: whoever waits for more than there is gets what there is."""
        if self._requests and (self._answer is None or self._answer.cancel()):
            self._ask(1)

    def close_if_done(self) -> None:
        """When all that the peer sent has been received, that was the end of the Connection in 1.0, and programs do not
        close by themselves; but what sent handlers go on to send is still to leave."""
        if self._peer_is_done and not self.unreported:
            self._real.close()

    def _ask(self, least: int | None = None) -> None:
        if self._is_stream is None:
            return
        self._is_ahead = not self._requests
        if self._requests:
            _, minimum, maximum = self._requests[0]
            if self._kept is not None:
                self._answer = self._take_kept(*self._kept, maximum)
            else:
                least = least or minimum or (1 if self._is_stream else None)
                self._answer = self._real.receive(least, maximum)
        elif self._kept is None and not self._over:
            self._answer = self._real.receive()
        if self._answer is not None:
            self._answer.add_done_callback(self._answered)

    def _take_kept(self, message: neatpy.Message, start: int, maximum: int | None) -> _Answer:
        end = len(message) if maximum is None else start + maximum
        self._kept = (message, end) if end < len(message) else None
        whole = message.end_of_message and self._kept is None
        answer: _Answer = asyncio.get_running_loop().create_future()
        answer.set_result(neatpy.Message(message.data[start:end], message.context, whole))
        return answer

    def _answered(self, answer: _Answer) -> None:
        if answer is not self._answer:
            return  # it was withdrawn
        self._answer = None
        try:
            if (error := answer.exception()) is not None:
                self._end(error, None if self._is_ahead else self._requests.popleft()[0])
            elif not answer.result().data and self._is_stream:
                pass  # the end of a stream is no Message
            elif self._is_ahead:
                self._kept = answer.result(), 0
            else:
                self._tell(answer.result(), *self._requests.popleft())
        finally:
            if self._answer is None:  # the handler has not received again
                self._ask()

    def _tell(self, message: neatpy.Message, handler: Handler | None, _: object, maximum: int | None) -> None:
        data, whole, self._in_use = message.data, message.end_of_message, True
        if self._is_stream:
            whole = maximum is None or len(data) < maximum
        is_end = whole if self._in_parts or not whole else None
        self._in_parts = not whole and not self._is_stream
        fire(handler, self, MessageDataObject(data, len(data)), MessageContext(message), is_end, None)

    def _end(self, error: BaseException, handler: Handler | None) -> None:
        """No more will come. The end of the peer's data is no error, and those who wait hear nothing; anything else
        they are told. On an accepted Connection that broke before anything came neither: most of these have only lost
        the peer's race between stacks, and handlers of 1.0 would take it for an empty Message."""
        self._over = True
        if getattr(error, "reason", None) is neatpy.Reason.CONNECTION_CLOSED:
            self._peer_is_done = True
            self.close_if_done()
        elif self._in_use:
            fire(handler, self, MessageDataObject(b"", 0), MessageContext(), None, error)
