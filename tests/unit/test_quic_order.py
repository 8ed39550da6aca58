"""The order in which the streams of a QUIC connection are served."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatpy.enumerations import Scheduler
from neatpy.stacks._quic.order import Order

PACKET = 1200


def order_of(scheduler: Scheduler, priorities: Mapping[int, float]) -> Order:
    order = Order(scheduler)
    for stream, priority in priorities.items():
        order.prioritise(stream, priority)
        order.begins(stream, 0, {})
    return order


def served(order: Order, sent: dict[int, int], packets: int) -> dict[int, int]:
    """What is sent of each stream when so many packets more are, and all have enough to send."""
    for _ in range(packets):
        first = min(sent, key=lambda stream: order.key(stream, sent[stream]))
        sent[first] += PACKET
    return sent


@pytest.mark.parametrize("scheduler", [Scheduler.ROUND_ROBIN, Scheduler.ROUND_ROBIN_PACKET])
def test_turns_need_no_order(scheduler: Scheduler) -> None:
    assert not order_of(scheduler, {0: 1, 4: 200}).matters


@pytest.mark.parametrize("scheduler", [Scheduler.PRIORITY, Scheduler.WEIGHTED_FAIR_QUEUEING])
def test_equal_priorities_need_no_order(scheduler: Scheduler) -> None:
    order = order_of(scheduler, {0: 100, 4: 100})
    assert not order.matters
    order.prioritise(4, 99)
    assert order.matters
    order.forget(4)
    assert not order.matters


def test_the_lowest_priority_is_served_first() -> None:
    order = order_of(Scheduler.PRIORITY, {0: 100, 4: 5, 8: 50})
    assert served(order, {0: 0, 4: 0, 8: 0}, 10) == {0: 0, 4: 10 * PACKET, 8: 0}


def test_who_came_first_is_served_first_until_it_has_nothing_left() -> None:
    order = order_of(Scheduler.FIRST_COME_FIRST_SERVED, {0: 9, 4: 1})
    assert served(order, {0: 0, 4: 0}, 3) == {0: 3 * PACKET, 4: 0}
    order.begins(0, 3 * PACKET, {4: 0})
    assert served(order, {0: 3 * PACKET, 4: 0}, 3) == {0: 3 * PACKET, 4: 3 * PACKET}


def test_fair_capacity_gives_all_the_same_whatever_their_priority() -> None:
    order = order_of(Scheduler.FAIR_CAPACITY, {0: 0, 4: 100})
    assert order.matters
    assert served(order, {0: 0, 4: 0}, 100) == {0: 50 * PACKET, 4: 50 * PACKET}


@given(st.lists(st.integers(0, 20), min_size=2, max_size=6))
def test_weighted_shares_are_inverse_to_priority_plus_one(priorities: list[int]) -> None:
    order = order_of(Scheduler.WEIGHTED_FAIR_QUEUEING, dict(enumerate(priorities)))
    sent = served(order, dict.fromkeys(range(len(priorities)), 0), 2000)
    times = [size * (priority + 1) for size, priority in zip(sent.values(), priorities, strict=True)]
    assert max(times) - min(times) <= PACKET * (max(priorities) + 1)


def test_a_stream_that_begins_late_has_no_arrears() -> None:
    order = order_of(Scheduler.FAIR_CAPACITY, {0: 100})
    sent = served(order, {0: 0}, 1000)
    order.prioritise(4, 100)
    order.begins(4, 0, sent)
    sent = served(order, {**sent, 4: 0}, 100)
    assert sent == {0: 1050 * PACKET, 4: 50 * PACKET}


def test_a_stream_that_pauses_saves_nothing_up() -> None:
    order = order_of(Scheduler.WEIGHTED_FAIR_QUEUEING, {0: 0, 4: 1})
    sent = served(order, {0: 0, 4: 0}, 30)
    others = served(order, {0: sent[0]}, 1000)
    order.begins(4, sent[4], others)
    after = served(order, {0: others[0], 4: sent[4]}, 300)
    assert after[0] - others[0] == 200 * PACKET
    assert after[4] - sent[4] == 100 * PACKET


def test_another_scheduler_acts_at_once() -> None:
    order = order_of(Scheduler.ROUND_ROBIN, {0: 2, 4: 1})
    order.use(Scheduler.PRIORITY)
    assert order.matters
    assert order.key(4, 10**6) < order.key(0, 0)


def test_streams_that_nobody_told_of_have_the_default_priority() -> None:
    order = order_of(Scheduler.PRIORITY, {0: 1, 4: 200})
    assert order.key(0, 0) < order.key(8, 0) < order.key(4, 0)
