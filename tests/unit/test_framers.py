"""The framers in the box, each by what it puts on the wire and what it makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from framing_toys import Above, ToyFlow, framed, turn
from hypothesis import given
from hypothesis import strategies as st

import neatpy.framers
from neatpy.errors import Reason, SendError
from neatpy.framer import Framer
from neatpy.framers import DelimiterFramer, HeaderFramer, LengthPrefixFramer, TypeLengthValueFramer
from neatpy.message import MessageContext


def wire(framer: Framer, *messages: bytes, context: MessageContext | None = None) -> bytes:
    lower, flow, _ = framed(framer)
    for message in messages:
        assert flow.send(message, context or MessageContext(), True, None)
    return lower.sent


def unwired(framer: Framer, *segments: bytes) -> Above:
    lower, _, above = framed(framer)
    for segment in segments:
        lower.observer.received(segment, None, False)
    return above


async def end_of(framer: Framer, *segments: bytes, finished: bool = False) -> Any:
    """The error that the Connection ends with."""
    lower, _, above = framed(framer)
    for segment in segments:
        lower.observer.received(segment, None, False)
    if finished:
        lower.observer.finished()
    await turn()
    ((name, error),) = above.events
    assert name == "closed"
    return error


def refused(framer: Framer, *parts: Any) -> tuple[Reason, ToyFlow]:
    """Why the last part is refused."""
    lower, flow, _ = framed(framer)
    for part in parts[:-1]:
        flow.send(part, MessageContext(), False, None)
    with pytest.raises(SendError) as caught:
        flow.send(parts[-1], MessageContext(), True, None)
    return caught.value.reason, lower


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


# Length prefix


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_length_prefix_has_the_size_and_order_that_was_asked_for(size: int) -> None:
    assert wire(LengthPrefixFramer(size), b"abc") == (3).to_bytes(size, "big") + b"abc"
    assert wire(LengthPrefixFramer(size, "little"), b"abc") == (3).to_bytes(size, "little") + b"abc"
    assert LengthPrefixFramer(size).max_length == (1 << 8 * size) - 1


@given(
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["big", "little"]),
    st.lists(st.binary(max_size=200)),
    st.data(),
)
def test_length_prefixed_messages_come_back(
    size: int, order: Any, messages: list[bytes], data: st.DataObject
) -> None:
    framer = LengthPrefixFramer(size, order)
    assert unwired(framer, *cut(wire(framer, *messages), data)).messages == messages


async def test_a_length_over_the_limit_fails_the_connection_before_its_data_come() -> None:
    for segments in ([b"\0\0\0\x0b"], [b"\0\0\0", b"\x0b"], [b"\0\0\0\1x\0\0\0\x0b"]):
        error = await end_of(LengthPrefixFramer(max_length=10), *segments)
        assert error.reason is Reason.DEFRAMING_FAILED
        assert "11 bytes" in str(error)


def test_a_message_over_the_limit_is_not_sent() -> None:
    assert refused(LengthPrefixFramer(1), bytes(256))[0] is Reason.MESSAGE_TOO_LARGE
    assert wire(LengthPrefixFramer(1), bytes(255)) == b"\xff" + bytes(255)


def test_the_parts_of_a_length_prefixed_message_wait_for_the_last() -> None:
    lower, flow, _ = framed(LengthPrefixFramer())
    assert flow.send(bytearray(b"a"), MessageContext(), False, 1)
    assert flow.send(memoryview(b"bc"), MessageContext(), False, 2)
    assert lower.wire == []
    assert flow.send(b"", MessageContext(), True, 3)
    assert flow.send(memoryview(b"next"), MessageContext(), True, 4)
    assert lower.wire == [b"\0\0\0\3abc", b"\0\0\0\4next"]


def test_parts_over_the_hold_limit_are_refused_until_their_message_ends() -> None:
    lower, flow, _ = framed(LengthPrefixFramer(hold_limit=10))
    flow.send(bytes(10), MessageContext(), False, None)
    for end in (False, True):
        with pytest.raises(SendError) as caught:
            flow.send(b"x", MessageContext(), end, None)
        assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
    assert flow.send(b"next", MessageContext(), True, None)
    assert lower.wire == [b"\0\0\0\4next"]


# Type, length, value


def test_a_type_travels_as_metadata() -> None:
    framer = TypeLengthValueFramer(1, 2, default_type=9)
    context = MessageContext()
    context.add(framer, "type", 7)
    stream = wire(framer, b"abc", context=context) + wire(framer, b"de")
    assert stream == b"\7\0\3abc" + b"\x09\0\2de"
    for segments in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        above = unwired(framer, *segments)
        assert above.messages == [b"abc", b"de"]
        assert [each.get(framer, "type") for each in above.contexts if each is not None] == [7, 9]


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=50))), st.data())
def test_types_and_values_come_back(messages: list[tuple[int, bytes]], data: st.DataObject) -> None:
    framer = TypeLengthValueFramer(2, 1, "little")
    stream = b""
    for kind, value in messages:
        context = MessageContext()
        context.add(framer, "type", kind)
        stream += wire(framer, value, context=context)
    above = unwired(framer, *cut(stream, data))
    assert [(context.get(framer, "type") if context else None) for context in above.contexts] == [
        kind for kind, _ in messages
    ]
    assert above.messages == [value for _, value in messages]


def test_a_type_may_be_bytes() -> None:
    framer = TypeLengthValueFramer(byteorder="little")
    context = MessageContext()
    context.add(framer, "type", b"RIFF")
    assert wire(framer, b"x", context=context) == b"RIFF\1\0\0\0x"


@pytest.mark.parametrize("kind", [256, -1, b"ab", "a", 1.5])
def test_a_type_that_does_not_fit_is_refused(kind: Any) -> None:
    framer = TypeLengthValueFramer(1)
    _, flow, _ = framed(framer)
    context = MessageContext()
    context.add(framer, "type", kind)
    with pytest.raises(SendError) as caught:
        flow.send(b"x", context, True, None)
    assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES


# Delimiter


@given(
    st.sampled_from([b"\n", b"\r\n", b"aab", b"abab", b"\0\0\0"]),
    st.lists(st.text("ab\r\n\0", max_size=12).map(str.encode), max_size=12),
    st.booleans(),
    st.data(),
)
def test_delimited_messages_come_back(
    delimiter: bytes, messages: list[bytes], keep: bool, data: st.DataObject
) -> None:
    framer = DelimiterFramer(delimiter, keep_delimiter=keep)
    sendable = [message for message in messages if (message + delimiter).find(delimiter) == len(message)]
    for message in messages:
        if message not in sendable:
            assert refused(framer, message)[0] is Reason.INVALID_MESSAGE_PROPERTIES
    above = unwired(framer, *cut(wire(framer, *sendable), data))
    assert above.messages == [message + delimiter * keep for message in sendable]


@given(
    st.sampled_from([b"\r\n", b"abab"]), st.lists(st.text("ab\r\n", max_size=5).map(str.encode), min_size=1)
)
def test_parts_sent_never_make_a_delimiter_together(delimiter: bytes, parts: list[bytes]) -> None:
    lower, flow, _ = framed(DelimiterFramer(delimiter))
    sent = b""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        whole = sent + part + delimiter * last
        fine = whole.find(delimiter) == (len(whole) - len(delimiter) if last else -1)
        if not fine:
            with pytest.raises(SendError):
                flow.send(part, MessageContext(), last, None)
            return
        assert flow.send(part, MessageContext(), last, None)
        sent += part
    assert lower.sent == sent + delimiter


def test_the_parts_of_a_delimited_message_leave_at_once() -> None:
    lower, flow, _ = framed(DelimiterFramer())
    flow.send(b"a", MessageContext(), False, None)
    flow.send(bytearray(b"b"), MessageContext(), False, None)
    assert lower.wire == [b"a", b"b"]
    flow.send(b"c", MessageContext(), True, None)
    assert flow.send(bytes(100_000), MessageContext(), True, None)
    assert lower.sent == b"abc\n" + bytes(100_000) + b"\n"


def test_a_long_line_goes_up_in_parts_as_it_comes() -> None:
    lower, _, above = framed(DelimiterFramer(b"\r\n"))
    lower.observer.received(b"one\r\ntw", None, False)
    lower.observer.received(b"o\r", None, False)
    assert above.messages == [b"one"]
    assert above.parts == [b"tw", b"o"]
    lower.observer.received(b"\nthree", None, False)
    assert above.messages == [b"one", b"two"]


async def test_a_line_over_the_limit_fails_the_connection_as_soon_as_it_is_known() -> None:
    framer = DelimiterFramer(max_length=10)
    for segments in ([bytes(11)], [bytes(6), bytes(5)], [bytes(11) + b"\n"], [bytes(6), bytes(5) + b"\n"]):
        assert (await end_of(framer, *segments)).reason is Reason.DEFRAMING_FAILED
    assert unwired(framer, bytes(6), bytes(4) + b"\n", bytes(10) + b"\n").messages == [bytes(10)] * 2
    assert refused(framer, bytes(11))[0] is Reason.MESSAGE_TOO_LARGE
    assert refused(framer, bytes(6), bytes(5))[0] is Reason.MESSAGE_TOO_LARGE


async def test_a_last_line_without_delimiter_is_no_message() -> None:
    for rest in (b"cut", b"\r"):
        error = await end_of(DelimiterFramer(b"\r\n"), b"whole\r\n" + rest, finished=True)
        assert error.reason is Reason.DEFRAMING_FAILED


# All


@pytest.mark.parametrize(
    "make",
    [
        lambda: LengthPrefixFramer(3),
        lambda: LengthPrefixFramer(4, "middle"),  # type: ignore[arg-type]
        lambda: LengthPrefixFramer(max_length=-1),
        lambda: TypeLengthValueFramer(type_size=5),
        lambda: TypeLengthValueFramer(length_size=0),
        lambda: TypeLengthValueFramer(1, default_type=256),
        lambda: DelimiterFramer(b""),
        lambda: DelimiterFramer(max_length=-1),
    ],
)
def test_wrong_settings_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"byte"):
        make()


def test_a_delimiter_is_bytes() -> None:
    with pytest.raises(TypeError):
        DelimiterFramer("\n")  # type: ignore[arg-type]


def test_two_methods_make_a_framer_with_a_header() -> None:
    class Ascii(HeaderFramer):
        def make_header(self, length: int, context: MessageContext) -> bytes:
            return b"%04d:" % length

        def payload_length(self, data: bytes, offset: int) -> int:
            return int(data[offset : offset + 4])

    framer = Ascii(5, 9999)
    assert wire(framer, b"abc") == b"0003:abc"
    assert unwired(framer, b"0003:abc00", b"01:d").messages == [b"abc", b"d"]


def test_one_framer_serves_many_connections() -> None:
    framer = DelimiterFramer()
    first, second = framed(framer), framed(framer)
    first[0].observer.received(b"one ", None, False)
    second[0].observer.received(b"two\n", None, False)
    first[0].observer.received(b"and more\n", None, False)
    assert first[2].messages == [b"one and more"]
    assert second[2].messages == [b"two"]


def test_the_package_names_its_framers() -> None:
    assert set(neatpy.framers.__all__) <= set(dir(neatpy.framers))
    with pytest.raises(AttributeError):
        neatpy.framers.NoSuchFramer  # noqa: B018
