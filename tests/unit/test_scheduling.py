"""The order in which the Connections of a group send, without sockets, loops or real time."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatpy.enumerations import Scheduler
from neatpy.scheduling import BRIEFLY, HEAD_START, PACKET, PATIENCE, GroupScheduler, cost_of

ALL = tuple(Scheduler)
SHARING = (
    Scheduler.ROUND_ROBIN,
    Scheduler.ROUND_ROBIN_PACKET,
    Scheduler.FAIR_CAPACITY,
    Scheduler.WEIGHTED_FAIR_QUEUEING,
)
NOBODY_STARVES = (Scheduler.FIRST_COME_FIRST_SERVED, *SHARING)
KIB = 1024


class Group:
    """Drives a scheduler as the Connections of a group would, and remembers what left in which order."""

    def __init__(
        self, scheduler: Scheduler, undelivered: Callable[[str], int] | None = None, **priorities: int
    ) -> None:
        self.schedule: GroupScheduler[str] = GroupScheduler(scheduler, undelivered)
        self.now = 0.0
        self.queues: dict[str, deque[int]] = {}
        self.stuck: set[str] = set()
        self.left: list[tuple[str, int]] = []
        for name, priority in priorities.items():
            self.join(name, priority)

    def join(self, name: str, priority: int = 100) -> None:
        self.queues[name] = deque()
        self.schedule.add(name, priority)

    def send(self, name: str, *sizes: int) -> None:
        """Queue without letting anything go, as inside a batch."""
        for size in sizes:
            self.queues[name].append(size)
            self.schedule.queued(name)
        self.tell(name)

    def block(self, *names: str) -> None:
        self.stuck.update(names)
        for name in names:
            self.tell(name)

    def unblock(self, *names: str) -> None:
        self.stuck.difference_update(names)
        for name in names:
            self.tell(name)

    def tell(self, name: str) -> None:
        if name in self.stuck:
            self.schedule.blocked(name, self.now)
        elif self.queues[name]:
            self.schedule.waiting(name, self.now)
        else:
            self.schedule.idle(name, self.now)

    def step(self) -> str | None:
        name = self.schedule.next(self.now)
        if name is not None:
            assert name not in self.stuck
            size = self.queues[name].popleft()
            self.left.append((name, size))
            self.schedule.sent(name, size, True, self.now)
            self.tell(name)
        return name

    def run(self, steps: int = 1_000_000) -> str:
        """Let go what may; the names of the members in the order of their Messages."""
        begin = len(self.left)
        while steps and self.step() is not None:
            steps -= 1
        return "".join(name for name, _ in self.left[begin:])

    def bytes_of(self, name: str) -> int:
        return sum(size for one, size in self.left if one == name)


# Whether there is anything to decide


def test_a_lone_member_is_never_held() -> None:
    for scheduler in ALL:
        group = Group(scheduler, a=100)
        assert not group.schedule.acts
        assert group.schedule.may_send("a", 0.0)
        group.send("a", 1, 2, 3)
        assert group.run() == "aaa"


def test_equal_priorities_leave_the_default_scheduler_nothing_to_decide() -> None:
    group = Group(Scheduler.WEIGHTED_FAIR_QUEUEING, a=100, b=100)
    assert not group.schedule.acts
    group.schedule.set_priority("b", 50)
    assert group.schedule.acts
    group.schedule.set_priority("b", 100)
    assert not group.schedule.acts
    group.schedule.set_scheduler(Scheduler.FAIR_CAPACITY)
    assert group.schedule.acts
    group.schedule.remove("b")
    assert not group.schedule.acts


def test_a_member_is_added_once_and_removing_a_stranger_does_nothing() -> None:
    schedule: GroupScheduler[str] = GroupScheduler()
    schedule.add("a", 100)
    with pytest.raises(ValueError, match="a member already"):
        schedule.add("a", 100)
    schedule.remove("b")
    assert schedule.next(0.0) is None


# The order of those whose Flows take everything


def test_first_come_first_served_keeps_the_order_of_sending_over_all_members() -> None:
    group = Group(Scheduler.FIRST_COME_FIRST_SERVED, a=100, b=0, c=200)
    for name in "abbacabc":
        group.send(name, 10)
    assert group.run() == "abbacabc"


def test_a_part_that_expired_gives_up_its_place_in_the_line() -> None:
    group = Group(Scheduler.FIRST_COME_FIRST_SERVED, a=100, b=100)
    for name in "aba":
        group.send(name, 10)
    group.queues["a"].popleft()
    group.schedule.withdrawn("a")
    assert group.run() == "ba"


def test_round_robin_gives_each_a_message_in_turn_whatever_its_size() -> None:
    group = Group(Scheduler.ROUND_ROBIN, a=100, b=100, c=100)
    group.send("a", 1, 1, 1, 1)
    group.send("b", 100_000, 100_000)
    group.send("c", 10, 10, 10)
    assert group.run() == "abcabcaca"


def test_round_robin_lets_nobody_in_before_a_message_is_whole() -> None:
    schedule: GroupScheduler[str] = GroupScheduler(Scheduler.ROUND_ROBIN)
    for name in "ab":
        schedule.add(name, 100)
        schedule.queued(name)
        schedule.waiting(name, 0.0)
    assert schedule.next(0.0) == "a"
    schedule.sent("a", 10, False, 0.0)
    assert schedule.next(0.0) == "a"
    schedule.sent("a", 10, True, 0.0)
    assert schedule.next(0.0) == "b"


def test_round_robin_per_packet_fills_a_packet_before_the_next_member_goes_on() -> None:
    group = Group(Scheduler.ROUND_ROBIN_PACKET, a=100, b=100)
    group.send("a", *[PACKET // 4] * 8)
    group.send("b", *[PACKET] * 3)
    assert group.run() == "aaaabaaaabb"


def test_round_robin_per_packet_counts_the_packets_of_a_large_message() -> None:
    group = Group(Scheduler.ROUND_ROBIN_PACKET, a=100, b=100)
    group.send("a", 5 * PACKET, PACKET)
    group.send("b", *[PACKET] * 6)
    assert group.run() == "abbbbbab"


def test_the_lowest_conn_priority_goes_first_and_equals_take_turns() -> None:
    group = Group(Scheduler.PRIORITY, low=200, one=5, two=5, urgent=0)
    group.send("low", 1)
    group.send("one", 1, 1)
    group.send("two", 1, 1)
    group.send("urgent", 1, 1)
    group.run()
    assert [name for name, _ in group.left] == ["urgent", "urgent", "one", "two", "one", "two", "low"]


def test_fair_capacity_gives_the_same_bytes_whatever_the_size_of_messages() -> None:
    group = Group(Scheduler.FAIR_CAPACITY, a=0, b=200)
    group.send("a", *[100] * 1000)
    group.send("b", *[10_000] * 20)
    group.run(505)
    assert abs(group.bytes_of("a") - group.bytes_of("b")) <= 10_000


def test_weighted_fair_queueing_shares_by_the_reciprocal_of_the_priority() -> None:
    group = Group(Scheduler.WEIGHTED_FAIR_QUEUEING, a=100, b=201, c=50)
    for name in "abc":
        group.send(name, *[1000] * 1000)
    group.run(1000)
    assert group.bytes_of("a") / group.bytes_of("b") == pytest.approx(2, rel=0.02)
    assert group.bytes_of("c") / group.bytes_of("a") == pytest.approx(101 / 51, rel=0.02)


def test_weights_fall_as_priority_values_rise_up_to_where_all_are_alike() -> None:
    costs = [cost_of(priority) for priority in range(70_000)]
    assert costs == sorted(costs)
    assert len(set(costs[:65_536])) == 65_536
    assert cost_of(100) == 101 * cost_of(0)
    assert cost_of(10**30) == cost_of(65_535)


def test_who_was_silent_has_saved_up_nothing() -> None:
    for scheduler in SHARING:
        group = Group(scheduler, a=100, b=100)
        group.send("a", *[1000] * 2000)
        group.run(1000)
        group.send("b", *[1000] * 1000)
        assert Counter(group.run(1000))["b"] <= 502, scheduler


def test_a_priority_set_late_acts_on_the_next_message() -> None:
    group = Group(Scheduler.PRIORITY, a=100, b=200)
    group.send("a", 1, 1, 1)
    group.send("b", 1, 1)
    assert group.run(1) == "a"
    group.schedule.set_priority("b", 0)
    assert group.run() == "bbaa"


def test_a_scheduler_set_late_orders_what_already_waits() -> None:
    group = Group(Scheduler.FAIR_CAPACITY, a=100, b=0)
    group.send("a", 1, 1, 1)
    group.send("b", 1, 1, 1)
    assert group.run(2) == "ab"
    group.schedule.set_scheduler(Scheduler.PRIORITY)
    assert group.run(1) == "b"
    group.schedule.set_scheduler(Scheduler.FIRST_COME_FIRST_SERVED)
    assert group.run() == "aab"


def test_who_left_is_not_given_the_turn() -> None:
    group = Group(Scheduler.ROUND_ROBIN, a=100, b=100)
    group.send("a", 1)
    group.send("b", 1)
    group.schedule.remove("a")
    assert group.run() == "b"


# Blocked members


def test_an_urgent_blocked_member_holds_the_others_and_then_goes_first() -> None:
    group = Group(Scheduler.PRIORITY, a=0, b=100)
    group.send("a", 1, 1)
    group.send("b", 1)
    group.block("a")
    assert group.run() == ""
    assert group.schedule.wake_at == PATIENCE
    group.unblock("a")
    assert group.run() == "aab"


def test_a_blocked_member_holds_nobody_who_is_more_urgent_or_its_equal() -> None:
    group = Group(Scheduler.PRIORITY, a=0, b=100, c=100)
    group.send("b", 1)
    group.block("b")
    group.send("a", 1, 1)
    group.send("c", 1)
    assert group.run() == "aac"


def test_an_urgent_member_whose_peer_takes_nothing_holds_the_others_for_a_bounded_time() -> None:
    group = Group(Scheduler.PRIORITY, a=0, b=100)
    group.send("a", 1)
    group.block("a")
    group.send("b", 1, 1)
    assert group.run() == ""
    group.now = group.schedule.wake_at
    assert group.now <= 1.0
    assert group.run() == "bb"
    assert group.schedule.wake_at == math.inf


def test_an_urgent_member_that_makes_progress_is_awaited_and_one_that_stops_is_not() -> None:
    undelivered = [1000]
    group = Group(Scheduler.PRIORITY, lambda _: undelivered[0], a=0, b=100)
    group.send("a", 1)
    group.block("a")
    group.send("b", 1)
    for _ in range(10):
        assert group.run() == ""
        undelivered[0] -= 1
        group.now = group.schedule.wake_at
    assert group.run() == ""
    group.now = group.schedule.wake_at
    assert group.run() == "b"


def test_a_member_given_up_has_its_say_again_once_its_flow_has_taken_something() -> None:
    group = Group(Scheduler.PRIORITY, a=0, b=100)
    group.send("a", 1, 1)
    group.block("a")
    group.send("b", 1, 1, 1)
    group.run()
    group.now += 2 * PATIENCE
    assert group.run(1) == "b"
    group.unblock("a")
    assert group.run(1) == "a"
    group.block("a")
    assert group.run() == ""


@pytest.mark.parametrize("scheduler", SHARING)
def test_others_are_ahead_of_a_blocked_member_by_what_its_flow_takes_at_once(scheduler: Scheduler) -> None:
    group = Group(scheduler, a=100, b=100)
    group.send("a", *[KIB] * 10)
    group.block("a")
    group.send("b", *[KIB] * 10_000)
    ahead = 1 if scheduler is Scheduler.ROUND_ROBIN else HEAD_START / KIB
    assert len(group.run()) == pytest.approx(ahead, rel=0.02)
    group.unblock("a")
    assert group.run(10) == ("abababababa" if ahead == 1 else "a" * 10)[:10]


@pytest.mark.parametrize("scheduler", NOBODY_STARVES)
def test_a_member_whose_peer_reads_nothing_does_not_hold_the_others(scheduler: Scheduler) -> None:
    group = Group(scheduler, a=100, b=200)
    group.send("a", *[KIB] * 1000)
    group.block("a")
    group.send("b", *[KIB] * 2000)
    group.run()
    group.now = min(group.schedule.wake_at, 1e9)
    assert group.now <= BRIEFLY
    group.run()
    assert not group.queues["b"]


def test_a_member_that_pauses_between_messages_keeps_its_claim_while_its_flow_drains() -> None:
    group = Group(Scheduler.PRIORITY, a=0, b=100)
    group.send("a", 1000)
    assert group.run() == "a"
    group.block("a")
    group.send("b", 1, 1)
    group.now = 0.2
    group.unblock("a")
    assert group.run() == ""
    group.send("a", 1000)
    assert group.run(1) == "a"
    group.now = group.schedule.wake_at
    assert group.run() == "bb"


def test_a_pause_is_awaited_no_longer_than_the_flow_drained_before() -> None:
    group = Group(Scheduler.PRIORITY, a=0, b=100)
    group.send("a", 1000)
    group.run()
    group.block("a")
    group.send("b", 1)
    group.now = 0.2
    group.unblock("a")
    assert group.run() == ""
    assert group.schedule.wake_at == pytest.approx(0.4)
    group.now = group.schedule.wake_at
    assert group.run() == "b"


# Sending without a queue


def test_who_meets_nobody_may_send_at_once() -> None:
    for scheduler in ALL:
        group = Group(scheduler, a=100, b=0)
        assert group.schedule.may_send("a", 0.0)
        group.schedule.sent("a", 100, True, 0.0)
        assert group.schedule.may_send("b", 0.0)


def test_who_is_less_urgent_than_a_blocked_member_must_queue() -> None:
    group = Group(Scheduler.PRIORITY, a=50, b=100, c=0)
    group.send("a", 1)
    group.block("a")
    assert not group.schedule.may_send("b", 0.0)
    assert group.schedule.may_send("c", 0.0)
    assert not group.schedule.may_send("a", 0.0)


def test_a_message_of_a_newcomer_does_not_overtake_who_waits() -> None:
    for scheduler in (Scheduler.FIRST_COME_FIRST_SERVED, Scheduler.ROUND_ROBIN, Scheduler.FAIR_CAPACITY):
        group = Group(scheduler, a=100, b=100)
        group.send("a", 1)
        assert not group.schedule.may_send("b", 0.0), scheduler
        assert group.schedule.may_send("a", 0.0), scheduler


# For any traffic

Load = Mapping[str, tuple[int, Sequence[int]]]
"""The priority of each member and the sizes of its Messages."""

priorities = st.integers(0, 300)
traffic = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(priorities, st.lists(st.integers(0, 5000), max_size=20)), min_size=1
)


def _loaded(scheduler: Scheduler, load: Load) -> Group:
    group = Group(scheduler)
    for name, (priority, sizes) in load.items():
        group.join(name, priority)
        group.send(name, *sizes)
    return group


@given(st.sampled_from(ALL), traffic)
def test_everything_leaves_at_once_when_nobody_is_blocked(scheduler: Scheduler, load: Load) -> None:
    group = _loaded(scheduler, load)
    group.run()
    assert Counter(group.left) == Counter((name, size) for name, (_, sizes) in load.items() for size in sizes)
    for name, (_, sizes) in load.items():
        assert [size for one, size in group.left if one == name] == list(sizes)


@given(st.sampled_from(ALL), traffic)
def test_the_same_history_gives_the_same_order(scheduler: Scheduler, load: Load) -> None:
    first, second = _loaded(scheduler, load), _loaded(scheduler, load)
    first.run()
    second.run()
    assert first.left == second.left


@given(traffic)
def test_under_priorities_nothing_leaves_while_something_more_urgent_waits(
    load: Load,
) -> None:
    group = _loaded(Scheduler.PRIORITY, load)
    while (name := group.step()) is not None:
        waiting = [load[other][0] for other, queue in group.queues.items() if queue]
        assert all(priority >= load[name][0] for priority in waiting)


@pytest.mark.parametrize("scheduler", [Scheduler.FAIR_CAPACITY, Scheduler.WEIGHTED_FAIR_QUEUEING])
@given(
    first=st.lists(st.integers(1, 5000), min_size=50, max_size=50),
    second=st.lists(st.integers(1, 5000), min_size=50, max_size=50),
    one=priorities,
    two=priorities,
    steps=st.integers(1, 60),
)
def test_two_that_always_wait_differ_by_one_message_of_each_at_most(
    scheduler: Scheduler, first: list[int], second: list[int], one: int, two: int, steps: int
) -> None:
    group = Group(scheduler, a=one, b=two)
    group.send("a", *first)
    group.send("b", *second)
    weighted = scheduler is Scheduler.WEIGHTED_FAIR_QUEUEING
    a, b = (cost_of(one), cost_of(two)) if weighted else (1, 1)
    for _ in range(steps):
        group.step()
        if not group.queues["a"] or not group.queues["b"]:
            break
        assert abs(group.bytes_of("a") * a - group.bytes_of("b") * b) <= max(first) * a + max(second) * b


@given(st.sampled_from(SHARING), st.data())
def test_nobody_who_can_send_starves(scheduler: Scheduler, data: st.DataObject) -> None:
    """However the others come, go and block, a waiting member gets its turn in bounded time."""
    group = Group(scheduler, me=100, b=0, c=100, d=300)
    group.send("me", 1000)
    for _ in range(400):
        if not group.queues["me"]:
            return
        for name in "bcd":
            if not group.queues[name]:
                group.send(name, 500, 2000)
        name = data.draw(st.sampled_from("bcd"))
        (group.unblock if name in group.stuck else group.block)(name)
        for _ in range(50):
            group.step()
        group.now += 0.01
    pytest.fail("it never got its turn")


@given(st.sampled_from(ALL), st.data())
def test_a_group_with_something_to_send_is_never_held_for_good(
    scheduler: Scheduler, data: st.DataObject
) -> None:
    group = Group(scheduler, a=0, b=100, c=100, d=200)
    for _ in range(data.draw(st.integers(1, 40))):
        name = data.draw(st.sampled_from("abcd"))
        action = data.draw(st.sampled_from(("send", "block", "unblock", "step", "wait", "priority")))
        if action == "send":
            group.send(name, data.draw(st.integers(0, 100_000)))
        elif action == "block":
            group.block(name)
        elif action == "unblock":
            group.unblock(name)
        elif action == "step":
            group.step()
        elif action == "wait":
            group.now += data.draw(st.floats(0, 2))
        else:
            group.schedule.set_priority(name, data.draw(priorities))
    begun = group.now
    for _ in range(20):
        group.run()
        if all(not queue or name in group.stuck for name, queue in group.queues.items()):
            return
        assert group.now < group.schedule.wake_at < math.inf
        group.now = group.schedule.wake_at
        assert group.now <= begun + 2 * PATIENCE
    pytest.fail("somebody is held for good")


# Over a link that they share


class Link:
    """A bottleneck that congestion control shares evenly among whoever has something in its kernel."""

    UNSENT, STEP = 256 * KIB, 0.002

    def __init__(
        self, scheduler: Scheduler, capacity: float, peers: Mapping[str, float], **priorities: int
    ) -> None:
        self.capacity = capacity
        self.peers = peers
        self.kernels = dict.fromkeys(priorities, 0.0)
        self.delivered = dict.fromkeys(priorities, 0.0)
        self.full: set[str] = set()
        self.schedule: GroupScheduler[str] = GroupScheduler(scheduler, lambda name: int(self.kernels[name]))
        self.now = 0.0
        for name, priority in priorities.items():
            self.schedule.add(name, priority)
            self.schedule.queued(name)
            self.schedule.waiting(name, 0.0)

    def run(self, seconds: float) -> dict[str, float]:
        """Bytes per second that each got, all of them always having more to send."""
        before = dict(self.delivered)
        end = self.now + seconds
        while self.now < end:
            self._pump()
            self.now += self.STEP
            self._drain()
        return {name: (self.delivered[name] - before[name]) / seconds for name in before}

    def _pump(self) -> None:
        while (name := self.schedule.next(self.now)) is not None:
            self.kernels[name] += 16 * KIB
            self.schedule.sent(name, 16 * KIB, True, self.now)
            self.schedule.queued(name)
            if self.kernels[name] >= self.UNSENT:
                self.full.add(name)
                self.schedule.blocked(name, self.now)

    def _drain(self) -> None:
        left = self.capacity * self.STEP
        active = sorted(
            (name for name, held in self.kernels.items() if held),
            key=lambda name: self.peers.get(name, math.inf),
        )
        for index, name in enumerate(active):
            share = min(
                left / (len(active) - index),
                self.peers.get(name, math.inf) * self.STEP,
                self.kernels[name],
            )
            left -= share
            self.kernels[name] -= share
            self.delivered[name] += share
            if name in self.full and self.kernels[name] < self.UNSENT / 2:
                self.full.discard(name)
                self.schedule.waiting(name, self.now)


MEGABIT = 125_000.0


@pytest.mark.parametrize("megabits", [5, 100])
def test_weights_decide_what_congestion_control_would_share_evenly(megabits: int) -> None:
    link = Link(Scheduler.WEIGHTED_FAIR_QUEUEING, megabits * MEGABIT, {}, ordinary=100, half=201, favoured=24)
    link.run(5)
    rates = link.run(20)
    assert rates["ordinary"] / rates["half"] == pytest.approx(2, rel=0.15)
    assert rates["favoured"] / rates["ordinary"] == pytest.approx(4, rel=0.15)
    assert sum(rates.values()) > 0.98 * link.capacity


def test_an_urgent_member_gets_the_whole_link() -> None:
    link = Link(Scheduler.PRIORITY, 5 * MEGABIT, {}, urgent=0, bulk=100)
    link.run(5)
    rates = link.run(10)
    assert rates["urgent"] > 0.98 * link.capacity


@pytest.mark.parametrize("scheduler", NOBODY_STARVES)
@pytest.mark.parametrize("reader", [0, 10_000, 300_000, 5_000_000])
def test_a_slow_reader_does_not_slow_the_others_down(scheduler: Scheduler, reader: int) -> None:
    link = Link(scheduler, 800 * MEGABIT, {"slow": reader}, slow=50, fast=100)
    link.run(3)
    rates = link.run(10)
    assert rates["fast"] > 0.75 * (link.capacity - reader)
    assert rates["slow"] == pytest.approx(reader, rel=0.2)


def test_thousands_take_turns() -> None:
    group = Group(Scheduler.ROUND_ROBIN)
    names = [str(number) for number in range(3000)]
    for name in names:
        group.join(name)
        group.send(name, 100, 100, 100)
    group.run()
    assert [name for name, _ in group.left] == names * 3
