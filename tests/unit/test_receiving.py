"""How arriving data answer receives, without sockets."""

from __future__ import annotations

import asyncio
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatpy.errors import Reason, ReceiveError
from neatpy.message import Message
from neatpy.receiving import WHOLE, ReceiveQueue
from neatpy.system.turns import turns

LIMIT = 1000


class Receives:
    """A queue whose data come in turns of their own, as from a socket."""

    def __init__(self, limit: int = LIMIT) -> None:
        loop = asyncio.get_running_loop()
        self.queue = ReceiveQueue(loop, limit)
        self.turn = turns.of(loop)

    def ask(self, minimum: int = WHOLE, maximum: int = sys.maxsize) -> asyncio.Future[Message]:
        return self.queue.request(minimum, maximum)

    def now(self, minimum: int = WHOLE, maximum: int = sys.maxsize) -> Message:
        return self.ask(minimum, maximum).result()

    def come(self, data: bytes, end_of_message: bool) -> None:
        self.turn.active = True
        self.queue.received(data, None, end_of_message)
        self.turn.active = False
        self.turn.end()


@pytest.fixture
async def receives() -> Receives:
    return Receives()


async def test_a_whole_message_answers_whoever_waits(receives: Receives) -> None:
    waiter = receives.ask()
    assert not waiter.done()
    receives.come(b"hello", True)
    message = await waiter
    assert (bytes(message), message.end_of_message) == (b"hello", True)


async def test_messages_wait_for_receives_in_order(receives: Receives) -> None:
    for data in (b"a", b"b"):
        receives.come(data, True)
    assert [bytes(receives.now()), bytes(receives.now())] == [b"a", b"b"]


async def test_without_a_minimum_parts_are_not_delivered(receives: Receives) -> None:
    waiter = receives.ask()
    receives.come(b"par", False)
    assert not waiter.done()
    receives.come(b"tial", True)
    assert bytes(waiter.result()) == b"partial"


async def test_with_a_minimum_a_part_comes_as_soon_as_it_is_long_enough(receives: Receives) -> None:
    waiter = receives.ask(minimum=3)
    receives.come(b"ab", False)
    assert not waiter.done()
    receives.come(b"c", False)
    assert (bytes(waiter.result()), waiter.result().end_of_message) == (b"abc", False)


async def test_all_parts_of_a_message_share_one_context(receives: Receives) -> None:
    first = receives.ask(minimum=1)
    receives.come(b"a", False)
    second = receives.ask(minimum=1)
    receives.come(b"b", True)
    assert first.result().context is second.result().context
    assert second.result().end_of_message


async def test_a_message_above_the_maximum_comes_in_parts(receives: Receives) -> None:
    receives.come(b"0123456789", True)
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
    receives.come(b"x" * 600, False)
    assert not waiter.done()
    receives.come(b"x" * 600, False)
    assert len(waiter.result()) == LIMIT
    rest = receives.ask()
    receives.come(b"", True)
    assert (len(rest.result()), rest.result().end_of_message) == (200, True)


async def test_the_last_part_may_be_empty(receives: Receives) -> None:
    first = receives.ask(minimum=1)
    receives.come(b"all", False)
    last = receives.ask(minimum=1)
    receives.come(b"", True)
    assert bytes(first.result()) == b"all"
    assert (bytes(last.result()), last.result().end_of_message) == (b"", True)


async def test_the_end_of_a_byte_stream_ends_its_one_message(receives: Receives) -> None:
    waiter = receives.ask()
    receives.come(b"every", False)
    receives.come(b"thing", False)
    receives.queue.finish_receiving(as_end_of_message=True)
    receives.queue.wake()
    message = waiter.result()
    assert (bytes(message), message.end_of_message, message.context.final) == (b"everything", True, True)
    with pytest.raises(ReceiveError) as caught:
        await receives.ask()
    assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_the_end_of_an_empty_stream_is_an_error(receives: Receives) -> None:
    waiter = receives.ask()
    receives.queue.finish_receiving(as_end_of_message=True)
    receives.queue.wake()
    with pytest.raises(ReceiveError):
        await waiter


async def test_whole_messages_are_still_delivered_after_a_failure(receives: Receives) -> None:
    receives.come(b"in time", True)
    receives.come(b"half of", False)
    receives.queue.end_receiving(lambda _: ReceiveError("reset", Reason.CONNECTION_ABORTED))
    assert bytes(receives.now()) == b"in time"
    with pytest.raises(ReceiveError) as caught:
        await receives.ask()
    assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_cancelling_a_receive_withdraws_it(receives: Receives) -> None:
    first, second = receives.ask(), receives.ask()
    first.cancel()
    receives.come(b"for the second", True)
    assert bytes(second.result()) == b"for the second"


async def test_a_task_that_waits_is_resumed_in_the_turn_in_which_its_message_comes(
    receives: Receives,
) -> None:
    got: list[bytes] = []

    async def reader() -> None:
        got.append(bytes(await receives.ask()))

    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(receives.come, b"hello", True)
    asyncio.get_running_loop().call_soon(lambda: got.append(b"later"))
    await task
    await asyncio.sleep(0)
    assert got == [b"hello", b"later"]


