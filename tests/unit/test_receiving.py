"""How arriving data answer receives, without sockets."""

from __future__ import annotations

import asyncio
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatpy.errors import Reason, ReceiveError
from neatpy.message import Message, MessageContext
from neatpy.receiving import ReceiveFuture, ReceiveQueue

LIMIT = 1000


class Receives:
    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.queue = ReceiveQueue(limit, MessageContext)

    def ask(self, minimum: int = 0, maximum: int = sys.maxsize) -> ReceiveFuture:
        waiter = ReceiveFuture(loop=asyncio.get_running_loop())
        waiter.queue, waiter.minimum, waiter.maximum = self.queue, minimum, min(maximum, self.limit)
        self.queue.request(waiter)
        return waiter

    def now(self, minimum: int = 0, maximum: int = sys.maxsize) -> Message:
        return self.ask(minimum, maximum).result()


@pytest.fixture
async def receives() -> Receives:
    return Receives()


async def test_a_whole_message_answers_whoever_waits(receives: Receives) -> None:
    waiter = receives.ask()
    assert not waiter.done()
    receives.queue.received(b"hello", None, True)
    message = await waiter
    assert (bytes(message), message.end_of_message) == (b"hello", True)


async def test_messages_wait_for_receives_in_order(receives: Receives) -> None:
    for data in (b"a", b"b"):
        receives.queue.received(data, None, True)
    assert [bytes(receives.now()), bytes(receives.now())] == [b"a", b"b"]


async def test_without_a_minimum_parts_are_not_delivered(receives: Receives) -> None:
    waiter = receives.ask()
    receives.queue.received(b"par", None, False)
    assert not waiter.done()
    receives.queue.received(b"tial", None, True)
    assert bytes(waiter.result()) == b"partial"


async def test_with_a_minimum_a_part_comes_as_soon_as_it_is_long_enough(receives: Receives) -> None:
    waiter = receives.ask(minimum=3)
    receives.queue.received(b"ab", None, False)
    assert not waiter.done()
    receives.queue.received(b"c", None, False)
    assert (bytes(waiter.result()), waiter.result().end_of_message) == (b"abc", False)


async def test_all_parts_of_a_message_share_one_context(receives: Receives) -> None:
    first = receives.ask(minimum=1)
    receives.queue.received(b"a", None, False)
    second = receives.ask(minimum=1)
    receives.queue.received(b"b", None, True)
    assert first.result().context is second.result().context
    assert second.result().end_of_message


async def test_a_message_above_the_maximum_comes_in_parts(receives: Receives) -> None:
    receives.queue.received(b"0123456789", None, True)
    parts = [receives.now(maximum=4) for _ in range(3)]
    assert [(bytes(part), part.end_of_message) for part in parts] == [
        (b"0123", False),
        (b"4567", False),
        (b"89", True),
    ]
    assert len({id(part.context) for part in parts}) == 1


async def test_a_message_above_the_receive_limit_comes_in_parts_without_being_asked(
    receives: Receives,
) -> None:
    waiter = receives.ask()
    receives.queue.received(b"x" * 600, None, False)
    assert not waiter.done()
    receives.queue.received(b"x" * 600, None, False)
    assert len(waiter.result()) == LIMIT
    rest = receives.ask()
    receives.queue.received(b"", None, True)
    assert (len(rest.result()), rest.result().end_of_message) == (200, True)


async def test_the_last_part_may_be_empty(receives: Receives) -> None:
    first = receives.ask(minimum=1)
    receives.queue.received(b"all", None, False)
    last = receives.ask(minimum=1)
    receives.queue.received(b"", None, True)
    assert bytes(first.result()) == b"all"
    assert (bytes(last.result()), last.result().end_of_message) == (b"", True)


async def test_the_end_of_a_byte_stream_ends_its_one_message(receives: Receives) -> None:
    waiter = receives.ask()
    receives.queue.received(b"every", None, False)
    receives.queue.received(b"thing", None, False)
    receives.queue.finished(as_end_of_message=True)
    message = waiter.result()
    assert (bytes(message), message.end_of_message, message.context.final) == (b"everything", True, True)
    with pytest.raises(ReceiveError) as caught:
        await receives.ask()
    assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_the_end_of_an_empty_stream_is_an_error(receives: Receives) -> None:
    waiter = receives.ask()
    receives.queue.finished(as_end_of_message=True)
    with pytest.raises(ReceiveError):
        await waiter


async def test_whole_messages_are_still_delivered_after_a_failure(receives: Receives) -> None:
    receives.queue.received(b"in time", None, True)
    receives.queue.received(b"half of", None, False)
    receives.queue.end(lambda: ReceiveError("reset", Reason.CONNECTION_ABORTED))
    assert bytes(receives.now()) == b"in time"
    with pytest.raises(ReceiveError) as caught:
        await receives.ask()
    assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_cancelling_a_receive_withdraws_it(receives: Receives) -> None:
    first, second = receives.ask(), receives.ask()
    first.cancel()
    receives.queue.received(b"for the second", None, True)
    assert bytes(second.result()) == b"for the second"


async def test_cancelling_a_task_between_answer_and_wake_up_loses_nothing(receives: Receives) -> None:
    async def reader() -> Message:
        return await receives.ask()

    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    receives.queue.received(b"precious", None, True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bytes(receives.now()) == b"precious"


async def test_a_part_that_is_put_back_is_joined_with_what_came_after_it(receives: Receives) -> None:
    async def reader() -> Message:
        return await receives.ask(minimum=1)

    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    receives.queue.received(b"one ", None, False)
    task.cancel()
    receives.queue.received(b"two", None, True)
    with pytest.raises(asyncio.CancelledError):
        await task
    message = receives.now()
    assert (bytes(message), message.end_of_message) == (b"one two", True)


async def test_full_and_drained_follow_the_bytes_that_wait(receives: Receives) -> None:
    assert not receives.queue.full
    receives.queue.received(b"x" * 800, None, True)
    assert receives.queue.full
    assert not receives.queue.drained
    receives.now()
    assert receives.queue.drained


async def test_many_tiny_messages_count_for_more_than_their_bytes(receives: Receives) -> None:
    for _ in range(10):
        receives.queue.received(b"x", None, True)
    assert receives.queue.full


@given(
    chunks=st.lists(st.binary(max_size=50), min_size=1, max_size=20),
    maxima=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    minimum=st.integers(0, 20),
)
async def test_any_cutting_gives_back_the_same_bytes(
    chunks: list[bytes], maxima: list[int], minimum: int
) -> None:
    receives = Receives(limit=200)
    got: list[Message] = []
    waiting: list[ReceiveFuture] = []

    def collect() -> None:
        while True:
            if not waiting:
                waiting.append(receives.ask(minimum, maxima[len(got) % len(maxima)]))
            if not waiting[0].done():
                return
            got.append(waiting.pop().result())
            if got[-1].end_of_message:
                return

    for number, chunk in enumerate(chunks):
        collect()
        receives.queue.received(chunk, None, number == len(chunks) - 1)
    collect()
    assert b"".join(bytes(message) for message in got) == b"".join(chunks)
    assert [message.end_of_message for message in got] == [False] * (len(got) - 1) + [True]
