"""The layer of framers: the chain and the handles, over a Flow that is a toy."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from framing_toys import CONNECTION, Greeting, Plain, ToyDatagramFlow, ToyFlow, framed, prefixed, shaken, turn
from hypothesis import given
from hypothesis import strategies as st

from neatpy import Preconnection
from neatpy.errors import CloneError, ConnectionError, Reason, SendError
from neatpy.framer import Framer
from neatpy.framers.delimiter import DelimiterFramer
from neatpy.framers.length_prefix import LengthPrefixFramer
from neatpy.framers.type_length_value import TypeLengthValueFramer
from neatpy.framing import FramedFlow
from neatpy.message import MessageContext
from neatpy.receive_buffer import Buffer


async def _started(self: Plain, connection: Any, handle: Any) -> None:
    handle.make_connection_ready()


def _sent(self: Plain, connection: Any, handle: Any, data: Any, context: Any, end: bool) -> Any:
    yield


@pytest.mark.parametrize(("name", "method"), [("start", _started), ("new_sent_message", _sent)])
def test_a_framer_with_a_method_that_is_not_plain_is_refused_at_once(name: str, method: Any) -> None:
    kind: type[Plain] = type("Hopeful", (Plain,), {name: method})
    inherited: type[Plain] = type("MoreHopeful", (kind,), {})
    for framer in (kind(), inherited()):
        with pytest.raises(TypeError, match=rf"Hopeful\.{name} is an async or generator function"):
            Preconnection(framers=[framer])
        with pytest.raises(TypeError):
            Preconnection().add_framer(framer)


# Receiving


@given(st.lists(st.binary(max_size=40)), st.data())
def test_any_segmentation_gives_the_same_messages(messages: list[bytes], data: st.DataObject) -> None:
    lower, _, above = framed(LengthPrefixFramer())
    stream = prefixed(*messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        lower.observer.received(stream[begin:end], None, False)
    lower.observer.finished()
    assert above.messages == messages
    assert above.events == ["finished"]


@given(st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"\n", b".")), max_size=12), st.data())
def test_stacked_framers_undo_each_other_in_any_segmentation(
    messages: list[bytes], data: st.DataObject
) -> None:
    sender, flow, _ = framed(LengthPrefixFramer(2), DelimiterFramer(), LengthPrefixFramer(1, "little"))
    for number, message in enumerate(messages):
        if b"\n" not in bytes([len(message)]):
            assert flow.send(message, MessageContext(), True, number)
    messages = [message for message in messages if len(message) != 10]
    lower, _, above = framed(LengthPrefixFramer(2), DelimiterFramer(), LengthPrefixFramer(1, "little"))
    stream = sender.sent
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        lower.observer.received(stream[begin:end], None, False)
    assert above.messages == messages


def test_a_thousand_messages_in_one_segment_all_arrive_in_one_go() -> None:
    lower, _, above = framed(LengthPrefixFramer())
    messages = [b"%d" % number for number in range(1000)]
    lower.observer.received(prefixed(*messages), None, False)
    assert above.messages == messages
    assert above.contexts == [None] * 1000, "whole Messages without metadata need no context from here"


def test_one_message_in_a_thousand_segments_arrives() -> None:
    lower, _, above = framed(LengthPrefixFramer())
    message = bytes(range(250)) * 4
    for byte in prefixed(message):
        lower.observer.received(bytes([byte]), None, False)
    assert above.messages == [message]


def test_earmarked_bytes_go_up_as_they_come_without_being_copied() -> None:
    lower, _, above = framed(LengthPrefixFramer())
    lower.observer.received((1 << 20).to_bytes(4, "big"), None, False)
    assert above.parts == []
    chunk = bytes(1 << 18)
    for _ in range(3):
        lower.observer.received(chunk, None, False)
    assert [part is chunk for part in above.parts] == [True] * 3
    lower.observer.received(chunk + prefixed(b"next"), None, False)
    assert above.messages == [bytes(1 << 20), b"next"]


def test_over_datagrams_each_must_hold_whole_frames() -> None:
    lower, _, above = framed(LengthPrefixFramer(), lower=ToyDatagramFlow())
    contexts = [MessageContext(), MessageContext()]
    lower.observer.received(prefixed(b"one", b"two"), contexts[0], True)
    lower.observer.received(b"", contexts[1], True)
    lower.observer.received(prefixed(b"three"), contexts[1], True)
    assert above.messages == [b"one", b"two", b"three"]
    assert None not in above.contexts
    assert len({id(context) for context in above.contexts}) == 3


async def test_a_frame_cut_off_by_its_datagram_fails_the_connection() -> None:
    lower, _, above = framed(LengthPrefixFramer(), lower=ToyDatagramFlow())
    lower.observer.received(prefixed(b"whole") + b"\0\0", MessageContext(), True)
    await turn()
    assert above.messages == [b"whole"]
    assert above.events[0][1].reason is Reason.DEFRAMING_FAILED


@pytest.mark.parametrize("rest", [b"\0", b"\0\0\0\5", b"\0\0\0\5abcd"])
async def test_an_end_inside_a_message_fails_the_connection(rest: bytes) -> None:
    lower, _, above = framed(LengthPrefixFramer())
    lower.observer.received(prefixed(b"whole") + rest, None, False)
    lower.observer.finished()
    assert above.events == [], "never from inside a call"
    await turn()
    assert above.messages == [b"whole"]
    ((name, error),) = above.events
    assert name == "closed"
    assert isinstance(error, ConnectionError)
    assert error.reason is Reason.DEFRAMING_FAILED
    assert lower.calls == ["abort"]


async def test_a_framer_that_raises_on_receiving_fails_the_connection_with_its_error() -> None:
    class Clumsy(Plain):
        def handle_received_data(self, connection: Any, handle: Any) -> None:
            raise ZeroDivisionError("oh")

    lower, flow, above = framed(Clumsy())
    lower.observer.received(b"x", None, False)
    await turn()
    ((_, error),) = above.events
    assert error.reason is Reason.DEFRAMING_FAILED
    assert isinstance(error.__cause__, ZeroDivisionError)
    with pytest.raises(SendError):
        flow.send(b"late", MessageContext(), True, 1)


@pytest.mark.parametrize("delivering", [False, True])
async def test_a_framer_that_gets_nowhere_fails_the_connection(delivering: bool) -> None:
    class Stuck(Plain):
        def handle_received_data(self, connection: Any, handle: Any) -> None:
            handle.parse(1)
            if delivering:
                handle.deliver(None, b"again")

    lower, _, above = framed(Stuck())
    lower.observer.received(b"x", None, False)
    await turn()
    assert above.events[0][1].reason is Reason.DEFRAMING_FAILED


def test_a_framer_is_called_again_only_when_it_can_get_what_it_asked_for() -> None:
    sizes: list[int] = []

    class Tens(Plain):
        def handle_received_data(self, connection: Any, handle: Any) -> None:
            data, context, end = handle.parse(10, 10)
            sizes.append(len(data))
            assert (context, end) == (None, False)
            handle.deliver(None, bytearray(data[::-1]))
            handle.advance_receive_cursor(10)

    lower, _, above = framed(Tens())
    for digit in b"0123456789" * 2 + b"01234":
        lower.observer.received(bytes([digit]), None, False)
    assert sizes == [10, 10]
    assert above.messages == [b"9876543210"] * 2


def test_a_cursor_may_be_advanced_over_bytes_that_are_to_come() -> None:
    class Skipping(Plain):
        def handle_received_data(self, connection: Any, handle: Any) -> None:
            (length,) = handle.parse(1, 1)[0]
            handle.advance_receive_cursor(1 + length)
            handle.deliver(None, b"skipped %d" % length)

    lower, _, above = framed(Skipping())
    for piece in (b"\5ab", b"c", b"de\2xy\0"):
        lower.observer.received(piece, None, False)
    assert above.messages == [b"skipped 5", b"skipped 2", b"skipped 0"]


def test_a_framer_may_make_one_message_of_the_whole_stream() -> None:
    lower, _, above = framed(Plain())
    lower.observer.received(b"all ", None, False)
    lower.observer.received(b"of it", None, False)
    assert above.messages == []
    lower.observer.finished()
    assert above.messages == [b"all of it"]
    assert above.events == ["finished"]


def test_a_subclass_that_looks_at_received_data_is_not_passed_by() -> None:
    class Counting(LengthPrefixFramer):
        seen = 0

        def handle_received_data(self, connection: Any, handle: Any) -> None:
            type(self).seen += 1
            super().handle_received_data(connection, handle)

    lower, _, above = framed(Counting())
    lower.observer.received(prefixed(b"a", b"b", b"c"), None, False)
    assert above.messages == [b"a", b"b", b"c"]
    assert Counting.seen == 3


@given(
    st.lists(st.binary(max_size=6)),
    st.lists(st.tuples(st.sampled_from(["peek", "take", "chunk", "skip"]), st.integers(0, 9))),
)
def test_a_buffer_gives_what_was_put_in_however_it_is_asked(
    chunks: list[bytes], asked: list[tuple[str, int]]
) -> None:
    buffer = Buffer()
    for chunk in chunks:
        buffer.append(chunk)
    rest = b"".join(chunks)
    for how, length in asked:
        there = min(length, len(rest))
        if how == "peek":
            assert buffer.peek(there) == rest[:there]
            continue
        if how == "take":
            assert buffer.take(there) == rest[:there]
        elif how == "chunk":
            taken = buffer.take_chunk(length)
            assert rest.startswith(taken)
            assert bool(taken) == bool(there)
            there = len(taken)
        else:
            assert buffer.skip(length) == length - there
        rest = rest[there:]
        assert buffer.size == len(rest)


async def test_what_a_framer_must_not_ask_of_its_handle_fails_the_connection() -> None:
    class Greedy(Plain):
        def __init__(self, *lengths: int) -> None:
            self.lengths = lengths

        def handle_received_data(self, connection: Any, handle: Any) -> None:
            for length in self.lengths:
                handle.deliver_and_advance_receive_cursor(None, length, True)

    for lengths, kind in (((-1,), ValueError), ((10, 10), RuntimeError)):
        lower, _, above = framed(Greedy(*lengths))
        lower.observer.received(b"x", None, False)
        await turn()
        assert isinstance(above.events[0][1].__cause__, kind)


def test_what_is_known_of_a_datagram_is_known_of_its_messages() -> None:
    framer = TypeLengthValueFramer(1, 1)
    lower, _, above = framed(framer, lower=ToyDatagramFlow())
    inbound = MessageContext()
    inbound.ecn, inbound.early_data = 3, True
    lower.observer.received(b"\7\1a\x08\1b", inbound, True)
    assert above.messages == [b"a", b"b"]
    first, second = above.contexts
    assert first is not None
    assert second is not None
    assert (first.ecn, first.early_data, first.get(framer, "type")) == (3, True, 7)
    assert (second.ecn, second.get(framer, "type")) == (3, 8)


# Backpressure


@pytest.mark.parametrize(
    "framers", [[LengthPrefixFramer()], [DelimiterFramer(b"|"), LengthPrefixFramer()]], ids=["one", "stacked"]
)
async def test_a_pause_in_a_burst_stops_at_once_and_resuming_loses_nothing(framers: list[Framer]) -> None:
    lower, flow, above = framed(*framers)
    messages = [b"%d" % number for number in range(100)]
    frames = [prefixed(message) for message in messages]
    if len(framers) == 2:
        frames = [each + b"|" for each in frames]
    above.pause_after = 3
    lower.observer.received(b"".join(frames[:50]), None, False)
    lower.observer.received(b"".join(frames[50:]), None, False)
    lower.observer.finished()
    assert above.messages == messages[:3]
    assert lower.calls[0] == "pause"
    above.pause_after = 60
    flow.resume_receiving()
    assert len(above.messages) == 3, "never from inside a call"
    await turn()
    assert above.messages == messages[:60]
    assert above.events == []
    assert "resume" not in lower.calls
    above.pause_after = None
    flow.resume_receiving()
    flow.pause_receiving()
    await turn()
    assert len(above.messages) == 60
    flow.resume_receiving()
    await turn()
    assert above.messages == messages
    assert above.events == ["finished"]
    assert lower.calls[-1] == "resume"


@pytest.mark.parametrize("stacked", [False, True], ids=["one", "stacked"])
@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on", "still pauses"])
async def test_what_arrived_whole_is_delivered_before_the_connection_breaks(
    goes_on: bool, stacked: bool
) -> None:
    messages = [b"a", b"b", b"c"]
    frames = [prefixed(message) for message in messages]
    lower, _, above = framed(LengthPrefixFramer())
    if stacked:
        lower, _, above = framed(DelimiterFramer(b"|"), LengthPrefixFramer())
        frames = [frame + b"|" for frame in frames]
    above.pause_after = 1
    lower.observer.received(b"".join(frames), None, False)
    assert above.messages == messages[:1]
    if goes_on:
        above.pause_after = None
    error = ConnectionError("reset", Reason.CONNECTION_ABORTED)
    lower.observer.closed(error)
    assert above.messages == messages
    assert above.events == [("closed", error)]


# The rest of the contract


async def test_a_sibling_of_ours_comes_without_framers_and_one_of_the_peers_with_them() -> None:
    lower, flow, above = framed(LengthPrefixFramer())
    with pytest.raises(CloneError):
        flow.open_sibling(CONNECTION)
    lower.siblings = [ToyFlow()]
    plain = lower.siblings[0]
    assert flow.open_sibling(CONNECTION) is plain
    opened = ToyFlow()
    lower.observer.sibling(opened)
    (sibling,) = above.siblings
    opened.observer.received(prefixed(b"on the stream"), None, False)
    assert above.messages == [b"on the stream"]
    assert sibling is not flow


async def test_a_stream_of_the_peers_is_announced_after_its_handshake_or_never() -> None:
    lower, _, above = await shaken(Greeting())
    good, bad = ToyFlow(), ToyFlow()
    lower.observer.sibling(good)
    lower.observer.sibling(bad)
    assert above.siblings == []
    good.observer.received(b"hello!\1x", None, False)
    bad.observer.received(b"rubbish", None, False)
    assert len(above.siblings) == 1
    await turn()
    assert above.messages == [b"x"]
    assert "abort" in bad.calls


def test_everything_else_is_the_business_of_the_flow_below() -> None:
    lower, flow, above = framed(LengthPrefixFramer(2), DelimiterFramer(b"\r\n", 100))
    assert flow.stack is lower.stack
    assert flow.paths == ((flow.local_address, flow.remote_address),)
    assert flow.statistics() == flow.security() == {}
    flow.apply("conn_priority", 1)
    assert flow.read("send_msg_max_len") == 100
    lower.limit = 50
    assert flow.read("recv_msg_max_len") == 46
    lower.limit = None
    assert flow.read("send_msg_max_len") is None
    lower.observer.soft_error(SendError("x", Reason.TIMEOUT))
    lower.observer.path_changed()
    lower.observer.writable()
    assert above.events == ["soft_error", "path_changed", "writable"]
    flow.finish()
    flow.resume_receiving()
    assert lower.calls == ["finish", "resume"]
    with pytest.raises(ValueError, match="at least one framer"):
        FramedFlow(lower, [], CONNECTION)


class Shouting(LengthPrefixFramer):
    """Has a say in what is sent, so that the shortcut of its base may not be taken."""

    __slots__ = ()

    def new_sent_message(self, connection: Any, handle: Any, data: Any, context: Any, end: bool) -> None:
        super().new_sent_message(connection, handle, bytes(data).upper(), context, end)


@given(data=st.binary(max_size=300))
def test_the_shortcut_for_sending_makes_the_same_bytes(data: bytes) -> None:
    for framer in (LengthPrefixFramer(), LengthPrefixFramer(2, "little"), TypeLengthValueFramer()):
        quick_lower, quick, _ = framed(framer)
        slow_lower, slow, _ = framed(framer)
        assert quick._whole_frame is not None
        slow._whole_frame = None
        assert quick.send(data, MessageContext(), True, 1)
        assert slow.send(data, MessageContext(), True, 1)
        assert quick_lower.sent == slow_lower.sent
        together_lower, together, _ = framed(framer)
        assert together.send_several([data, data], MessageContext(), 1)
        assert together_lower.sent == slow_lower.sent * 2


def test_a_derived_framer_that_changes_what_is_sent_is_heard() -> None:
    lower, flow, _ = framed(Shouting())
    assert flow.send(b"abc", MessageContext(), True, 1)
    assert flow.send_several([b"d", b"e"], MessageContext(), 2)
    assert lower.sent == b"\0\0\0\3ABC\0\0\0\1D\0\0\0\1E"


class Marked(LengthPrefixFramer):
    """The same format with the highest bit set, by overriding no more than what makes and reads the header."""

    __slots__ = ()

    def make_header(self, length: int, context: MessageContext) -> bytes:
        return (length | 1 << 31).to_bytes(4, "big")

    def payload_length(self, data: bytes, offset: int) -> int:
        return super().payload_length(data, offset) & 0x7FFFFFFF


class Numbered(LengthPrefixFramer):
    """Says with each Message how long its header says it is."""

    __slots__ = ()

    def metadata(self, data: bytes, offset: int) -> dict[str, object] | None:
        return {"length": self.payload_length(data, offset)}


def test_no_shortcut_goes_past_a_method_that_a_derived_framer_overrides() -> None:
    lower, flow, above = framed(Marked())
    wire = b"\x80\0\0\3abc"
    assert flow.send(b"abc", MessageContext(), True, 1)
    assert flow.send_several([b"abc"], MessageContext(), 2)
    assert lower.sent == wire * 2
    for _ in range(3):
        lower.observer.received(wire, None, False, True)
    lower.observer.received(wire * 2, None, False, True)
    assert above.messages == [b"abc"] * 5
    framer = Numbered()
    lower, flow, above = framed(framer)
    for _ in range(3):
        lower.observer.received(b"\0\0\0\3abc", None, False, True)
    assert [context and context.get(framer, "length") for context in above.contexts] == [3, 3, 3]


@given(payloads=st.lists(st.binary(max_size=40), max_size=12), cuts=st.lists(st.integers(0, 40), max_size=30))
def test_frames_that_come_alone_and_frames_in_pieces_are_the_same_messages(
    payloads: list[bytes], cuts: list[int]
) -> None:
    for framer in (LengthPrefixFramer(2), DelimiterFramer(b"--"), TypeLengthValueFramer(1, 1)):
        sender_lower, sender, _ = framed(framer)
        frames: list[bytes] = []
        for payload in payloads:
            before = len(sender_lower.sent)
            with contextlib.suppress(SendError):  # the delimiter in a payload
                sender.send(payload, MessageContext(), True, 1)
                frames.append(sender_lower.sent[before:])
        lower, _, above = framed(framer)
        cut = iter(cuts)
        for whole in frames:
            at = next(cut, 0)
            for piece in (whole[:at], whole[at:]):
                if piece:
                    lower.observer.received(piece, None, False, True)
        alone_lower, _, alone = framed(framer)
        alone_lower.observer.received(b"".join(frames), None, False, True)
        assert above.messages == alone.messages
        assert len(above.messages) == len(frames)


def test_a_frame_that_comes_alone_is_not_delivered_after_close() -> None:
    lower, flow, above = framed(LengthPrefixFramer())
    for text in (b"\0\0\0\1a", b"\0\0\0\1b"):
        lower.observer.received(text, None, False, True)
    flow.close()
    lower.observer.received(b"\0\0\0\1c", None, False, True)
    assert above.messages == [b"a", b"b"]


def test_a_frame_that_comes_alone_is_refused_as_any_other_if_it_is_too_long() -> None:
    lower, _, above = framed(LengthPrefixFramer(max_length=2))
    lower.observer.received(b"\0\0\0\1a", None, False, True)
    lower.observer.received(b"\0\0\0\2bb", None, False, True)
    with asyncio.Runner() as runner:
        runner.run(_receive_and_wait(lower, b"\0\0\0\3ccc"))
    assert above.messages == [b"a", b"bb"]
    ((name, error),) = above.events
    assert name == "closed"
    assert error.reason is Reason.DEFRAMING_FAILED


async def _receive_and_wait(lower: ToyFlow, data: bytes) -> None:
    lower.observer.received(data, None, False, True)
    await turn()


def test_a_framer_that_lets_pass_lets_pass_what_looks_like_its_frame() -> None:
    lower, flow, above = framed(LengthPrefixFramer())
    for _ in range(2):
        lower.observer.received(b"\0\0\0\1a", None, False, True)
    flow._top.start_passthrough()
    lower.observer.received(b"\0\0\0\1a", None, True, True)
    assert flow.send(b"plain", MessageContext(), True, 1)
    assert above.messages == [b"a", b"a", b"\0\0\0\1a"]
    assert lower.sent == b"plain"


def test_one_message_too_large_among_several_takes_nothing() -> None:
    lower, flow, _ = framed(LengthPrefixFramer(1))
    with pytest.raises(SendError):
        flow.send_several([b"fits", b"x" * 256], MessageContext(), 1)
    assert lower.sent == b""
