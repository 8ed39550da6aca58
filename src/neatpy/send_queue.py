"""What waits to be sent on one Connection, and in which order it leaves (RFC 9622 sections 9.1.3 and 9.2).

Pure logic: no socket, no loop; time comes in as an argument. Messages leave by priority, within one priority in the
order of their sends, a Final one last. The parts of a Message stay together and, once the first has left, nothing
overtakes the rest. A Message whose lifetime ends before any of it has left expires.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neatpy.message import MessageContext
    from neatpy.sending import SendFuture
    from neatpy.stacks.contract import Data


class Part:
    """The data of one send. ``properties`` is the context as it was then, with the Connection's defaults."""

    __slots__ = ("data", "properties", "token")

    def __init__(self, data: Data, properties: MessageContext, token: SendFuture) -> None:
        self.data = data
        self.properties = properties
        self.token = token

    @property
    def end_of_message(self) -> bool:
        """Whether this is the whole Message or its last part."""
        return self.token.end_of_message

    @property
    def final(self) -> bool:
        """Whether nothing is to be sent after it."""
        return self.token.end_of_message and self.properties.final


class _Waiting:
    """A Message of which at least one part waits, or that is still open: more parts of it will be sent."""

    __slots__ = ("complete", "deadline", "parts", "settled", "started")

    def __init__(self, part: Part, deadline: float) -> None:
        self.parts = [part]
        self.complete = part.end_of_message
        self.deadline = deadline
        self.started = False
        self.settled = False
        """Expired or dropped; the heap forgets it later."""


class SendQueue:
    """The Messages of one Connection that have not left yet."""

    __slots__ = ("_current", "_deadlines", "_given_up", "_heap", "_open", "_sequence", "_waiting")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Waiting]] = []
        self._sequence = 0
        self._waiting = 0
        self._current: _Waiting | None = None
        self._open: dict[MessageContext, _Waiting] | None = None
        self._given_up: set[MessageContext] | None = None
        self._deadlines: list[tuple[float, int, _Waiting]] | None = None

    def __len__(self) -> int:
        """Parts that wait."""
        return self._waiting

    @property
    def has_next(self) -> bool:
        """Whether ``next`` would give a part."""
        if self._current is not None:
            return bool(self._current.parts)
        return self._waiting > 0

    @property
    def blocked_by_open_message(self) -> bool:
        """Whether a Message has left in part, so that only its other parts may leave now."""
        return self._current is not None

    def belongs_to_open_message(self, context: MessageContext) -> bool:
        """Whether a Message with this context has been begun by a partial send and not ended."""
        return (self._open is not None and context in self._open) or self.was_given_up(context)

    def was_given_up(self, context: MessageContext) -> bool:
        """Whether the Message with this context expired while more parts of it were to come."""
        return self._given_up is not None and context in self._given_up

    def end_given_up(self, context: MessageContext) -> None:
        """The last part of a Message that was given up has been refused; the context can serve another."""
        if self._given_up is not None:
            self._given_up.discard(context)

    def add(self, part: Part, now: float) -> None:
        """Enqueue the data of one send."""
        self._waiting += 1
        context = part.token.context
        if self._open is not None and (waiting := self._open.get(context)) is not None:
            waiting.parts.append(part)
            if part.end_of_message:
                waiting.complete = True
                del self._open[context]
            return
        properties = part.properties
        lifetime = properties.msg_lifetime
        waiting = _Waiting(part, math.inf if lifetime == math.inf else now + lifetime)
        if not part.end_of_message:
            if self._open is None:
                self._open = {}
            self._open[context] = waiting
        self._sequence += 1
        rank = math.inf if properties.final else properties.msg_priority
        heappush(self._heap, (rank, self._sequence, waiting))
        if waiting.deadline != math.inf:
            if self._deadlines is None:
                self._deadlines = []
            heappush(self._deadlines, (waiting.deadline, self._sequence, waiting))

    def put_first(self) -> None:
        """What was added goes before everything else, whatever its priority: it is the first there ever was."""
        if len(self._heap) == 1:
            _, sequence, waiting = self._heap[0]
            self._heap[0] = (-math.inf, sequence, waiting)

    def next(self) -> Part | None:
        """The part that leaves next, taken out of the queue; None if nothing may leave now."""
        current = self._current
        if current is None:
            heap = self._heap
            while heap and heap[0][2].settled:
                heappop(heap)
            if not heap:
                return None
            current = heappop(heap)[2]
            current.started = True
        parts = current.parts
        if not parts:
            return None
        part = parts.pop(0)
        self._waiting -= 1
        self._current = None if current.complete and not parts else current
        return part

    def give_up_open(self, *, as_they_are: bool) -> list[Part]:
        """No more parts come. ``as_they_are``: what there is of the Messages that were begun leaves, and what was sent
        after them. Otherwise those of which nothing has left are taken out, and one that has left in part takes out all
        that waits for its end. Gives the sends that were taken out, in order."""
        opened, self._open = self._open, None
        begun = [] if opened is None else list(opened.values())
        if as_they_are:
            for waiting in begun:
                waiting.complete = True
            if self._current is not None and not self._current.parts:
                self._current = None
            return []
        if any(waiting.started for waiting in begun):
            return self.clear()
        dropped: list[Part] = []
        for waiting in begun:
            waiting.complete = waiting.settled = True
            dropped += self._drop(waiting)
        return dropped

    def refuse(self, why: Callable[[MessageContext], str | None]) -> list[tuple[Part, str]]:
        """Take out the Messages for whose properties ``why`` gives a reason; their sends, in order, with it."""
        refused: list[tuple[Part, str]] = []
        for _, _, waiting in sorted(self._heap, key=lambda entry: entry[:2]):
            reason = None if waiting.settled or not waiting.parts else why(waiting.parts[0].properties)
            if reason is None:
                continue
            waiting.settled = True
            if not waiting.complete and self._open is not None:
                del self._open[waiting.parts[0].token.context]
                waiting.complete = True
            refused += [(part, reason) for part in self._drop(waiting)]
        return refused

    def next_deadline(self) -> float:
        """When a lifetime ends next; ``math.inf`` for never."""
        deadlines = self._deadlines
        while deadlines and (deadlines[0][2].started or deadlines[0][2].settled):
            heappop(deadlines)
        return deadlines[0][0] if deadlines else math.inf

    def expire(self, now: float) -> list[Part]:
        """Take out everything whose lifetime has ended, and say what that was."""
        expired: list[Part] = []
        while self.next_deadline() <= now:
            assert self._deadlines is not None
            waiting = heappop(self._deadlines)[2]
            waiting.settled = True
            expired += self._drop(waiting)
        return expired

    def clear(self) -> list[Part]:
        """Take out everything, in the order in which it would have left."""
        dropped: list[Part] = []
        if self._current is not None:
            dropped += self._drop(self._current)
            self._current = None
        for _, _, waiting in sorted(self._heap, key=lambda entry: entry[:2]):
            if not waiting.settled:
                dropped += self._drop(waiting)
        self._heap = []
        self._open = self._given_up = self._deadlines = None
        return dropped

    def _drop(self, waiting: _Waiting) -> list[Part]:
        parts, waiting.parts = waiting.parts, []
        self._waiting -= len(parts)
        if not waiting.complete and parts:
            context = parts[0].token.context
            if self._open is not None:
                self._open.pop(context, None)
            if self._given_up is None:
                self._given_up = set()
            self._given_up.add(context)
        return parts
