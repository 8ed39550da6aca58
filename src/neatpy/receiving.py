"""What has arrived on one Connection and who waits for it (RFC 9622 section 9.3).

Pure logic: no socket, and of the loop only futures. Data come in as parts of Messages, in order; each receive is
answered once, in order, with a whole Message or with as much of one as it allows.

An answer is handed out at the end of the turn in which its data came (see :mod:`neatpy.system.turns`), which is at once
if who tells has nothing left to do. Until then the receive can be withdrawn, and the Message stays the
next one: cancelling loses nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from neatpy.errors import Reason, ReceiveError
from neatpy.hook import hook
from neatpy.message import OVERHEAD, LastOf, Message, MessageContext
from neatpy.system.turns import Turn, complete, turns

_JOIN_LIMIT = 64 * 1024
"""Bytes up to which parts of a Message are joined when less would do too."""

_new_message = Message.__new__

_Waiter = tuple["asyncio.Future[Message]", int, int]
"""The future of a receive, the number of bytes from which part of a Message will do, and how many it takes at most."""

_NOBODY: tuple[()] = ()

WHOLE = sys.maxsize
"""Asked for as the number of bytes from which part of a Message will do: only whole ones will."""

ITERATING = WHOLE - 1
"""The same, and the end is the end of an iteration."""


class _Inbound:
    """A Message that is not (or was not, when it was queued) all there."""

    __slots__ = ("chunks", "complete", "context", "size")

    def __init__(self, context: MessageContext) -> None:
        self.context = context
        self.chunks: list[bytes] = []
        self.size = 0
        self.complete = False

    def piece(self, minimum: int) -> int:
        """Bytes at the front to give to somebody who wants at least ``minimum`` (which are there): chunks are joined
        while they are small, and a large one goes up as it is."""
        size = 0
        for chunk in self.chunks:
            if size >= minimum and size + len(chunk) > _JOIN_LIMIT:
                break
            size += len(chunk)
        return size

    def take(self, most: int) -> bytes:
        """Up to ``most`` bytes from the front."""
        if most >= self.size:
            data = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
            self.chunks = []
            self.size = 0
            return data
        taken: list[bytes] = []
        wanted = most
        index = 0
        while wanted:
            chunk = self.chunks[index]
            if len(chunk) > wanted:
                taken.append(chunk[:wanted])
                self.chunks[index] = chunk[wanted:]
                break
            taken.append(chunk)
            wanted -= len(chunk)
            index += 1
        del self.chunks[:index]
        self.size -= most
        return taken[0] if len(taken) == 1 else b"".join(taken)


class ReceiveQueue:
    """The inbound Messages and the waiting receives of one Connection, which is the ``origin`` of their contexts.

    Whoever inherits says how the peer is slowed down (``_pause`` and ``_resume``), how an iteration ends and what to
    trace.
    """

    __slots__ = (
        "_ahead",
        "_alone",
        "_answered",
        "_arrived",
        "_deaf",
        "_ended",
        "_limit",
        "_loop",
        "_open",
        "_origin",
        "_paused",
        "_turn",
        "_waiters",
        "bytes_received",
        "held",
        "messages_received",
    )

    bytes_received: int
    """All data that came, also what was discarded."""
    messages_received: int
    held: int
    """Bytes that wait, with the overhead of each Message."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, origin: object = None) -> None:
        self._loop = loop
        self._origin = origin
        self._turn: Turn | None = None
        self._limit = limit
        self._ahead = limit
        """Bytes that may wait here while nobody asks for more."""
        self._arrived: deque[Message | _Inbound] | None = None  # an empty deque costs 600 bytes
        self._open: _Inbound | None = None
        # Who waits as the only one while nothing else is going on: nothing waits or is begun, nobody is slowed down,
        # nothing has ended. Nobody, if nobody waits; None, if there is more to it, and ``_waiters`` has those who wait.
        self._alone: _Waiter | tuple[()] | None = _NOBODY
        self._waiters: list[_Waiter] | None = None
        self._answered: list[tuple[_Waiter, Message]] | None = None
        # Why nothing more comes; told the queue, since one that knew it would be kept by it.
        self._ended: Callable[[Any], BaseException] | None = None
        self._deaf = self._paused = False
        self.held = self.bytes_received = self.messages_received = 0

    def _end_of_iteration(self, error: BaseException) -> BaseException:
        """What ends iteration where a receive fails with this error."""
        return StopAsyncIteration()

    def _pause(self) -> None:
        """Enough waits: slow the peer down."""

    def _resume(self) -> None:
        """Little enough waits for the peer to go on."""

    def _trace_arrival(self, size: int, end_of_message: bool) -> None:
        """Tell those who trace."""

    @property
    def full(self) -> bool:
        """Whether all waits that ever may."""
        return self._bytes_waiting >= self._limit

    @property
    def sated(self) -> bool:
        """Whether enough waits that the peer should be slowed down."""
        return self._bytes_waiting >= (self._limit if self._waiters else self._ahead)

    @property
    def drained(self) -> bool:
        """Whether little enough waits that the peer may go on."""
        if not self._arrived or self._bytes_waiting <= self._ahead // 2:
            return True
        # Somebody waits for more of a Message than is there: it has to come.
        return bool(self._waiters) and not self.full

    @property
    def _bytes_waiting(self) -> int:
        # The Message that is still arriving counts with its data only: one just below the limit comes whole.
        return self.held if self._open is None else self.held - OVERHEAD

    @property
    def partial_context(self) -> MessageContext | None:
        """The context of the Message that has arrived in part, if there is one."""
        return None if self._open is None else self._open.context

    # From below

    def received(
        self, data: bytes, context: MessageContext | LastOf | None, end_of_message: bool, last: bool = False
    ) -> None:
        """A part of a Message arrived."""
        size = len(data)
        self.bytes_received += size
        if end_of_message:
            self.messages_received += 1
        if hook.active:
            self._trace_arrival(size, end_of_message)
        alone = self._alone
        if alone:
            future, minimum, maximum = alone
            if size <= maximum and (end_of_message or minimum <= size) and not future.done():
                message = _new_message(Message)
                message.data = data
                message.end_of_message = end_of_message
                inbound = self._open
                if inbound is None:
                    if end_of_message and context is None:
                        message._context = self._origin
                    else:
                        message._context = self._context_of_first(context, end_of_message)
                else:
                    message._context = inbound.context
                    if end_of_message:
                        self._open = None
                        self.held -= OVERHEAD
                if last:
                    self._alone = _NOBODY
                    complete(future, message)
                else:
                    self._alone = None
                    self._hand_out_later(alone, message)
                return
        if self._deaf:
            return
        if alone is not None:
            self._leave_alone()
        if end_of_message and context is None and self._arrived and self._open is None:
            # Many small ones in a row, and nobody waits, or somebody for something else.
            message = _new_message(Message)
            message.data = data
            message.end_of_message = True
            message._context = self._origin
            self._arrived.append(message)
            self.held += size + OVERHEAD
        else:
            self._keep(data, context, end_of_message)
        if self.held >= self._ahead:
            if not self._paused and self.sated:
                self._paused = True
                self._pause()
        elif self._paused:
            self._perhaps_resume()

    def received_apart(self, data: bytes, context: MessageContext) -> bool:
        """A whole Message arrived that is not part of the one that is arriving: it goes before that. Whether it was
        taken; it is not once everything has ended, or if too much waits."""
        if self._deaf or self._ended is not None or self.full:
            return False
        inbound = self._open
        if inbound is None:
            self.received(data, context, True)
            return True
        self.bytes_received += len(data)
        self.messages_received += 1
        if hook.active:
            self._trace_arrival(len(data), True)
        if self._alone is not None:
            self._leave_alone()
        context.origin = self._origin
        message = Message(data, context, True)
        arrived = self._arrived
        if arrived is None:
            arrived = self._arrived = deque()
        if arrived and arrived[-1] is inbound:
            arrived.insert(len(arrived) - 1, message)
        else:
            arrived.append(message)
        self.held += len(data) + OVERHEAD
        self._answer_waiting()
        return True

    def _leave_alone(self) -> None:
        """There is more to it from now on."""
        alone, self._alone = self._alone, None
        if alone:
            self._waiters = [alone]

    def _context_of_first(
        self, context: MessageContext | LastOf | None, end_of_message: bool
    ) -> MessageContext | LastOf:
        """The context of a Message, or of the first part of one, that goes straight up: nothing of it is kept here."""
        if context is None:
            context = self._make_context()
        elif context.origin is None:
            context.origin = self._origin
        if not end_of_message:
            assert isinstance(context, MessageContext)
            self._open = _Inbound(context)
            self.held += OVERHEAD
        return context

    def _keep(self, data: bytes, context: MessageContext | LastOf | None, end_of_message: bool) -> None:
        arrived = self._arrived
        if arrived is None:
            arrived = self._arrived = deque()
        inbound = self._open
        if inbound is None:
            if context is None:
                context = self._make_context()
            elif context.origin is None:
                context.origin = self._origin
            self.held += OVERHEAD
            if end_of_message:
                arrived.append(Message(data, context, True))
                self.held += len(data)
                self._answer_waiting()
                return
            assert isinstance(context, MessageContext)
            inbound = self._open = _Inbound(context)
        if inbound.size == 0 and (not arrived or arrived[-1] is not inbound):
            arrived.append(inbound)
        if data:
            inbound.chunks.append(data)
            inbound.size += len(data)
            self.held += len(data)
        if end_of_message:
            inbound.complete = True
            self._open = None
        self._answer_waiting()

    def abandoned(self) -> None:
        """The Message that is arriving will have no end: what nobody has of it is thrown away."""
        inbound, self._open = self._open, None
        if inbound is None:
            return
        self.held -= inbound.size + OVERHEAD
        if self._arrived and self._arrived[-1] is inbound:
            self._arrived.pop()
        if self._paused:
            self._perhaps_resume()

    def finish_receiving(self, *, as_end_of_message: bool) -> None:
        """Nothing more will come. Over an unframed byte stream that ends the one Message there is."""
        if self._alone is not None:
            self._leave_alone()
        if self._ended is None:
            self._ended = _peer_has_finished
        if as_end_of_message and self._open is not None:
            self._open.context.final = True
            self.received(b"", None, True)
        elif self._arrived:
            self._arrived[-1].context.final = True
        if self._waiters:
            self._answer_waiting()

    def received_last(self, data: bytes, context: MessageContext | None) -> None:
        """What arrived ends the Message that is begun, or is one, and nothing more will come."""
        if self._open is not None:
            context = self._open.context
        if context is not None:
            context.final = True
        self.received(data, LastOf(self._origin) if context is None else context, True)
        self.end_receiving(_peer_has_finished)

    def end_receiving(self, error: Callable[[Any], BaseException]) -> None:
        """Receives that nothing is left for fail with what ``error`` makes for this queue; the first end given
        stays."""
        if self._alone is not None:
            self._leave_alone()
        if self._ended is None:
            self._ended = error
        if self._waiters:
            self._answer_waiting()

    def discard_arrived(self) -> None:
        """Throw away what waits."""
        self._arrived = None
        self._open = None
        self.held = 0

    # From above

    def request(self, minimum: int, maximum: int | None) -> asyncio.Future[Message]:
        """Ask for a Message, or for part of one as soon as ``minimum`` bytes are there (:data:`WHOLE`: never).
        Answered now if it can be; the future never logs."""
        future: asyncio.Future[Message] = self._loop.create_future()
        limit = self._limit
        if maximum is None or maximum > limit:
            maximum = limit
        if self._alone is _NOBODY:
            self._alone = (future, minimum, maximum)
            return future
        self._leave_alone()
        if self._waiters and self._arrived:
            # What is there may do for this one, if those before it that it would not do for were withdrawn.
            self._waiters = [waiter for waiter in self._waiters if not waiter[0].done()]
        if (self._arrived or self._ended is not None) and not self._waiters and not self._answered:
            message = self._extract(minimum, maximum) if self._arrived else None
            if message is not None:
                future.set_result(message)
                if self._paused:
                    self._perhaps_resume()
                return future
            if self._ended is not None:
                self._fail(future, minimum, self._ended(self))
                return future
        waiter = future, minimum, maximum
        if self._waiters:
            self._waiters.append(waiter)
        elif not (
            self._arrived
            or self._answered
            or self._paused
            or self._ended is not None
            or (self._open is not None and self._open.size)
        ):
            self._alone = waiter
            return future
        else:
            self._waiters = [waiter]
        if self._paused:
            self._perhaps_resume()
        return future

    def take_whole(self) -> Message | None:
        """The first Message, if it is there whole and nobody was before: what iterating wants, without a future."""
        if self._arrived and not self._waiters and not self._answered:
            head = self._arrived[0]
            if type(head) is Message and len(head.data) <= self._limit:
                self._arrived.popleft()
                self.held -= len(head.data) + OVERHEAD
                if self._paused:
                    self._perhaps_resume()
                return head
        return None

    def wake(self) -> None:
        """Hand out the answers; one whose receive was withdrawn meanwhile is the next to be received."""
        answered = self._answered
        while answered:
            future = answered[0][0][0]
            if future.done():
                self._take_back(answered)
                break
            _, message = answered.pop(0)
            complete(future, message)
        self._answered = None
        if self._waiters and (self._arrived or self._ended is not None):
            self._answer_waiting()

    def _hand_out_later(self, waiter: _Waiter, message: Message) -> None:
        if self._answered is None:
            self._answered = [(waiter, message)]
            turn = self._turn
            if turn is None:
                turn = self._turn = turns.of(self._loop)
            if turn.active:
                turn.waking.append(self)
            else:
                self._loop.call_soon(self.wake)
        else:
            self._answered.append((waiter, message))

    def _take_back(self, answered: list[tuple[_Waiter, Message]]) -> None:
        """The first of these has been withdrawn, so those behind it get the Messages before theirs."""
        if self._waiters is None:
            self._waiters = []
        self._waiters[:0] = [waiter for waiter, _ in answered]
        for _, message in reversed(answered):
            self._put_back(message)

    def _put_back(self, message: Message) -> None:
        if self._arrived is None:
            self._arrived = deque()
        head: Message | _Inbound | None = self._open
        if head is None or head.context is not message.context:
            head = self._arrived[0] if self._arrived else None
        self.held += len(message.data)
        if message.end_of_message:
            self._arrived.appendleft(message)
            self.held += OVERHEAD
        elif isinstance(head, _Inbound) and head.context is message.context:
            if not self._arrived or (head is self._open and self._arrived[-1] is not head):
                self._arrived.append(head)
            head.chunks.insert(0, message.data)
            head.size += len(message.data)
        else:  # the end of it was received by somebody else: it stays a part
            self._arrived.appendleft(message)
            self.held += OVERHEAD

    def _answer_waiting(self) -> None:
        """Give what is there to those who wait, in order."""
        waiters = self._waiters
        while waiters:
            waiter = waiters[0]
            future, minimum, maximum = waiter
            if future.done():
                del waiters[0]
                continue
            if self._arrived:
                message = self._extract(minimum, maximum)
                if message is not None:
                    del waiters[0]
                    self._hand_out_later(waiter, message)
                    continue
            if self._ended is None:
                return
            if self._answered:
                return  # in order: after those
            del waiters[0]
            self._fail(future, minimum, self._ended(self))

    def _fail(self, future: asyncio.Future[Message], minimum: int, error: BaseException) -> None:
        """End with this error, without a log entry if nobody asks."""
        future.set_exception(self._end_of_iteration(error) if minimum == ITERATING else error)
        future._log_traceback = False

    def _make_context(self) -> MessageContext:
        context = MessageContext()
        context.origin = self._origin
        return context

    def _perhaps_resume(self) -> None:
        if self._paused and self.drained:
            self._paused = False
            self._resume()

    def _extract(self, minimum: int, maximum: int) -> Message | None:
        assert self._arrived
        head = self._arrived[0]
        limit = min(maximum, self._limit)
        if type(head) is Message:
            if len(head.data) <= limit or not head.end_of_message:
                self._arrived.popleft()
                self.held -= len(head.data) + OVERHEAD
                return head
            head = self._opened(head)
        assert isinstance(head, _Inbound)
        if head.complete and head.size <= limit:
            self._arrived.popleft()
            self.held -= head.size + OVERHEAD
            return Message(head.take(limit), head.context, True)
        least = min(minimum, limit)
        return self._part(head, min(limit, head.piece(least))) if head.size >= least else None

    def _part(self, head: _Inbound, size: int) -> Message:
        data = head.take(size)
        self.held -= len(data)
        if not head.size and not head.complete:
            assert self._arrived
            self._arrived.popleft()
        return Message(data, head.context, False)

    def _opened(self, message: Message) -> _Inbound:
        """A whole Message that must go up in parts after all."""
        assert self._arrived
        inbound = _Inbound(message.context)
        inbound.chunks.append(message.data)
        inbound.size = len(message.data)
        inbound.complete = True
        self._arrived[0] = inbound
        return inbound


def _peer_has_finished(queue: ReceiveQueue) -> ReceiveError:
    return ReceiveError("the peer has finished sending", Reason.CONNECTION_CLOSED)
