"""The layer of framers: what is sent through it, and the account of what was Sent."""

from __future__ import annotations

from typing import Any

import pytest
from framing_toys import Plain, ToyDatagramFlow, framed, prefixed

from neatpy.errors import Reason, SendError
from neatpy.framers.length_prefix import LengthPrefixFramer
from neatpy.message import MessageContext

# Sending


def test_a_small_message_leaves_in_one_piece_with_its_header() -> None:
    lower, flow, _ = framed(LengthPrefixFramer())
    context = MessageContext()
    assert flow.send(b"hi", context, True, 1)
    assert lower.wire == [prefixed(b"hi")]
    assert lower.contexts == [context]
    assert lower.calls == []


def test_a_large_message_leaves_corked_and_uncopied() -> None:
    lower, flow, above = framed(LengthPrefixFramer())
    payload = bytes(1 << 20)
    assert flow.send(payload, MessageContext(), True, 1)
    assert lower.calls == ["cork", "uncork"]
    assert lower.sent == prefixed(payload)
    assert above.events == []


def test_small_pieces_of_one_message_are_joined() -> None:
    class Chatty(Plain):
        def new_sent_message(self, connection: Any, handle: Any, data: Any, context: Any, end: bool) -> None:
            for piece in (b"<", data, b">"):
                handle.send(piece, context, piece == b">")

    lower, flow, _ = framed(Chatty())
    assert flow.send(memoryview(b"x"), MessageContext(), True, 1)
    assert lower.wire == [b"<x>"]


def test_over_datagrams_one_message_is_one_datagram() -> None:
    lower, flow, _ = framed(LengthPrefixFramer(), lower=ToyDatagramFlow())
    payload = bytes(60_000)
    assert flow.send(payload, MessageContext(), True, 1)
    assert lower.wire == [prefixed(payload)]
    assert lower.ends == [True]


def test_a_token_is_sent_when_all_that_became_of_its_data_is_taken() -> None:
    lower, flow, above = framed(LengthPrefixFramer())
    lower.slow = True
    assert not flow.send(bytes(1 << 20), MessageContext(), True, "large")
    assert not flow.send(b"small", MessageContext(), True, "small")
    lower.take(1)
    assert above.events == []
    lower.take(1)
    assert above.events == [("sent", "large")]
    lower.take()
    assert above.events == [("sent", "large"), ("sent", "small")]


@pytest.mark.parametrize("what", ["failed", "expired"])
def test_what_becomes_of_a_piece_becomes_of_its_token_once(what: str) -> None:
    lower, flow, above = framed(LengthPrefixFramer())
    lower.slow = True
    flow.send(bytes(1 << 20), MessageContext(), True, "large")
    flow.send(b"small", MessageContext(), True, "small")
    arguments = (SendError("no", Reason.TIMEOUT),) if what == "failed" else ()
    for token in lower.untaken:
        getattr(lower.observer, what)(token, *arguments)
    assert above.events == [(what, "large"), (what, "small")]


def test_corked_sends_are_reported_on_uncorking() -> None:
    lower, flow, above = framed(LengthPrefixFramer())
    context = MessageContext()
    flow.cork()
    assert not flow.send(b"a", context, True, 1)
    assert not flow.send(bytes(1 << 20), context, True, 2)
    assert not flow.send(b"part", context, False, 3), (
        "kept by the framer, but not Sent before those before it"
    )
    assert lower.calls == ["cork"]
    flow.uncork()
    assert above.events == [("sent", 1), ("sent", 2), ("sent", 3)]
    assert flow.send(b"ial", context, True, 4)
    assert lower.sent == prefixed(b"a", bytes(1 << 20), b"partial")


def test_a_framer_that_raises_on_sending_fails_only_that_message() -> None:
    class Picky(Plain):
        def new_sent_message(self, connection: Any, handle: Any, data: Any, context: Any, end: bool) -> None:
            handle.send(b"half of it", context, False)
            if data == b"bad":
                raise KeyError("bad")
            handle.send(data, context, end)

    lower, flow, _ = framed(Picky())
    with pytest.raises(SendError) as caught:
        flow.send(b"bad", MessageContext(), True, 1)
    assert caught.value.reason is Reason.PROTOCOL_FAILED
    assert isinstance(caught.value.__cause__, KeyError)
    assert lower.wire == []
    assert flow.send(b"", MessageContext(), True, 2)


class Echo(LengthPrefixFramer):
    """Answers the peer by itself, with what it was sent."""

    def handle_received_data(self, connection: Any, handle: Any) -> None:
        data, _, _ = handle.parse(1)
        handle.send(data)
        handle.advance_receive_cursor(len(data))


def test_a_framers_own_data_wait_until_the_flow_is_writable_again() -> None:
    lower, flow, above = framed(Echo())
    lower.writable = False
    lower.observer.received(b"ping", None, False)
    assert lower.wire == []
    assert flow.backlog() == 7
    flow.finish()
    assert "finish" not in lower.calls
    lower.writable = True
    assert not flow.writable, "what waits goes first"
    lower.observer.writable()
    assert lower.wire == [b"ping"]
    assert flow.writable
    assert lower.calls[-1] == "finish"
    lower.observer.received(b"ping", None, False)
    assert lower.wire == [b"ping"], "nothing after the end of the stream"
    assert above.events == []


def test_a_peer_that_reads_no_answers_is_not_read_either() -> None:
    lower, _, above = framed(Echo())
    lower.writable = False
    for _ in range(5):
        lower.observer.received(bytes(1 << 16), None, False)
    assert lower.calls == ["pause"]
    lower.writable = True
    lower.observer.writable()
    assert lower.calls == ["pause", "resume"]
    assert above.events == ["writable"]
