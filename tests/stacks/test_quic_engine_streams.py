"""One stream inside the adapter to QUIC's engine: both sides bring everything over, whatever the network does."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("aioquic")

from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.packet_builder import QuicDeliveryState
from hypothesis import given
from hypothesis import strategies as st

from neatpy.stacks._quic.engine_streams import EngineStream, StreamTable

ACKED, LOST = QuicDeliveryState.ACKED, QuicDeliveryState.LOST

WRITES = st.lists(st.binary(max_size=40), max_size=6)
FATES = st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60)
"""For one frame after another: whether it arrives, and which of those that are on their way it is."""


def stream() -> Any:
    table = StreamTable(lambda: (0.0, 0.0))
    made = EngineStream(table, 0, 1 << 20, 1 << 20)
    table.add(made)
    return made


def events(receiver: Any, frame: QuicStreamFrame) -> tuple[bytes, bool]:
    event = receiver.handle_frame(QuicStreamFrame(data=frame.data, offset=frame.offset, fin=frame.fin))
    return (b"", False) if event is None else (event.data, event.end_stream)


def transferred(writes: list[bytes], room: int, fates: list[tuple[bool, int]]) -> tuple[bytes, bool, bool]:
    """What arrives of these writes in frames of this room, whether their end does, and whether the sender knows."""
    sender, receiver = stream().sender, stream().receiver
    for index, data in enumerate(writes):
        sender.write(data, index == len(writes) - 1)
    arrived, ended = b"", False
    on_their_way: list[QuicStreamFrame] = []
    fate = iter(fates)
    while True:
        while not sender.buffer_is_empty:
            frame = sender.get_frame(room)
            if frame is not None:
                on_their_way.append(frame)
        if not on_their_way:
            return arrived, ended, sender.is_finished
        arrives, which = next(fate, (True, 0))
        frame = on_their_way.pop(which % len(on_their_way))
        if arrives:
            data, end = events(receiver, frame)
            arrived, ended = arrived + data, ended or end
        stop = frame.offset + len(frame.data)
        sender.on_data_delivery(ACKED if arrives else LOST, frame.offset, stop, frame.fin)


@given(WRITES.filter(bool), st.integers(1, 50), FATES)
def test_all_of_a_stream_arrives_in_order_though_frames_get_lost_and_overtake(
    writes: list[bytes], room: int, fates: list[tuple[bool, int]]
) -> None:
    assert transferred(writes, room, fates) == (b"".join(writes), True, True)


@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 59), st.integers(1, 60)), max_size=20),
)
def test_frames_that_overlap_and_come_again_are_told_once(
    whole: bytes, pieces: list[tuple[int, int]]
) -> None:
    receiver = stream().receiver
    told, ended = b"", False
    for start, size in [*pieces, (0, len(whole))]:
        part = whole[start : start + size]
        fin = start + size >= len(whole) > start
        if part:
            data, end = events(receiver, QuicStreamFrame(data=part, offset=start, fin=fin))
            told, ended = told + data, ended or end
    assert (told, ended) == (whole, True)


def test_an_end_alone_follows_what_was_sent_before() -> None:
    sender = stream().sender
    sender.write(b"data")
    assert sender.get_frame(100).data == b"data"
    sender.write(b"", True)
    last = sender.get_frame(0)
    assert (last.data, last.offset, last.fin) == (b"", 4, True)
    sender.on_data_delivery(ACKED, 4, 4, True)
    assert not sender.is_finished
    sender.on_data_delivery(ACKED, 0, 4, False)
    assert sender.is_finished


def test_a_stream_is_opened_by_an_empty_frame_until_that_arrives() -> None:
    sender = stream().sender
    sender.open()
    for delivery in (LOST, ACKED):
        frame = sender.get_frame(100)
        assert (frame.data, frame.offset, frame.fin) == (b"", 0, False)
        assert sender.buffer_is_empty
        sender.on_data_delivery(delivery, 0, 0, False)
    assert sender.buffer_is_empty


def test_data_open_a_stream_as_well() -> None:
    sender = stream().sender
    sender.open()
    sender.write(b"data")
    assert sender.get_frame(100).data == b"data"
    assert sender.buffer_is_empty


def test_flow_control_holds_data_back_until_there_is_credit() -> None:
    sender = stream().sender
    sender.write(b"0123456789", True)
    assert sender.get_frame(100, 4).data == b"0123"
    assert sender.get_frame(100, 4) is None
    assert not sender.buffer_is_empty
    last = sender.get_frame(100, 10)
    assert (last.data, last.fin) == (b"456789", True)


def test_nothing_is_sent_again_of_a_stream_that_was_reset() -> None:
    sender = stream().sender
    sender.write(b"data")
    sender.get_frame(100)
    sender.reset(1)
    sender.on_data_delivery(LOST, 0, 4, False)
    assert sender.buffer_is_empty
    with pytest.raises(RuntimeError):
        sender.write(b"more")
