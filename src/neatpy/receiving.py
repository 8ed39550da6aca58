"""What has arrived on one Connection and who waits for it (RFC 9622 section 9.3).

Pure logic: no socket, no loop but the futures of those who wait. Data come in as parts of Messages, in order; each
receive is answered once, in order, with a whole Message or with as much of one as it allows. Backpressure is the
caller's: it looks at ``full`` and ``drained``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neatpy.errors import Reason, ReceiveError
from neatpy.message import Message

if TYPE_CHECKING:
    from neatpy.message import MessageContext

    _MessageFuture = asyncio.Future[Message]
else:
    _MessageFuture = asyncio.Future  # a generic alias costs every object a dictionary

_OVERHEAD = 256
"""Bytes that a waiting Message is taken to cost beside its data, so that many tiny ones are bounded too."""

_JOIN_LIMIT = 64 * 1024
"""Bytes up to which parts of a Message are joined when less would do too."""


class ReceiveFuture(_MessageFuture):
    """Answers one receive. It never logs, and a Message is not lost if its waiter is cancelled at the last moment.

    Made as ``ReceiveFuture(loop=loop)``, with the attributes set afterwards: the quickest way there is.
    """

    __slots__ = ("maximum", "minimum", "queue")

    queue: ReceiveQueue
    minimum: int
    """Bytes from which part of a Message will do; 0: only whole ones."""
    maximum: int

    def cancel(self, msg: Any | None = None) -> bool:
        """Withdraw the request. A task that is cancelled calls this of the future it awaits: if it was answered in
        that very turn of the loop, the task will never see the Message, which is then still the next to be received.
        """
        if super().cancel(msg):
            return True
        if not self.cancelled() and self.exception() is None and self._is_awaited_in_vain():
            self.queue.put_back(self.result())
        return False

    def _is_awaited_in_vain(self) -> bool:
        return any(
            task._fut_waiter is self and task.cancelling()  # type: ignore[attr-defined]
            for task in asyncio.all_tasks(self.get_loop())
        )

    def fail(self, error: BaseException) -> None:
        """End with this error, without a log entry if nobody asks."""
        self.set_exception(error)
        self._log_traceback = False


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
    """The inbound Messages and the waiting receives of one Connection."""

    __slots__ = ("_ended", "_limit", "_make_context", "_open", "_queue", "_waiters", "held")

    def __init__(self, limit: int, make_context: Callable[[], MessageContext]) -> None:
        self._limit = limit
        self._make_context = make_context
        self.held = 0
        self._queue: deque[Message | _Inbound] | None = None
        self._open: _Inbound | None = None
        self._waiters: list[ReceiveFuture] | None = None  # an empty deque costs 600 bytes more
        self._ended: Callable[[], BaseException] | None = None

    held: int
    """Bytes that wait, with the overhead of each Message."""

    @property
    def full(self) -> bool:
        """Whether enough waits that the peer should be slowed down."""
        return self._bytes_waiting >= self._limit

    @property
    def drained(self) -> bool:
        """Whether little enough waits that the peer may go on."""
        if not self._queue or self._bytes_waiting <= self._limit // 2:
            return True
        # Somebody waits for more of a Message than is there: it has to come.
        return bool(self._waiters) and not self.full

    @property
    def _bytes_waiting(self) -> int:
        # The Message that is still arriving counts with its data only: one just below the limit comes whole.
        return self.held if self._open is None else self.held - _OVERHEAD

    @property
    def partial_context(self) -> MessageContext | None:
        """The context of the Message that has arrived in part, if there is one."""
        return None if self._open is None else self._open.context

    def set_limit(self, limit: int) -> None:
        """Change how many bytes may wait."""
        self._limit = limit

    # From below

    def received(self, data: bytes, context: MessageContext | None, end_of_message: bool) -> None:
        """A part of a Message arrived."""
        waiters = self._waiters
        inbound = self._open
        if not waiters:
            if end_of_message and inbound is None and self._queue is not None:
                self._queue.append(Message(data, context or self._make_context(), True))
                self.held += len(data) + _OVERHEAD
                return
        elif not self._queue:
            # The common case: somebody waits for just this.
            waiter = waiters[0]
            if not waiter.done() and len(data) <= waiter.maximum:
                if inbound is None:
                    if end_of_message:
                        del waiters[0]
                        waiter.set_result(Message(data, context or self._make_context(), True))
                        return
                    if 0 < waiter.minimum <= len(data):
                        inbound = self._open = _Inbound(context or self._make_context())
                        self.held += _OVERHEAD
                        del waiters[0]
                        waiter.set_result(Message(data, inbound.context, False))
                        return
                elif not inbound.size:
                    if end_of_message:
                        self._open = None
                        self.held -= _OVERHEAD
                        del waiters[0]
                        waiter.set_result(Message(data, inbound.context, True))
                        return
                    if 0 < waiter.minimum <= len(data):
                        del waiters[0]
                        waiter.set_result(Message(data, inbound.context, False))
                        return
        self._enqueue(data, context, end_of_message)

    def _enqueue(self, data: bytes, context: MessageContext | None, end_of_message: bool) -> None:
        queue = self._queue
        if queue is None:
            queue = self._queue = deque()
        inbound = self._open
        if inbound is None:
            self.held += _OVERHEAD
            if end_of_message:
                queue.append(Message(data, context or self._make_context(), True))
                self.held += len(data)
                self._answer()
                return
            inbound = self._open = _Inbound(context or self._make_context())
        if inbound.size == 0 and (not queue or queue[-1] is not inbound):
            queue.append(inbound)
        if data:
            inbound.chunks.append(data)
            inbound.size += len(data)
            self.held += len(data)
        if end_of_message:
            inbound.complete = True
            self._open = None
        self._answer()

    def finished(self, as_end_of_message: bool) -> None:
        """Nothing more will come. Over an unframed byte stream that ends the one Message there is."""
        if as_end_of_message and self._open is not None:
            self._open.context.final = True
            self.received(b"", None, True)
        elif self._queue:
            self._queue[-1].context.final = True
        self.end(lambda: ReceiveError("the peer has finished sending", Reason.CONNECTION_CLOSED))

    def end(self, error: Callable[[], BaseException]) -> None:
        """Receives that nothing is left for fail with what ``error`` makes; the first end given stays."""
        if self._ended is None:
            self._ended = error
        self._answer()

    def discard(self) -> None:
        """Throw away what waits."""
        self._queue = None
        self._open = None
        self.held = 0

    # From above

    def request(self, waiter: ReceiveFuture) -> None:
        """Enqueue a receive; it is answered now if it can be."""
        waiters = self._waiters
        if waiters is None:
            self._waiters = [waiter]
        else:
            waiters.append(waiter)
        if self._queue or self._ended is not None:
            self._answer()

    def pop_whole(self) -> Message | None:
        """The first Message, if it is there whole and nobody was before: what iterating wants, without a future."""
        if self._queue and not self._waiters:
            head = self._queue[0]
            if type(head) is Message and len(head.data) <= self._limit:
                self._queue.popleft()
                self.held -= len(head.data) + _OVERHEAD
                return head
        return None

    def put_back(self, message: Message) -> None:
        """A Message, or part of one, was not consumed after all; it is the next to be received."""
        if self._queue is None:
            self._queue = deque()
        head = self._queue[0] if self._queue else self._open
        self.held += len(message.data)
        if message.end_of_message:
            self._queue.appendleft(message)
            self.held += _OVERHEAD
        elif isinstance(head, _Inbound) and head.context is message.context:
            if not self._queue:
                self._queue.append(head)
            head.chunks.insert(0, message.data)
            head.size += len(message.data)
        else:  # the end of it was received by somebody else: it stays a part
            self._queue.appendleft(message)
            self.held += _OVERHEAD
        self._answer()

    def _answer(self) -> None:
        """Give what is there to those who wait, in order."""
        waiters = self._waiters
        while waiters:
            waiter = waiters[0]
            if waiter.done():
                waiters.pop(0)
                continue
            if self._queue:
                message = self._extract(waiter.minimum, waiter.maximum)
                if message is not None:
                    waiters.pop(0)
                    waiter.set_result(message)
                    continue
                if self._ended is None:
                    return
            elif self._ended is None:
                return
            waiters.pop(0)
            waiter.fail(self._ended())

    def _extract(self, minimum: int, maximum: int) -> Message | None:
        assert self._queue
        head = self._queue[0]
        limit = min(maximum, self._limit)
        if type(head) is Message:
            if len(head.data) <= limit or not head.end_of_message:
                self._queue.popleft()
                self.held -= len(head.data) + _OVERHEAD
                return head
            head = self._opened(head)
        assert isinstance(head, _Inbound)
        if head.complete and head.size <= limit:
            self._queue.popleft()
            self.held -= head.size + _OVERHEAD
            return Message(head.take(limit), head.context, True)
        if minimum and head.size >= min(minimum, limit):
            return self._part(head, min(limit, head.piece(minimum)))
        return self._part(head, limit) if head.size >= limit else None

    def _part(self, head: _Inbound, size: int) -> Message:
        data = head.take(size)
        self.held -= len(data)
        if not head.size and not head.complete:
            assert self._queue
            self._queue.popleft()
        return Message(data, head.context, False)

    def _opened(self, message: Message) -> _Inbound:
        """A whole Message that must go up in parts after all."""
        assert self._queue
        inbound = _Inbound(message.context)
        inbound.chunks.append(message.data)
        inbound.size = len(message.data)
        inbound.complete = True
        self._queue[0] = inbound
        return inbound
