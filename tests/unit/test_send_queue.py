"""The order in which Messages leave a Connection's queue, without sockets or a running loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatpy.message import MessageContext
from neatpy.send_queue import Part, SendQueue
from neatpy.sending import SendFuture


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Sends:
    """Makes parts and remembers the data by token."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue = SendQueue()

    def add(
        self,
        data: bytes,
        context: MessageContext | None = None,
        *,
        now: float = 0.0,
        end_of_message: bool = True,
        **properties: object,
    ) -> Part:
        context = context or MessageContext(**properties)
        token = SendFuture(loop=self.loop)
        token.context, token.size, token.end_of_message = context, len(data), end_of_message
        part = Part(data, context.copy(), token)
        self.queue.add(part, now)
        return part

    def leaving(self) -> list[bytes]:
        left = []
        while (part := self.queue.next()) is not None:
            left.append(bytes(part.data))
        return left


@pytest.fixture
def sends(loop: asyncio.AbstractEventLoop) -> Sends:
    return Sends(loop)


def test_messages_of_one_priority_leave_in_order(sends: Sends) -> None:
    for data in (b"a", b"b", b"c"):
        sends.add(data)
    assert sends.leaving() == [b"a", b"b", b"c"]


def test_a_lower_priority_value_leaves_first(sends: Sends) -> None:
    sends.add(b"bulk", msg_priority=200)
    sends.add(b"normal")
    sends.add(b"urgent", msg_priority=1)
    assert sends.leaving() == [b"urgent", b"normal", b"bulk"]


def test_a_final_message_leaves_last_whatever_its_priority(sends: Sends) -> None:
    sends.add(b"goodbye", final=True, msg_priority=0)
    sends.add(b"bulk", msg_priority=10_000)
    assert sends.leaving() == [b"bulk", b"goodbye"]


def test_parts_of_a_message_stay_together_although_others_are_sent_between(sends: Sends) -> None:
    context = MessageContext()
    sends.add(b"1", context, end_of_message=False)
    sends.add(b"other")
    sends.add(b"2", context)
    assert sends.leaving() == [b"1", b"2", b"other"]


def test_nothing_overtakes_a_message_that_has_left_in_part(sends: Sends) -> None:
    context = MessageContext()
    sends.add(b"1", context, end_of_message=False)
    assert sends.leaving() == [b"1"]
    sends.add(b"urgent", msg_priority=0)
    assert sends.leaving() == []
    assert sends.queue.blocked_by_open_message
    sends.add(b"2", context)
    assert sends.leaving() == [b"2", b"urgent"]
    assert not sends.queue.blocked_by_open_message


def test_a_message_expires_when_its_lifetime_ends_in_the_queue(sends: Sends) -> None:
    part = sends.add(b"old news", now=10.0, msg_lifetime=2.0)
    sends.add(b"timeless", now=10.0)
    assert sends.queue.next_deadline() == 12.0
    assert sends.queue.expire(11.9) == []
    assert sends.queue.expire(12.0) == [part]
    assert sends.queue.next_deadline() == math.inf
    assert sends.leaving() == [b"timeless"]


def test_a_message_that_has_left_in_part_does_not_expire(sends: Sends) -> None:
    context = MessageContext(msg_lifetime=1.0)
    sends.add(b"1", context, end_of_message=False)
    assert sends.leaving() == [b"1"]
    sends.add(b"2", context)
    assert sends.queue.expire(5.0) == []
    assert sends.leaving() == [b"2"]


def test_every_part_of_an_expired_message_is_reported_and_later_ones_are_known_as_given_up(
    sends: Sends,
) -> None:
    context = MessageContext(msg_lifetime=1.0)
    first = sends.add(b"1", context, end_of_message=False)
    second = sends.add(b"2", context, end_of_message=False)
    assert sends.queue.expire(1.0) == [first, second]
    assert sends.queue.was_given_up(context)
    sends.queue.end_given_up(context)
    assert not sends.queue.was_given_up(context)
    assert len(sends.queue) == 0


def test_clearing_gives_everything_in_the_order_it_would_have_left(sends: Sends) -> None:
    late = sends.add(b"late", msg_priority=200)
    early = sends.add(b"early")
    final = sends.add(b"final", final=True)
    assert sends.queue.clear() == [early, late, final]
    assert len(sends.queue) == 0
    assert sends.queue.next() is None


@given(st.lists(st.integers(0, 5), max_size=40))
def test_leaving_is_a_stable_sort_by_priority(priorities: list[int]) -> None:
    loop = asyncio.new_event_loop()
    try:
        sends = Sends(loop)
        for number, priority in enumerate(priorities):
            sends.add(str(number).encode(), msg_priority=priority)
        expected = sorted(range(len(priorities)), key=lambda number: priorities[number])
        assert sends.leaving() == [str(number).encode() for number in expected]
    finally:
        loop.close()


def test_giving_up_what_never_ends_takes_it_out_if_nothing_of_it_has_left(sends: Sends) -> None:
    begun = sends.add(b"begun", MessageContext(), end_of_message=False)
    sends.add(b"whole")
    assert sends.queue.give_up_open(as_they_are=False) == [begun]
    assert sends.leaving() == [b"whole"]


def test_giving_up_what_has_left_in_part_takes_out_what_waits_for_its_end(sends: Sends) -> None:
    begun = sends.add(b"begun", MessageContext(), end_of_message=False)
    assert sends.leaving() == [b"begun"]
    whole = sends.add(b"whole")
    part = sends.add(b"more", begun.token.context, end_of_message=False)
    assert sends.queue.give_up_open(as_they_are=False) == [part, whole]
    assert not sends.queue
    assert not sends.queue.blocked_by_open_message


def test_what_may_go_as_it_is_goes_with_all_behind_it(sends: Sends) -> None:
    context = MessageContext()
    sends.add(b"1", context, end_of_message=False)
    assert sends.leaving() == [b"1"]
    sends.add(b"3")
    sends.add(b"2", context, end_of_message=False)
    assert sends.queue.give_up_open(as_they_are=True) == []
    assert sends.leaving() == [b"2", b"3"]


def test_refused_messages_are_taken_out_with_the_reason(sends: Sends) -> None:
    wrong = sends.add(b"wrong", MessageContext(msg_ordered=True), end_of_message=False)
    sends.add(b"right")
    refused = sends.queue.refuse(lambda properties: "no order" if properties.msg_ordered else None)
    assert refused == [(wrong, "no order")]
    assert not sends.queue.belongs_to_open_message(wrong.token.context)
    assert sends.leaving() == [b"right"]
