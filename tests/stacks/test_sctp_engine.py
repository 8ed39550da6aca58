"""The lower half of the SCTP stack: associations of one process with each other, over pipes."""

from __future__ import annotations

import asyncio
import errno
import random

import pytest
from sctp_tools import MIB, MTU, PORT, Net, Peer, all_delivered, echo, nothing_is_left

from api.loopback import BOTH_LOOPS
from neatpy.stacks._sctp import library, packets
from neatpy.stacks._sctp.association import Association
from neatpy.stacks._sctp.engine import ENGINE
from neatpy.stacks._sctp.options import Scheduler, Settings

__all__ = ["nothing_is_left"]
pytestmark = [
    pytest.mark.skipif(library.obstacle() is not None, reason=str(library.obstacle())),
    pytest.mark.usefixtures("nothing_is_left"),
]


# Packets


def test_the_checksum_is_crc32c() -> None:
    assert packets.crc32c(b"123456789") == 0xE3069283


async def test_an_init_is_recognised_and_what_only_resembles_one_is_not() -> None:
    sent: list[bytes] = []
    ENGINE.acquire(asyncio.get_running_loop())
    path = ENGINE.path(sent.extend, MTU)
    peer = Peer()
    association = Association.connect(path, PORT, peer, Settings())
    path.done()
    init = sent[0]
    assert packets.is_init(init)
    assert packets.destination_port(init) == PORT
    for position in range(len(init)):
        changed = bytearray(init)
        changed[position] ^= 1
        assert not packets.is_init(bytes(changed))
    assert not packets.is_init(init[:-4])
    assert not packets.is_init(init + bytes(4))
    assert not packets.is_init(b"")
    association.abort()
    path.close()
    ENGINE.release()


# Messages


@BOTH_LOOPS
async def test_a_message_comes_back_with_its_stream_and_payload_protocol() -> None:
    net = Net()
    client, server = await net.pair()
    echo(server)
    assert client.association.send(3, b"hello", ppid=46) == 5
    await client.until(lambda: bool(client.messages))
    assert client.messages == [(3, b"hello")]
    assert server.marks == [(False, 46)]
    assert client.interleaving
    assert server.interleaving
    net.close()


@pytest.mark.parametrize("mebibytes", [1, 16])
async def test_a_message_larger_than_all_buffers_comes_in_pieces_with_one_end(mebibytes: int) -> None:
    net = Net()
    client, server = await net.pair()
    message = random.Random(2).randbytes(mebibytes * MIB)
    client.send_all(0, message)
    await server.until(lambda: bool(server.messages))
    assert server.messages == [(0, message)]
    assert [complete for _, _, complete in server.pieces].count(True) == 1
    assert len(server.pieces) > 1
    assert client.saw("writable")
    assert net.there.largest == MTU
    net.close()


@pytest.mark.parametrize(
    ("mtu", "largest"), [(600, 600), (1280, 1280), (1451, 1448), (9000, 9000), (65000, 65000)]
)
async def test_the_mtu_of_the_path_holds_for_what_is_accepted_too(mtu: int, largest: int) -> None:
    net = Net(mtu=mtu)
    client, server = await net.pair()
    for peer, other in ((server, client), (client, server)):
        peer.send_all(0, bytes(200_000))
        await other.until(lambda peer=other: bool(peer.messages))  # type: ignore[misc]
    assert (net.there.largest, net.back.largest) == (largest, largest)
    net.close()


async def test_whole_messages_of_eight_streams_are_interleaved() -> None:
    net = Net(Settings(send_buffer=4 * MIB))
    client, server = await net.pair()
    messages = {stream: bytes([stream]) * 300_000 for stream in range(8)}
    for stream, message in messages.items():
        assert client.association.send(stream, message) == len(message)
    await server.until(lambda: len(server.messages) == 8)
    assert dict(server.messages) == messages
    first_end = next(index for index, piece in enumerate(server.pieces) if piece[2])
    assert len({stream for stream, _, _ in server.pieces[:first_end]}) > 1
    net.close()