async def test_a_withdrawn_receive_does_not_keep_another_from_what_is_there(receives: Receives) -> None:
    for_the_whole = receives.ask()
    receives.come(b"part", False)
    for_the_whole.cancel()
    assert bytes(receives.now(1)) == b"part"


async def test_cancelling_between_the_arrival_and_the_end_of_the_turn_loses_nothing(
    receives: Receives,
) -> None:
    first, second = receives.ask(), receives.ask()
    for data in (b"one", b"two"):
        receives.queue.received(data, None, True)
    first.cancel()
    receives.queue.wake()
    assert not second.done() or bytes(second.result()) == b"one"
    receives.queue.wake()
    assert bytes(second.result()) == b"one"
    assert bytes(receives.now()) == b"two"


async def test_a_receive_in_between_does_not_overtake(receives: Receives) -> None:
    first = receives.ask()
    receives.queue.received(b"one", None, True)
    receives.queue.received(b"two", None, True)
    second = receives.ask()
    assert not first.done()
    assert not second.done()
    receives.queue.wake()
    receives.queue.wake()
    assert [bytes(first.result()), bytes(second.result())] == [b"one", b"two"]


async def test_a_part_that_was_not_handed_out_is_joined_with_what_came_after_it(receives: Receives) -> None:
    waiter = receives.ask(minimum=1)
    receives.queue.received(b"one ", None, False)
    waiter.cancel()
    receives.queue.received(b"two", None, True)
    receives.queue.wake()
    message = receives.now()
    assert (bytes(message), message.end_of_message) == (b"one two", True)


async def test_full_and_drained_follow_the_bytes_that_wait(receives: Receives) -> None:
    assert not receives.queue.full
    receives.come(b"x" * 800, True)
    assert receives.queue.full
    assert not receives.queue.drained
    receives.now()
    assert receives.queue.drained


async def test_little_is_read_ahead_but_all_of_a_message_that_somebody_waits_for(receives: Receives) -> None:
    queue = receives.queue
    queue._ahead = 100
    receives.come(bytes(99), False)
    assert not queue.sated
    receives.come(bytes(1), False)
    assert queue.sated
    assert queue._paused
    assert not queue.drained
    waiter = receives.ask()
    assert not queue._paused, "who asks for the whole Message lets it come"
    receives.come(bytes(LIMIT - 101), False)
    assert not queue.sated
    receives.come(bytes(1), True)
    assert len(waiter.result()) == LIMIT


async def test_many_tiny_messages_count_for_more_than_their_bytes(receives: Receives) -> None:
    for _ in range(10):
        receives.come(b"x", True)
    assert receives.queue.full


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_a_callback_is_called_in_the_turn_and_what_it_raises_is_told_to_the_loop(
    receives: Receives,
) -> None:
    told: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    heard: list[bytes] = []

    def hear(answer: asyncio.Future[Message]) -> None:
        heard.append(bytes(answer.result()))
        raise OverflowError("too much")

    receives.ask().add_done_callback(hear)
    second = receives.ask()
    receives.come(b"one", True)
    assert heard == [b"one"]
    assert isinstance(told[0]["exception"], OverflowError)
    assert "hear" in str(told[0]["message"])
    receives.come(b"two", True)
    assert bytes(second.result()) == b"two"


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_several_callbacks_of_one_receive_are_called_in_order(receives: Receives) -> None:
    heard: list[str] = []
    both = asyncio.Event()
    answer = receives.ask()
    answer.add_done_callback(lambda _: heard.append("first"))
    answer.add_done_callback(lambda _: both.set())
    receives.come(b"one", True)
    await both.wait()
    assert heard == ["first"]


@given(
    chunks=st.lists(st.binary(max_size=50), min_size=1, max_size=20),
    maxima=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    minimum=st.integers(1, 20) | st.just(WHOLE),
)
async def test_any_cutting_gives_back_the_same_bytes(
    chunks: list[bytes], maxima: list[int], minimum: int
) -> None:
    receives = Receives(limit=200)
    got: list[Message] = []
    waiting: list[asyncio.Future[Message]] = []

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
        receives.come(chunk, number == len(chunks) - 1)
    collect()
    assert b"".join(bytes(message) for message in got) == b"".join(chunks)
    assert [message.end_of_message for message in got] == [False] * (len(got) - 1) + [True]


@pytest.mark.parametrize("taken", [False, True])
async def test_a_message_that_the_peer_gives_up_has_no_end_and_the_next_one_comes(
    receives: Receives, taken: bool
) -> None:
    receives.come(b"before", True)
    receives.come(b"begun", False)
    assert bytes(receives.now()) == b"before"
    begun = receives.now(minimum=5) if taken else None
    waiter = receives.ask()
    receives.queue.abandoned()
    receives.come(b"after", True)
    message = await waiter
    assert (bytes(message), message.end_of_message) == (b"after", True)
    assert begun is None or not begun.end_of_message
    assert receives.queue.held == 0
    receives.queue.abandoned()  # there is none: nothing happens
    assert receives.queue.held == 0
