"""How what waits on one Connection leaves: when its Flow takes more, at the end of a batch, in turn with others.

Most sends go straight from the :class:`~neatpy.data_path.DataPath` to the Flow and never come here; the first that has
to wait loads this room. The order is the :class:`~neatpy.send_queue.SendQueue`'s.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from neatpy.errors import Reason, SendError
from neatpy.send_queue import Part, SendQueue
from neatpy.sending import contradiction

if TYPE_CHECKING:
    from neatpy.data_path import DataPath
    from neatpy.group_sending import Turns
    from neatpy.message import MessageContext
    from neatpy.sending import SendFuture
    from neatpy.stacks.contract import Flow

_CORK_LIMIT = 256 * 1024
"""Bytes that are coalesced before the Flow is asked whether it still takes any."""


class Outgoing:
    """The sends of one Connection that wait, and their way out."""

    __slots__ = ("_expires_at", "_expiry", "_loop", "_path", "queue", "turns")

    def __init__(self, path: DataPath, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self.queue = SendQueue()
        self.turns: Turns | None = None
        """Of whom in the group it is the turn to send; None: there is nothing to decide."""
        self._expiry: asyncio.TimerHandle | None = None
        self._expires_at = math.inf

    def hold(self, data: bytes, properties: MessageContext, token: SendFuture) -> None:
        """This has to wait, behind what is here."""
        if self._path.together is not None:
            self.take_apart()
        self._add(Part(data, properties, token))

    def _add(self, part: Part) -> None:
        path = self._path
        self.queue.add(part, time.monotonic())
        if self.turns is not None:
            self.turns.queued(path)
        if part.properties.msg_lifetime != math.inf:
            self._arm_expiry()

    @property
    def stands_before(self) -> bool:
        """Whether a whole Message has to wait behind what is here."""
        return bool(self.queue) or self.queue.blocked_by_open_message or self.turns is not None

    def refuse(self, flow: Flow) -> None:
        """What was sent before there was a Flow may not be for this one."""
        for part, why in self.queue.refuse(lambda properties: contradiction(flow, properties)):
            self._path.will_not_leave(part.final)
            self._path.failed(part.token, SendError(why, Reason.INVALID_MESSAGE_PROPERTIES))

    # Leaving

    def flush(self, flow: Flow) -> bool:
        """Send what waits, as far as the Flow takes it; whether sends may go straight to it from now on."""
        path, queue = self._path, self.queue
        if path.draining:
            self._give_up_open(flow)
        if self.turns is not None:
            self._expire_what_is_over()
            self.turns.changed(path)
            return False
        if path.together is not None:
            self._send_together(flow)
        if queue:
            self._expire_what_is_over()
            while flow.writable and queue:
                if not self._flush_some(flow):
                    break
        return not queue and not queue.blocked_by_open_message

    def _flush_some(self, flow: Flow) -> bool:
        path, queue = self._path, self.queue
        if len(queue) == 1:
            part = queue.next()
            if part is not None:
                path.transmit(flow, part.data, part.properties, part.token, final=part.final)
            return part is not None
        flow.cork()
        corked = 0
        progress = False
        try:
            while corked < _CORK_LIMIT and flow.writable and (part := queue.next()) is not None:
                progress = True
                corked += part.token.size
                path.transmit(flow, part.data, part.properties, part.token, final=part.final, corked=True)
        finally:
            flow.uncork()
        if path.final_sent:
            flow.finish()
        return progress

    def _send_together(self, flow: Flow) -> None:
        """A batch of plain Messages, in pieces of bounded size; what the Flow does not take goes into the queue."""
        path = self._path
        together, path.together = path.together or [], None
        begin = 0
        while begin < len(together) and flow.writable:
            end, size = begin, 0
            while end < len(together) and size < _CORK_LIMIT:
                size += together[end][1].size
                end += 1
            tokens = tuple([future for _, future in together[begin:end]])
            try:
                taken = flow.send_several(
                    [data for data, _ in together[begin:end]], tokens[0].context, tokens
                )
            except SendError:
                break  # one of them cannot be sent; alone each gets its own answer
            begin = end
            if taken:
                for token in tokens:
                    path.complete(token)
            else:
                path.await_taking(tokens)
        if begin < len(together):
            path.together = together[begin:]
            self.take_apart()

    def take_apart(self) -> None:
        """What was to leave in one piece is sorted like everything else after all."""
        path = self._path
        together, path.together = path.together, None
        for data, future in together or ():
            self._add(Part(data, future.context, future))

    def _give_up_open(self, flow: Flow) -> None:
        """Nothing more is sent: a Message of which a part is missing never ends. Over a stream of bytes its parts go
        like the rest. Elsewhere it keeps what was sent after it from leaving, or is given up itself, if nothing of it
        has left."""
        for part in self.queue.give_up_open(as_they_are=not flow.preserves_boundaries):
            text = "the connection was closed before a Message that was begun had ended"
            self._path.failed(part.token, SendError(text, Reason.CONNECTION_CLOSED))

    # In turn with others of the group

    @property
    def has_next(self) -> bool:
        """Whether a part waits that may leave now."""
        return not self._path.batches and self.queue.has_next

    def hand_down(self) -> tuple[int, bool] | None:
        """Give the Flow the next part; its size, and whether it ends its Message. None if it was refused."""
        path, part = self._path, self.queue.next()
        flow = path.flow
        if (
            flow is None
            or part is None
            or not path.transmit(flow, part.data, part.properties, part.token, final=part.final)
        ):
            return None
        return part.token.size, part.token.end_of_message

    # Lifetimes

    def _expire_what_is_over(self) -> None:
        """What is over now must not leave, though the timer has not come to it yet."""
        if self._expiry is not None and self._expires_at <= time.monotonic():
            self._expiry.cancel()
            self._expire()

    def _arm_expiry(self) -> None:
        deadline = self.queue.next_deadline()
        if self._expiry is not None:
            if self._expires_at <= deadline:
                return
            self._expiry.cancel()
        self._expires_at = deadline  # kept here, since uvloop's handles of timers that are due cannot tell
        self._expiry = (
            None
            if deadline == math.inf
            else self._loop.call_later(max(0.0, deadline - time.monotonic()), self._expire)
        )

    def _expire(self) -> None:
        self._expiry = None
        path = self._path
        for part in self.queue.expire(time.monotonic() + 1e-3):
            path.will_not_leave(part.final)
            path.expired(part.token)
            if self.turns is not None:
                self.turns.withdrawn(path)
        self._arm_expiry()
        if path.draining:
            path.flush()

    # Ending

    def end(self) -> None:
        """The Connection is over: nothing leaves any more."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self.turns is not None:
            self.turns.remove(self._path)
