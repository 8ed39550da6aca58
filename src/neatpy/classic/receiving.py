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
        self._answer: _Answer | None = (
            None  # that is awaited: to the first request, or, without any, a look ahead
        )
        self._kept: tuple[neatpy.Message, int] | None = None  # and how much of it has been handed out
        self._is_stream = self._in_use = self._in_parts = self._over = self._peer_is_done = False
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
            if len(self._requests) == 1:
                self._withdraw()  # what looks ahead

    def established(self, *, initiated: bool) -> None:
        """Messages come from now on. Over a stream any bytes will do; otherwise whole Messages come."""
        self._is_stream, self._in_use = self.preconnection.is_stream(self._real), initiated
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    def hand_over(self) -> None:
        """The Connection is about to close: whoever waits for more than there is gets what there is."""
        if self._requests and self._kept is None and self._withdraw():
            rest = self._real.receive(1)
            if rest.done() and rest.exception() is None:
                self._kept = rest.result(), 0
            rest.cancel()

    def close_if_done(self) -> None:
        """When all that the peer sent has been received, that was the end of the Connection in 1.0, and programs do not
        close by themselves; but what sent handlers go on to send is still to leave."""
        if self._peer_is_done and not self.unreported:
            self._real.close()

    async def _go_on(self) -> None:
        """Answer the first request, or look ahead, until nothing more can come. A task that awaits is resumed as soon
        as data come, sooner than a callback would be called."""
        while not self._over:
            ahead = not self._requests
            try:
                if ahead or self._kept is None:
                    self._answer = self._ask()
                    message = await self._answer
                    self._answer = None
                else:
                    message = self._take_kept(*self._kept, self._requests[0][2])
            except asyncio.CancelledError:
                if self._answer is not None:
                    raise  # the loop ends: it was not withdrawn here
            except neatpy.ReceiveError as error:
                self._end(error)
            else:
                if not message.data and self._is_stream:
                    continue  # the end of a stream is no Message
                if ahead:
                    self._kept = message, 0
                else:
                    self._tell(message, *self._requests.popleft())

    def _ask(self) -> _Answer:
        if self._requests:
            _, minimum, maximum = self._requests[0]
            return self._real.receive(minimum or (1 if self._is_stream else None), maximum)
        if self._kept is not None:
            return asyncio.get_running_loop().create_future()  # until somebody receives
        return self._real.receive()

    def _withdraw(self) -> bool:
        """Ask no longer, of which nothing is lost. False if an answer is on its way already."""
        if self._answer is not None and self._answer.cancel():
            self._answer = None
        return self._answer is None

    def _take_kept(self, message: neatpy.Message, start: int, maximum: int | None) -> neatpy.Message:
        end = len(message) if maximum is None else start + maximum
        self._kept = (message, end) if end < len(message) else None
        whole = message.end_of_message and self._kept is None
        return neatpy.Message(message.data[start:end], message.context, whole)

    def _tell(self, message: neatpy.Message, handler: Handler | None, _: object, maximum: int | None) -> None:
        data, whole, self._in_use = message.data, message.end_of_message, True
        if self._is_stream:
            whole = maximum is None or len(data) < maximum
        is_end = whole if self._in_parts or not whole else None
        self._in_parts = not whole and not self._is_stream
        self._call(handler, MessageDataObject(data, len(data)), MessageContext(message), is_end, None)

    def _end(self, error: neatpy.ReceiveError) -> None:
        """No more will come. The end of the peer's data is no error, and those who wait hear nothing; anything else
        they are told. On an accepted Connection that broke before anything came neither: most of these have only lost
        the peer's race between stacks, and handlers of 1.0 would take it for an empty Message."""
        self._over = True
        if error.reason is neatpy.Reason.CONNECTION_CLOSED:
            self._peer_is_done = True
            self.close_if_done()
        elif self._in_use:
            for handler, _, _ in self._requests:
                self._call(handler, MessageDataObject(b"", 0), MessageContext(), None, error)

    def _call(self, handler: Handler | None, *arguments: object) -> None:
        try:
            fire(handler, self, *arguments)
        except Exception as error:
            context = {"message": f"a receive handler of {self!r} raised", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
