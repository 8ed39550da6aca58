"""The receives of one Connection, which today's answers in order.

While nobody receives, this looks one Message ahead: that is how the end of the peer's data is noticed, of which 1.0
told a program that did not receive just then, too. What it finds is kept for the next receive.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import neatpy
from neatpy.classic.message_context import MessageContext, MessageDataObject
from neatpy.classic.utils import Handler, fire

if TYPE_CHECKING:
    from neatpy.classic.connection import Connection

_Answer = asyncio.Future[neatpy.Message]


class Receiver:
    """Tells handlers what came, and the Connection when everything that the peer sent has been handed out."""

    _real: neatpy.Connection

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._early: list[tuple[Handler | None, int | None, int | None]] | None = []
        self._receives: dict[_Answer, tuple[Handler | None, int | None]] = {}
        self._ahead: _Answer | None = None
        self._kept: tuple[neatpy.Message, int] | None = None  # and how much of it has been handed out
        self._is_stream = self._in_use = self._in_parts = self._over = False

    def start(self, real: neatpy.Connection, is_stream: bool, initiated: bool) -> None:
        """The Connection is established. Over a stream any bytes will do; otherwise whole Messages come."""
        self._real, self._is_stream, self._in_use = real, is_stream, initiated
        early, self._early = self._early, None
        for handler, minimum, maximum in early or ():
            self.request(handler, minimum, maximum)
        self._look_ahead()

    def request(self, handler: Handler | None, minimum: int | None, maximum: int | None) -> None:
        """Answer this one after those before it; nothing comes of it when no more can come, as handlers of 1.0 receive
        again whatever they are told."""
        if self._early is not None:
            self._early.append((handler, minimum, maximum))
            return
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.cancel():  # which loses nothing
            self._keep(ahead)
        if self._kept is not None:
            self._expect(self._take_kept(maximum), handler, maximum)
        elif not self._over:
            least = 1 if minimum is None and self._is_stream else minimum
            self._expect(self._real.receive(least, maximum), handler, maximum)

    def hand_over(self) -> None:
        """The Connection is about to close: whoever waits for more than there is gets what there is."""
        waiting = [answer for answer in self._receives if not answer.done()]
        if waiting:
            handler, maximum = self._receives[waiting[0]]
            for answer in waiting:
                answer.cancel()
            rest = self._real.receive(1, maximum)
            self._expect(rest, handler, maximum)
            rest.cancel()  # if there is nothing

    def _expect(self, answer: _Answer, handler: Handler | None, maximum: int | None) -> None:
        self._receives[answer] = handler, maximum
        answer.add_done_callback(self._answered)

    def _answered(self, answer: _Answer) -> None:
        handler, maximum = self._receives.pop(answer)
        if answer.cancelled():
            return
        try:
            if (error := answer.exception()) is not None:
                self._end(error, handler)
            elif self._is_message(answer.result()):
                self._tell(handler, answer.result(), maximum)
        finally:
            self._look_ahead()

    def _tell(self, handler: Handler | None, message: neatpy.Message, maximum: int | None) -> None:
        data, whole, self._in_use = message.data, message.end_of_message, True
        if self._is_stream:
            whole = maximum is None or len(data) < maximum
        is_end = whole if self._in_parts or not whole else None
        self._in_parts = not whole and not self._is_stream
        fire(
            handler,
            self._connection,
            MessageDataObject(data, len(data)),
            MessageContext(message),
            is_end,
            None,
        )

    def _end(self, error: BaseException, handler: Handler | None = None) -> None:
        """No more will come. The end of the peer's data is no error, and those who wait hear nothing; anything else
        they are told. On an accepted Connection that broke before anything came neither: most of these have only lost
        the peer's race between stacks, and handlers of 1.0 would take it for an empty Message."""
        self._over = True
        if getattr(error, "reason", None) is neatpy.Reason.CONNECTION_CLOSED:
            self._connection.peer_is_done()
        elif self._in_use:
            fire(handler, self._connection, MessageDataObject(b"", 0), MessageContext(), None, error)

    def _is_message(self, message: neatpy.Message) -> bool:
        return len(message) > 0 or not self._is_stream  # the end of a stream is none

    # Looking ahead

    def _look_ahead(self) -> None:
        if not (self._receives or self._kept or self._over or self._ahead):
            self._ahead = self._real.receive()
            self._ahead.add_done_callback(self._looked_ahead)

    def _looked_ahead(self, ahead: _Answer) -> None:
        if ahead is self._ahead:  # nobody has received meanwhile
            self._ahead = None
            self._keep(ahead)
            self._look_ahead()

    def _keep(self, ahead: _Answer) -> None:
        if (error := ahead.exception()) is not None:
            self._end(error)
        elif self._is_message(ahead.result()):
            self._kept = ahead.result(), 0

    def _take_kept(self, maximum: int | None) -> _Answer:
        assert self._kept is not None
        message, start = self._kept
        end = len(message) if maximum is None else min(start + maximum, len(message))
        self._kept = (message, end) if end < len(message) else None
        whole = message.end_of_message and self._kept is None
        answer: _Answer = asyncio.get_running_loop().create_future()
        answer.set_result(neatpy.Message(message.data[start:end], message.context, whole))
        return answer