async def test_the_send_buffer_can_be_made_to_hold_a_whole_message() -> None:
    net = Net()
    client, server = await net.pair()
    client.association.set_send_buffer(MIB)
    assert client.association.send(0, bytes(600_000)) == 600_000
    await server.until(lambda: server.bytes == 600_000)
    net.close()


@BOTH_LOOPS
async def test_messages_of_eight_streams_that_are_open_at_the_same_time_all_arrive() -> None:
    net = Net()
    client, server = await net.pair()
    messages = {stream: bytes([stream]) * 300_000 for stream in range(8)}
    left = {stream: memoryview(message) for stream, message in messages.items()}

    def go_on() -> None:
        for stream in list(left):
            piece = left[stream][:20_000]
            taken = client.association.send(stream, piece, eor=len(piece) == len(left[stream]))
            left[stream] = left[stream][taken:]
            if not left[stream]:
                del left[stream]
            if taken < len(piece):
                return
        if left:
            asyncio.get_running_loop().call_soon(go_on)

    client.on_writable = go_on
    go_on()
    await server.until(lambda: len(server.messages) == 8)
    assert dict(server.messages) == messages
    net.close()


async def test_an_open_message_with_nothing_to_send_holds_no_other_stream_up() -> None:
    net = Net()
    client, server = await net.pair()
    for stream in (1, 2, 3):
        client.association.send(stream, b"begun", eor=False)
    for number in range(50):
        client.association.send(10 + number % 2, b"whole")
        await server.messages_are(number + 1)
    for stream in (3, 2, 1):
        client.association.send(stream, b", ended")
    await server.until(lambda: len(server.messages) == 53)
    assert sorted(server.messages[-3:]) == [(stream, b"begun, ended") for stream in (1, 2, 3)]
    net.close()


async def test_an_unordered_message_overtakes_a_lost_one() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.dead = True
    client.association.send(0, b"lost first")
    net.near.done()
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    net.there.dead = False
    client.association.send(0, b"ordered")
    client.association.send(0, b"unordered", unordered=True)
    await server.until(lambda: len(server.messages) == 3)
    assert [message for _, message in server.messages] == [b"unordered", b"lost first", b"ordered"]
    assert [unordered for unordered, _ in server.marks] == [True, False, False]
    net.close()


async def test_messages_arrive_whole_and_in_order_over_a_lossy_reordering_path() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.loss = net.back.loss = 0.05
    net.there.swaps = 0.2
    sent = [random.Random(number).randbytes(1 + number * 97 % 9000) for number in range(60)]
    for message in sent:
        assert client.association.send(1, message) == len(message) or pytest.fail("the buffer is too small")
    await server.until(lambda: len(server.messages) == len(sent))
    assert [message for _, message in server.messages] == sent
    net.close()


# Partial reliability


async def test_a_message_without_retransmissions_is_given_up_and_the_next_one_arrives() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.dead = True
    client.association.send(0, b"never", max_retransmissions=0, context=7)
    net.near.done()
    assert await client.event("send_failed") == ("send_failed", 7)
    net.there.dead = False
    client.association.send(0, b"ever")
    await server.until(lambda: bool(server.messages))
    assert server.messages == [(0, b"ever")]
    net.close()


async def test_a_message_past_its_lifetime_is_given_up() -> None:
    net = Net()
    client, server = await net.pair()
    net.there.dead = True
    client.association.send(2, b"stale", lifetime_ms=20, context=9)
    assert await client.event("send_failed") == ("send_failed", 9)
    net.there.dead = False
    client.association.send(2, b"fresh")
    await server.until(lambda: bool(server.messages))
    assert server.messages == [(2, b"fresh")]
    net.close()


