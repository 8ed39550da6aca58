"""Which Connection of a group may send next, where each has a Flow of its own (RFC 9622 sections 7.4 and 8.1.5).

Pure logic: no socket, no loop; time comes in as an argument. Over one association the stack below schedules its
streams; separate Flows share a bottleneck as their congestion controls find, so all that can be done is to hold one
back until another has had its turn. Whoever drives this tells the state of each member - idle, waiting, blocked - and
what was handed to its Flow, and asks ``next`` who goes on until the answer is nobody.

Members that wait with a Flow that takes more are served in the order of the scheduler. A blocked member is one whose
kernel holds as much as it takes: its turn cannot be used now, but letting the others go on would leave the sharing to
congestion control. So they wait for it, within reason. Where capacity is shared, they may be ahead by what its Flow
takes at once. Only for an urgent member does one wait that drains far faster: otherwise its own peer holds it back, and
holding the others would win it nothing. A member whose peer takes nothing at all is awaited briefly, and then has no
say until its Flow takes something. A held member is always held until a known time at most, which is then reviewed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from neatpy.enumerations import Scheduler

PATIENCE = 1.0
"""Seconds without progress after which a blocked member is no longer awaited."""

BRIEFLY = 0.05
"""Seconds for which a member that has never been blocked, so that its speed is unknown, waits for a blocked one."""

HEAD_START = 256 * 1024
"""Bytes that a Flow takes at once when it is writable again: so far may others be ahead of a blocked member."""

PACKET = 1400
"""Bytes of ours in a packet, about."""

_TOLERANCE = 4
"""A blocked member may be this many times slower than the one held for its sake, as congestion control makes it."""

_MOST_COSTLY = 65_536

_SWEEP = 4096
"""Entries after which those that are stale are thrown out."""

_M = TypeVar("_M", bound=Hashable)
_Rank = tuple[float, float]


class _State(Enum):
    IDLE = "idle"
    WAITING = "waiting"
    BLOCKED = "blocked"


_IDLE, _WAITING, _BLOCKED = _State


def cost_of(priority: int) -> int:
    """What a byte costs under weighted fair queueing: ``conn_priority + 1``, that is, weights are its reciprocals.

    Of two Connections that always have something to send, the one with about twice the number gets half the bytes:
    0 counts 101 times the default of 100, and 201 half of it. Above 65,535 all are alike, so that nobody starves.
    """
    return min(priority + 1, _MOST_COSTLY)


class GroupScheduler(Generic[_M]):
    """Decides the order among the members of one group.

    ``undelivered`` gives the bytes of a member that its peer has not acknowledged; it is asked at most once in
    ``PATIENCE`` seconds for a member that holds others up, to see whether there is progress. Without it only a Flow
    that becomes writable counts as progress.
    """

    __slots__ = (
        "_arrivals",
        "_awaited",
        "_latest",
        "_members",
        "_now_served",
        "_priorities",
        "_scheduler",
        "_turns",
        "_undelivered",
        "_waiting",
        "_wake",
    )

    def __init__(
        self,
        scheduler: Scheduler = Scheduler.WEIGHTED_FAIR_QUEUEING,
        undelivered: Callable[[_M], int] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._undelivered = undelivered
        self._members: dict[_M, _Member[_M]] = {}
        self._priorities: dict[int, int] = {}
        self._waiting: _Order[_M] = _Order()
        self._awaited: _Order[_M] = _Order()
        self._now_served = 0
        """How far the sharing has come: the tag of what was served last, at which newcomers begin."""
        self._turns = 0
        self._arrivals = 0
        self._latest: _Member[_M] | None = None
        self._wake = math.inf

    # The members

    @property
    def acts(self) -> bool:
        """Whether there is anything to decide. If not, members just send, and nothing need be told.

        A lone member is never held; and where all priorities are equal, weighted fair queueing and priorities ask for
        no more than the fairness of congestion control.
        """
        if len(self._members) < 2:
            return False
        by_priority = self._scheduler in (Scheduler.WEIGHTED_FAIR_QUEUEING, Scheduler.PRIORITY)
        return not by_priority or len(self._priorities) > 1

    def add(self, member: _M, priority: int) -> None:
        """A Connection joined, with this ``conn_priority``; it is idle. Raises ValueError if it is here already."""
        if member in self._members:
            raise ValueError(f"{member!r} is a member already")
        self._members[member] = _Member(member, priority, self._now_served)
        self._priorities[priority] = self._priorities.get(priority, 0) + 1

    def remove(self, member: _M) -> None:
        """A Connection left, whatever its state; nothing happens if it was none of ours."""
        record = self._members.pop(member, None)
        if record is not None:
            self._forget_priority(record.priority)
            record.leave()
            if self._latest is record:
                self._latest = None

    def set_priority(self, member: _M, priority: int) -> None:
        """``conn_priority`` was set; it acts from the next Message on."""
        record = self._members[member]
        self._forget_priority(record.priority)
        self._priorities[priority] = self._priorities.get(priority, 0) + 1
        record.priority = priority
        self._place(record)

    def set_scheduler(self, scheduler: Scheduler) -> None:
        """``conn_scheduler`` was set: what was sent before no longer counts."""
        self._scheduler = scheduler
        self._now_served = 0
        for record in self._members.values():
            record.tag = record.filled = 0
            self._place(record)

    # Their states. Telling the same again changes nothing

    def queued(self, member: _M) -> None:
        """One more part of a Message is in the member's queue, in which it keeps its place in the line."""
        record = self._members[member]
        tickets = record.tickets
        if tickets and record is self._latest:
            tickets[-1].parts += 1
            return
        self._latest = record
        self._arrivals += 1
        tickets.append(_Ticket(self._arrivals))
        if len(tickets) == 1:
            self._place(record)

    def withdrawn(self, member: _M) -> None:
        """A part that was queued will not be sent: it expired."""
        record = self._members[member]
        record.give_up_ticket()
        self._place(record)

    def waiting(self, member: _M, now: float) -> None:
        """Something waits that may leave, and the Flow takes more."""
        record = self._members[member]
        if record.state is not _WAITING:
            self._end_cycle(record, now)
            self._join(record)
            record.state = _WAITING
            record.awaited = False
            self._place(record)

    def blocked(self, member: _M, now: float) -> None:
        """The Flow takes no more for now, whether or not something waits here."""
        record = self._members[member]
        if record.state is not _BLOCKED:
            if not record.cycle_bytes:
                record.cycle_began = now
            self._join(record)
            record.state = _BLOCKED
            record.awaited = True
            record.awaited_since, record.awaited_bytes = record.cycle_began, record.cycle_bytes
            record.deadline = now + PATIENCE
            record.undelivered = None
            self._place(record)

    def idle(self, member: _M, now: float) -> None:
        """Nothing waits that may leave, and the Flow takes more.

        A Flow is writable before it has drained: after a blocked time the others wait as long again, though no longer
        than they would for a blocked member, so that an application that sends the next Message when one was Sent
        keeps its place.
        """
        record = self._members[member]
        if record.state is _IDLE:
            return
        if record.awaited:
            record.deadline = now + min(now - record.cycle_began, PATIENCE)
            record.awaited_since = now
        else:
            record.finish_packet()
        self._end_cycle(record, now)
        record.state = _IDLE
        self._place(record)

    # The order

    def may_send(self, member: _M, now: float) -> bool:
        """Whether a member with nothing queued may hand a Message straight to its writable Flow.

        If so and it does, tell ``sent`` and, should the Flow take no more, ``blocked``.
        """
        waiting, awaited = self._waiting.first(), self._awaited.first()
        if waiting is None and awaited is None:
            return True
        record = self._members[member]
        if record.state is _WAITING:
            return self.next(now) == member
        if record.state is _BLOCKED:
            return False
        rank = self._rank_on_arrival(record)
        if waiting is not None and waiting.rank < rank:
            return False
        return self._held_until(record, rank, now) is None

    def next(self, now: float) -> _M | None:
        """The waiting member that hands its next Message down now; None if none may.

        After it has, tell ``sent``, then its state, and ask again. The same member is given until something is told.
        """
        self._wake = math.inf
        record = self._waiting.first()
        if record is None:
            return None
        held_until = self._held_until(record, record.rank, now)
        if held_until is None:
            return record.member
        self._wake = held_until
        return None

    @property
    def wake_at(self) -> float:
        """When to ask ``next`` again if nothing is told before; ``math.inf`` if nobody was held when it was asked."""
        return self._wake

    def sent(self, member: _M, size: int, whole_message: bool, now: float) -> None:
        """The member handed this many bytes to its Flow. ``whole_message``: a Message, or the last part of one."""
        record = self._members[member]
        if record.state is _IDLE:
            record.cycle_bytes = 0
            if not record.awaited:
                record.tag = max(record.tag, self._now_served)
        if not record.cycle_bytes:
            record.cycle_began = now
        record.cycle_bytes += size
        self._now_served = max(self._now_served, record.tag)
        self._charge(record, size, whole_message)
        record.give_up_ticket()
        if record.state is _WAITING or record.awaited:
            self._place(record)

    # The rules of each scheduler

    def _charge(self, record: _Member[_M], size: int, whole_message: bool) -> None:
        """Count what was sent, in the measure of the scheduler; who is level goes behind those who were before."""
        size = max(size, 1)  # so that empty Messages cannot hold the turn for ever
        match self._scheduler:
            case Scheduler.WEIGHTED_FAIR_QUEUEING:
                charge = size * cost_of(record.priority)
            case Scheduler.FAIR_CAPACITY:
                charge = size
            case Scheduler.ROUND_ROBIN_PACKET:
                charge, record.filled = divmod(record.filled + size, PACKET)
            case _:
                charge = int(whole_message)
        if charge:
            record.tag += charge
            self._take_turn(record)

    def _rank(self, record: _Member[_M], tag: int, turn: int) -> _Rank:
        """Who goes first: the lower."""
        if self._scheduler is Scheduler.FIRST_COME_FIRST_SERVED:
            return record.tickets[0].number if record.tickets else math.inf, turn
        if self._scheduler is Scheduler.PRIORITY:
            return record.priority, turn
        return tag, turn

    def _rank_while_blocked(self, record: _Member[_M]) -> _Rank:
        """Who waits for this one: those that come after it."""
        tag, turn = record.tag, record.turn
        match self._scheduler:
            case Scheduler.PRIORITY:
                return record.priority, math.inf  # among equals nobody need wait
            case Scheduler.ROUND_ROBIN:
                tag += 1
            case Scheduler.ROUND_ROBIN_PACKET:
                tag += HEAD_START // PACKET
            case Scheduler.FAIR_CAPACITY:
                tag += HEAD_START
            case Scheduler.WEIGHTED_FAIR_QUEUEING:
                tag += HEAD_START * cost_of(record.priority)
        return self._rank(record, tag, turn)

    def _rank_on_arrival(self, record: _Member[_M]) -> _Rank:
        """The rank of a member that was idle, if it had something now."""
        if record.awaited:
            return self._rank(record, record.tag, record.turn)
        if self._scheduler is Scheduler.FIRST_COME_FIRST_SERVED and not record.tickets:
            return self._arrivals + 1, 0
        return self._rank(record, max(record.tag, self._now_served), self._turns + 1)

    # Waiting for the blocked

    def _held_until(self, record: _Member[_M], rank: _Rank, now: float) -> float | None:
        """Until when a member must wait for blocked ones; None: it need not. Gives up on those not worth it."""
        while True:
            other = self._awaited.first()
            if other is None or other is record or other.rank >= rank:
                return None
            limit = min(other.deadline, self._limit_for(other, record))
            if now < limit:
                return limit
            if limit == other.deadline and other.state is _BLOCKED and self._is_moving(other):
                other.deadline = now + PATIENCE
            else:
                other.awaited = False
                other.leave()
                if other.state is _IDLE:
                    other.finish_packet()

    def _limit_for(self, other: _Member[_M], held: _Member[_M]) -> float:
        """Until when ``other`` is worth waiting for, going by how fast ``held`` could send in its place."""
        if self._scheduler is Scheduler.PRIORITY:
            return math.inf  # urgent is urgent, however slow
        if held.pace is None:
            return other.awaited_since + BRIEFLY
        return other.awaited_since + _TOLERANCE * other.awaited_bytes * held.pace

    def _is_moving(self, record: _Member[_M]) -> bool:
        if self._undelivered is None:
            return False
        before, record.undelivered = record.undelivered, self._undelivered(record.member)
        return record.undelivered != before

    # Bookkeeping

    def _join(self, record: _Member[_M]) -> None:
        """Who was not awaited has no claim from the time before."""
        if record.state is not _WAITING and not record.awaited:
            record.tag = max(record.tag, self._now_served)
            self._take_turn(record)

    def _end_cycle(self, record: _Member[_M], now: float) -> None:
        """A blocked Flow is writable again: it has drained so many bytes in so much time."""
        if record.state is _BLOCKED:
            if record.cycle_bytes:
                record.pace = (now - record.cycle_began) / record.cycle_bytes
            record.cycle_bytes = 0

    def _take_turn(self, record: _Member[_M]) -> None:
        self._turns += 1
        record.turn = self._turns

    def _place(self, record: _Member[_M]) -> None:
        """Put a member where its state and rank say."""
        if record.state is _WAITING:
            self._waiting.put(record, self._rank(record, record.tag, record.turn))
        elif record.awaited:
            self._awaited.put(record, self._rank_while_blocked(record))
        else:
            record.leave()

    def _forget_priority(self, priority: int) -> None:
        self._priorities[priority] -= 1
        if not self._priorities[priority]:
            del self._priorities[priority]


