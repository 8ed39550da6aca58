"""The receives of one Connection: handlers that wait, and a task that fetches Messages for them.

While nobody waits, the task looks one Message ahead: that is how the end of the peer's data is noticed, of which 1.0
told a program that did not receive just then, too. What it finds is kept for the next receive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import neatpy
from neatpy.classic.message_context import MessageContext, MessageDataObject
from neatpy.classic.utils import Handler

if TYPE_CHECKING:
    from neatpy.classic.connection import Connection

Request = tuple[Handler, int | None, int | None]
"""The handler, from how many bytes on it takes part of a Message, and how many it takes at most."""


class Receiver:
    """Answers receives one after the other. Tells the Connection when the peer will send no more and everything it sent
    has been handed out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._requests: deque[Request] = deque()
        self._answering: Request | None = None
        self._awaited: asyncio.Future[neatpy.Message] | None = None
        self._ahead: neatpy.Message | None = None
        self._in_parts = False
        self._in_use = False
        self._error: neatpy.ReceiveError | None = None

    def request(self, handler: Handler, minimum: int | None, maximum: int | None) -> None:
        """Answer this one after those before it; nothing comes of it when no more can come, as handlers of 1.0 receive
        again whatever they are told."""
        if self._error is not None:
            return
        self._requests.append((handler, minimum, maximum))
        if self._answering is None and self._awaited is not None:
            self._awaited.cancel()  # looks no longer ahead; nothing is lost by it

    def hand_over(self) -> None:
        """The Connection is about to close: whoever waits for more than there is gets what there is."""
        if self._answering is None or self._awaited is None or self._awaited.done():
            return
        (handler, _, maximum), self._answering = self._answering, None
        self._awaited.cancel()
        rest = self._real.receive(1, maximum)
        if rest.done() and rest.exception() is None:
            asyncio.get_running_loop().call_soon(self._deliver, handler, rest.result(), maximum)
        rest.cancel()

    async def run(self, real: neatpy.Connection, is_stream: bool, initiated: bool) -> None:
        """Go on until nothing more can come. Over a stream any bytes will do; otherwise whole Messages come."""
        self._real, self._is_stream, self._in_use = real, is_stream, initiated
        while self._error is None:
            try:
                if not self._requests:
                    await self._look_ahead()
                    continue
                self._answering = request = self._requests.popleft()
                handler, minimum, maximum = request
                message = self._take_ahead(maximum) if self._ahead is not None else None
                if message is None:
                    self._awaited = real.receive(1 if minimum is None and is_stream else minimum, maximum)
                    message = await self._awaited
                self._answering = None
                if message.data or not is_stream:
                    self._deliver(handler, message, maximum)
                else:
                    self._requests.appendleft(request)  # the end of a stream is no Message
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            except neatpy.ReceiveError as error:
                self._error = error
            except (TypeError, ValueError) as error:
                self._connection.run.report("receive was called with arguments that it does not take", error)
        self._refuse()
        if self._error.reason is neatpy.Reason.CONNECTION_CLOSED:
            self._connection.peer_is_done()

    async def _look_ahead(self) -> None:
        self._answering = None
        if self._ahead is not None:
            self._awaited = asyncio.get_running_loop().create_future()  # until somebody receives
            await self._awaited
        self._awaited = self._real.receive()
        message = await self._awaited
        if message.data or not self._is_stream:
            self._ahead = message

    def _take_ahead(self, maximum: int | None) -> neatpy.Message | None:
        message, self._ahead = self._ahead, None
        if message is None or maximum is None or len(message) <= maximum:
            return message
        self._ahead = neatpy.Message(message.data[maximum:], message.context, message.end_of_message)
        return neatpy.Message(message.data[:maximum], message.context, False)

    def _deliver(self, handler: Handler, message: neatpy.Message, maximum: int | None) -> None:
        data, self._in_use = message.data, True
        whole = message.end_of_message
        if self._is_stream:
            whole = maximum is None or len(data) < maximum
        is_end = whole if self._in_parts or not whole else None
        self._in_parts = not whole and not self._is_stream
        self._call(handler, MessageDataObject(data, len(data)), MessageContext(message), is_end, None)

    def _refuse(self) -> None:
        """No more will come. The end of the peer's data is no error, and those who wait hear nothing; anything else
        they are told. On an accepted Connection that broke before anything came neither: most of these have only lost
        the peer's race between stacks, and handlers of 1.0 would take it for an empty Message."""
        if self._answering is not None:
            self._requests.appendleft(self._answering)
        assert self._error is not None
        if self._in_use and self._error.reason is not neatpy.Reason.CONNECTION_CLOSED:
            for handler, _, _ in self._requests:
                self._call(handler, MessageDataObject(b"", 0), MessageContext(), None, self._error)

    def _call(self, handler: Handler, *arguments: Any) -> None:
        try:
            handler(self._connection, *arguments)
        except Exception as error:
            self._connection.run.report(f"a receive handler of {self._connection!r} raised", error)
