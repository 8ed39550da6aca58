"""The layer of framers: how framers start, are Ready, and end, over a Flow that is a toy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from framing_toys import (
    CONNECTION,
    Above,
    Greeting,
    Plain,
    ToyDatagramFlow,
    ToyFlow,
    framed,
    prefixed,
    shaken,
    turn,
)

from neatpy.errors import ConnectionError, EstablishmentError, Reason, SendError
from neatpy.framers.delimiter import DelimiterFramer
from neatpy.framers.length_prefix import LengthPrefixFramer
from neatpy.framing import FramedFlow, frame
from neatpy.message import MessageContext
from neatpy.stacks.contract import Flow, FlowObserver

# Starting


async def test_framers_start_from_the_lowest_and_ready_comes_after_the_last() -> None:
    lower, above = ToyFlow(), Above()
    bottom, top = Greeting(b"1"), Greeting(b"2")
    task = asyncio.ensure_future(frame(lower, [bottom, top], CONNECTION, above))
    await turn()
    assert lower.sent == b"hello1"
    assert top.log == []
    lower.observer.received(b"hello1", None, False)
    assert lower.sent == b"hello1" + b"\6hello2"
    await turn()
    assert not task.done()
    lower.observer.received(b"\6hello2" + b"\4\3abc", None, False)
    assert above.messages == [], "no Received before Ready"
    flow = await task
    await turn()
    assert above.messages == [b"abc"]
    assert flow.send(b"xyz", MessageContext(), True, 1)
    assert lower.sent.endswith(b"\4\3xyz")


async def test_what_came_before_the_framers_started_is_not_lost() -> None:
    lower, above = ToyFlow(), Above()
    flow = FramedFlow(lower, [LengthPrefixFramer()], CONNECTION, above)
    lower.observer.received(prefixed(b"early"), None, False)
    lower.observer.finished()
    assert flow.start()
    assert above.messages == [b"early"]
    assert above.events == ["finished"]


async def test_what_an_attempt_recorded_goes_to_the_framers() -> None:
    class Recorder(Above):
        def insert(self, layer: FlowObserver, below: Flow) -> None:
            below.observer = layer
            layer.received(prefixed(b"recorded"), None, False)

    lower, recorder = ToyFlow(), Recorder()
    lower.observer = recorder
    flow = await frame(lower, [LengthPrefixFramer()], CONNECTION)
    assert flow.observer is recorder
    assert recorder.messages == [b"recorded"]


async def test_the_end_and_the_break_of_an_early_flow_are_told_after_ready() -> None:
    lower, above = ToyFlow(), Above()
    task = asyncio.ensure_future(frame(lower, [Greeting()], CONNECTION, above))
    await turn()
    lower.observer.received(b"hello!\1x", None, False)
    lower.observer.finished()
    lower.observer.closed(None)
    await task
    await turn()
    assert above.messages == [b"x"]
    assert above.events == ["finished", ("closed", None)]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (lambda observer: observer.received(b"howdy!", None, False), Reason.PROTOCOL_FAILED),
        (lambda observer: observer.finished(), Reason.PROTOCOL_FAILED),
        (lambda observer: observer.closed(None), Reason.CONNECTION_CLOSED),
        (lambda observer: observer.closed(ConnectionError("x", Reason.TIMEOUT)), Reason.TIMEOUT),
    ],
)
async def test_a_handshake_that_fails_is_an_establishment_error(event: Any, reason: Reason) -> None:
    lower, above = ToyFlow(), Above()
    task = asyncio.ensure_future(frame(lower, [Greeting()], CONNECTION, above))
    await turn()
    event(lower.observer)
    with pytest.raises(EstablishmentError) as caught:
        await task
    assert caught.value.reason is reason
    assert "abort" in lower.calls
    assert above.events == []


async def test_a_framer_that_raises_in_start_fails_the_attempt() -> None:
    class Broken(Plain):
        def start(self, connection: Any, handle: Any) -> None:
            raise OSError("no")

    lower = ToyFlow()
    with pytest.raises(EstablishmentError) as caught:
        await frame(lower, [Broken()], CONNECTION, Above())
    assert caught.value.reason is Reason.PROTOCOL_FAILED
    assert isinstance(caught.value.__cause__, OSError)


async def test_cancelling_a_handshake_aborts_the_flow() -> None:
    lower, framer = ToyFlow(), Greeting()
    task = asyncio.ensure_future(frame(lower, [framer], CONNECTION, Above()))
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "abort" in lower.calls
    assert framer.log == ["start", "stop"]


async def test_a_prepended_framer_runs_above_the_one_that_brought_it() -> None:
    class Upgrading(Greeting):
        def start(self, connection: Any, handle: Any) -> None:
            super().start(connection, handle)
            handle.prepend_framer(Greeting(b"2"))

        def handle_received_data(self, connection: Any, handle: Any) -> None:
            super().handle_received_data(connection, handle)
            if handle.state == "framing":
                with pytest.raises(RuntimeError):
                    handle.prepend_framer(self)

    lower, above = ToyFlow(), Above()
    task = asyncio.ensure_future(frame(lower, [Upgrading(b"1"), LengthPrefixFramer(1)], CONNECTION, above))
    await turn()
    lower.observer.received(b"hello1" + b"\6hello2", None, False)
    flow = await task
    assert flow.send(b"x", MessageContext(), True, 1)
    assert lower.sent == b"hello1" + b"\6hello2" + b"\3\2\1x"
    lower.observer.received(b"\3\2\1y", None, False)
    await turn()
    assert above.messages == [b"y"]


class Proxy(Greeting):
    """A handshake, then nothing more."""

    def handle_received_data(self, connection: Any, handle: Any) -> None:
        super().handle_received_data(connection, handle)
        handle.start_passthrough()


async def test_passthrough_lets_data_pass_unchanged_both_ways() -> None:
    lower, above = ToyFlow(), Above()
    task = asyncio.ensure_future(frame(lower, [Proxy()], CONNECTION, above))
    await turn()
    lower.observer.received(b"hello!stream", None, False)
    flow = await task
    await turn()
    assert not flow.preserves_boundaries
    lower.observer.received(b" of bytes", None, False)
    assert above.parts == [b"stream", b" of bytes"]
    assert flow.send(b"raw", MessageContext(), True, 1)
    assert lower.wire[-1] == b"raw"
    lower.observer.finished()
    assert above.events == ["finished"]


async def test_a_framer_above_a_passthrough_sees_the_stream() -> None:
    lower, above = ToyFlow(), Above()
    task = asyncio.ensure_future(frame(lower, [Proxy(), LengthPrefixFramer()], CONNECTION, above))
    await turn()
    lower.observer.received(b"hello!" + prefixed(b"one")[:3], None, False)
    flow = await task
    lower.observer.received(prefixed(b"one")[3:], None, False)
    await turn()
    assert above.messages == [b"one"]
    assert flow.preserves_boundaries
    lower.observer.finished()
    assert above.events == ["finished"]


async def test_passthrough_from_outside_an_event_releases_what_is_buffered() -> None:
    class Waiting(Plain):
        handle: Any

        def start(self, connection: Any, handle: Any) -> None:
            Waiting.handle = handle
            handle.make_connection_ready()

        def handle_received_data(self, connection: Any, handle: Any) -> None:
            handle.parse(1000)

    lower, _, above = framed(Waiting())
    lower.observer.received(b"abc", None, False)
    Waiting.handle.start_passthrough()
    await turn()
    assert above.parts == [b"abc"]


# Ending


def test_closing_stops_the_framers_at_once_by_default() -> None:
    lower, flow, above = framed(LengthPrefixFramer(), DelimiterFramer())
    flow.close()
    flow.close()
    assert lower.calls == ["close"]
    lower.observer.received(b"\0\0\0\1", None, False)
    lower.observer.closed(None)
    assert above.events == [("closed", None)]


async def test_a_closing_handshake_comes_before_the_flow_below_closes() -> None:
    lower, flow, above = await shaken(Greeting())
    flow.close()
    assert lower.wire[-1] == b"bye!"
    assert "close" not in lower.calls
    lower.observer.received(b"bye!", None, False)
    assert lower.calls[-1] == "close"
    lower.observer.closed(None)
    assert above.events == [("closed", None)]
    assert above.messages == []


async def test_a_closing_handshake_ends_with_the_peers_stream_and_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lower, flow, _ = await shaken(Greeting())
    flow.close()
    lower.observer.finished()
    assert lower.calls[-1] == "close"

    monkeypatch.setattr("neatpy.framing.LINGER", 0.0)
    lower, flow, _ = await shaken(Greeting())
    flow.close()
    while "close" not in lower.calls:
        await turn()


async def test_an_abort_cleans_the_framers_up_and_says_nothing() -> None:
    framer = Greeting()
    lower, flow, above = await shaken(framer)
    before = lower.sent
    flow.abort()
    flow.abort()
    assert framer.log == ["start", "stop"]
    assert lower.sent == before
    assert above.events == []
    assert "abort" in lower.calls


async def test_a_framer_that_raises_in_stop_does_not_keep_the_flow_open() -> None:
    class Broken(Plain):
        def stop(self, connection: Any, handle: Any) -> None:
            raise OSError("no")

    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    lower, flow, _ = framed(Broken())
    flow.close()
    assert lower.calls == ["close"]
    assert [type(error) for error in reported] == [OSError]


async def test_a_framer_may_fail_the_connection_at_any_time() -> None:
    class Failing(Plain):
        def new_sent_message(self, connection: Any, handle: Any, data: Any, context: Any, end: bool) -> None:
            handle.fail_connection(ValueError("enough"))

    lower, flow, above = framed(Failing())
    with pytest.raises(SendError):
        flow.send(b"x", MessageContext(), True, 1)
    assert above.events == []
    await turn()
    assert above.events[0][1].reason is Reason.PROTOCOL_FAILED
    assert isinstance(above.events[0][1].__cause__, ValueError)
    assert lower.calls == ["abort"]


async def test_part_of_a_frame_that_the_peer_gives_up_fails_the_connection() -> None:
    lower, _, above = framed(LengthPrefixFramer(), lower=ToyDatagramFlow())
    lower.observer.received(prefixed(b"begun")[:6], MessageContext(), False)
    lower.observer.abandoned()
    await turn()
    assert above.messages == []
    assert above.events[0][1].reason is Reason.DEFRAMING_FAILED