class _Ticket:
    """A place in the line, for parts between whose arrivals nobody else's came."""

    __slots__ = ("number", "parts")

    def __init__(self, number: int) -> None:
        self.number = number
        self.parts = 1


class _Member(Generic[_M]):
    """What is known of one member."""

    __slots__ = (
        "awaited",
        "awaited_bytes",
        "awaited_since",
        "cycle_began",
        "cycle_bytes",
        "deadline",
        "entry",
        "filled",
        "member",
        "order",
        "pace",
        "priority",
        "rank",
        "state",
        "tag",
        "tickets",
        "turn",
        "undelivered",
    )

    def __init__(self, member: _M, priority: int, tag: int) -> None:
        self.member = member
        self.priority = priority
        self.state = _IDLE
        self.tag = tag
        """What it has been given, in the measure of the scheduler."""
        self.filled = 0
        """Bytes in the packet that is not full yet."""
        self.turn = 0
        """Decides between members that are level."""
        self.tickets: deque[_Ticket] = deque()
        self.cycle_began = 0.0
        """When it first sent since its Flow was last blocked, and how much it has sent since."""
        self.cycle_bytes = 0
        self.pace: float | None = None
        """Seconds for which a byte blocked the Flow, the last time it was."""
        self.awaited = False
        """Blocked or just writable again, and others wait for it: since when, after how much, until when at most."""
        self.awaited_since = 0.0
        self.awaited_bytes = 0
        self.deadline = 0.0
        self.undelivered: int | None = None
        self.order: _Order[_M] | None = None
        self.rank: _Rank = (0, 0)
        self.entry = 0

    def leave(self) -> None:
        """Be in neither order."""
        self.order = None

    def give_up_ticket(self) -> None:
        """The first part of those queued is no longer."""
        if self.tickets:
            first = self.tickets[0]
            first.parts -= 1
            if not first.parts:
                self.tickets.popleft()

    def finish_packet(self) -> None:
        """A packet that nobody fills leaves as it is."""
        if self.filled:
            self.filled = 0
            self.tag += 1


class _Order(Generic[_M]):
    """Members by rank. What has moved or left is forgotten late."""

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[_Rank, int, _Member[_M]]] = []
        self._entries = 0

    def first(self) -> _Member[_M] | None:
        """The member with the lowest rank."""
        heap = self._heap
        while heap:
            _, entry, record = heap[0]
            if record.order is self and record.entry == entry:
                return record
            heappop(heap)
        return None

    def put(self, record: _Member[_M], rank: _Rank) -> None:
        """Here it is now, with this rank."""
        if record.order is self and record.rank == rank:
            return
        self._entries += 1
        record.order, record.rank, record.entry = self, rank, self._entries
        heappush(self._heap, (rank, self._entries, record))
        if self._entries % _SWEEP == 0:
            self._sweep()

    def _sweep(self) -> None:
        self._heap = [one for one in self._heap if one[2].order is self and one[2].entry == one[1]]
        heapify(self._heap)
