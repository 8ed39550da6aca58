"""The receives of one Connection: one at a time is asked of today's.

While nobody receives, this looks one Message ahead: that is how the end of the peer's data is noticed, of which 1.0
told a program that did not receive just then, too. What it finds is kept for the next receive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import neatpy
from neatpy.classic.message_context import MessageContext, MessageDataObject
from neatpy.classic.utils import Handler, fire

if TYPE_CHECKING:
    from neatpy.classic.connection import Connection

_Answer = asyncio.Future[neatpy.Message]


class Receiver:
    """Tells handlers what came, and the Connection when everything that the peer sent has been handed out."""

    peer_is_done = False
    _receive: Callable[..., _Answer] | None = None

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._requests: deque[tuple[Handler | None, int | None, int | None]] = deque()
        self._answer: _Answer | None = None  # to the first request, or, without any, what looks ahead
        self._kept: tuple[neatpy.Message, int] | None = None  # and how much of it has been handed out
        self._is_stream = self._in_use = self._in_parts = self._over = False

    def start(self, real: neatpy.Connection, is_stream: bool, initiated: bool) -> None:
        """The Connection is established. Over a stream any bytes will do; otherwise whole Messages come."""
        self._receive, self._is_stream, self._in_use = real.receive, is_stream, initiated
        self._ask()

    def request(self, handler: Handler | None, minimum: int | None, maximum: int | None) -> None:
        """Answer this one after those before it; nothing comes of it when no more can come, as handlers of 1.0 receive
        again whatever they are told."""
        if self._over:
            return
        self._requests.append((handler, minimum, maximum))
        if self._answer is None or (len(self._requests) == 1 and self._answer.cancel()):
            self._ask()  # no longer ahead, of which nothing is lost

    def hand_over(self) -> None:
        """The Connection is about to close: whoever waits for more than there is gets what there is."""
        if self._requests and (self._answer is None or self._answer.cancel()):
            self._ask(1)

    def _ask(self, least: int | None = None) -> None:
        if self._receive is None:
            return
        if self._requests:
            _, minimum, maximum = self._requests[0]
            if self._kept is not None:
                self._answer = self._take_kept(*self._kept, maximum)
            else:
                self._answer = self._receive(least or minimum or (1 if self._is_stream else None), maximum)
            self._answer.add_done_callback(self._answered)
        elif self._kept is None and not self._over:
            self._answer = self._receive()
            self._answer.add_done_callback(self._looked_ahead)

    def _take_kept(self, message: neatpy.Message, start: int, maximum: int | None) -> _Answer:
        end = len(message) if maximum is None else start + maximum
        self._kept = (message, end) if end < len(message) else None
        whole = message.end_of_message and self._kept is None
        answer: _Answer = self._connection.run.loop.create_future()
        answer.set_result(neatpy.Message(message.data[start:end], message.context, whole))
        return answer

    def _looked_ahead(self, answer: _Answer) -> None:
        if answer is self._answer:  # else somebody has received meanwhile
            self._answer = None
            if (error := answer.exception()) is not None:
                self._end(error, None)
            elif self._is_message(answer.result()):
                self._kept = answer.result(), 0
            self._ask()

    def _answered(self, answer: _Answer) -> None:
        if answer is self._answer:
            self._answer = None
            try:
                if (error := answer.exception()) is not None:
                    self._end(error, self._requests.popleft()[0])
                elif self._is_message(answer.result()):
                    self._tell(answer.result())
            finally:
                if self._answer is None:  # the handler has not received again
                    self._ask()

    def _is_message(self, message: neatpy.Message) -> bool:
        return len(message) > 0 or not self._is_stream  # the end of a stream is none

    def _tell(self, message: neatpy.Message) -> None:
        handler, _, maximum = self._requests.popleft()
        data, whole, self._in_use = message.data, message.end_of_message, True
        if self._is_stream:
            whole = maximum is None or len(data) < maximum
        is_end = whole if self._in_parts or not whole else None
        self._in_parts = not whole and not self._is_stream
        told = MessageDataObject(data, len(data))
        fire(handler, self._connection, told, MessageContext(message), is_end, None)

    def _end(self, error: BaseException, handler: Handler | None) -> None:
        """No more will come. The end of the peer's data is no error, and those who wait hear nothing; anything else
        they are told. On an accepted Connection that broke before anything came neither: most of these have only lost
        the peer's race between stacks, and handlers of 1.0 would take it for an empty Message."""
        self._over = True
        if getattr(error, "reason", None) is neatpy.Reason.CONNECTION_CLOSED:
            self.peer_is_done = True
            self._connection.close_if_done()
        elif self._in_use:
            fire(handler, self._connection, MessageDataObject(b"", 0), MessageContext(), None, error)