async def test_a_message_that_is_given_up_amid_its_pieces_has_no_end() -> None:
    net = Net()
    client, server = await net.pair()
    server.on_data = lambda *_: server.association.pause()
    assert client.association.send(2, bytes(190_000), eor=False, lifetime_ms=100, context=9) == 190_000
    await all_delivered(client)
    net.there.dead = True
    client.association.send(2, bytes(9000), lifetime_ms=100, context=9)
    await client.event("send_failed")
    net.there.dead = False
    client.association.send(2, b"and the next")
    await all_delivered(client)
    server.on_data = None
    server.association.resume()
    assert await server.event("abandoned") == ("abandoned", 2)
    await server.messages_are(1)
    assert server.messages == [(2, b"and the next")]
    assert server.bytes == 190_000 + len(b"and the next")
    net.close()


# Streams


async def test_a_reset_stream_is_told_on_both_sides_and_serves_again() -> None:
    net = Net()
    client, server = await net.pair()
    client.association.send(4, b"before")
    client.association.reset((4,))
    assert await server.event("stream_reset") == ("stream_reset", (4,), ())
    assert await client.event("stream_reset") == ("stream_reset", (), (4,))
    assert server.messages == [(4, b"before")]
    client.association.send(4, b"after")
    await server.until(lambda: len(server.messages) == 2)
    assert server.messages[1] == (4, b"after")
    net.close()


async def test_streams_can_be_added() -> None:
    net = Net(Settings(streams=4))
    client, server = await net.pair()
    with pytest.raises(OSError, match="Invalid") as refused:
        client.association.send(5, b"there is no such stream")
    assert refused.value.errno == errno.EINVAL
    client.association.add_streams(6)
    assert await client.event("streams_added") == ("streams_added", 4, 10)
    assert await server.event("streams_added") == ("streams_added", 10, 4)
    client.association.send(9, b"the tenth")
    await server.until(lambda: bool(server.messages))
    assert server.messages == [(9, b"the tenth")]
    net.close()


async def test_streams_beyond_what_the_peer_allows_are_denied() -> None:
    net = Net(Settings(streams=4, most_streams=8))
    client, _ = await net.pair()
    client.association.add_streams(20)
    await client.event("streams_denied")
    net.close()


async def test_with_the_priority_scheduler_the_lower_value_is_sent_first() -> None:
    net = Net()
    client, server = await net.pair()
    client.association.set_scheduler(Scheduler.PRIORITY)
    client.association.set_stream_value(1, 9)
    client.association.set_stream_value(2, 1)
    for stream in (1, 2):
        assert client.association.send(stream, bytes(100_000)) == 100_000
    await server.until(lambda: len(server.messages) == 2)
    assert [stream for stream, _ in server.messages] == [2, 1]
    net.close()


# Flow control


async def test_a_paused_peer_stops_the_sender_and_resuming_lets_everything_through() -> None:
    net = Net(Settings(send_buffer=131072, receive_buffer=131072))
    client, server = await net.pair()
    server.association.pause()
    taken = []

    def fill() -> None:
        while (count := client.association.send(0, bytes(1000))) == 1000:
            taken.append(count)
        if count:
            taken.append(count)

    client.on_writable = fill
    fill()
    quiet = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.5, quiet.set_result, None)
    await quiet
    stuck = sum(taken)
    assert not server.messages
    assert stuck < 400_000
    client.on_writable = None
    server.association.resume()
    await server.until(lambda: server.bytes == stuck)
    client.association.ask_dry()
    await client.event("dry")
    net.close()


async def test_dry_comes_once_everything_is_acknowledged() -> None:
    net = Net()
    client, server = await net.pair()
    client.send_all(0, bytes(100_000))
    client.association.ask_dry()
    await client.event("dry")
    assert server.bytes == 100_000
    status = client.association.status()
    assert status is not None
    assert (status.unacknowledged, status.incomplete, status.established) == (0, 0, True)
    net.close()
