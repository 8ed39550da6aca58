"""Connection Groups over QUIC: clones are streams of one connection, in either direction, each with its share."""

from __future__ import annotations

import array
import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.loopback import (
    BOTH_LOOPS,
    MIB,
    is_free_for_udp,
    length_framed,
    port_of,
    turns,
    until,
    until_still,
)
from api.quic_loopback import (
    TIME,
    connected,
    everything_is_given_back,
    exactly,
    flow_of,
    going_to,
    listening,
    pair,
    payload,
    peer_of,
    streams,
    to_the_end,
    transport_of,
)
from api.relay import Relay
from neatpy import (
    CapacityProfile,
    Connection,
    ConnectionError,
    ConnectionState,
    Direction,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    MultipathPolicy,
    Reason,
    ReceiveError,
    Scheduler,
    SendError,
)
from neatpy.stacks._sharing import read_ahead

pytest.importorskip("aioquic")
__all__ = ["everything_is_given_back"]
pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("everything_is_given_back")]


async def ready(connection: Connection) -> Connection:
    return await asyncio.wait_for(_awaited(connection), TIME)


async def _awaited(connection: Connection) -> Connection:
    return await connection


# Clones


async def test_each_clone_tells_that_it_is_ready_though_the_handler_of_another_raises() -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    ready_ones: list[Connection] = []
    async with pair() as (client, _):
        first, second = client.clone(), client.clone()
        first.on_ready = lambda _: ready_ones[0]  # which is not there yet
        second.on_ready = ready_ones.append
        assert not ready_ones
        await until(lambda: ready_ones)
        assert (ready_ones, len(told)) == ([second], 1)


async def test_what_many_streams_hold_that_nobody_receives_from_is_bounded() -> None:
    async with listening() as listener, connected(going_to(port_of(listener)), listener) as (client, _):
        clones = [client.clone() for _ in range(60)]
        for clone in clones:
            clone.send(b"x")
        peers = [await asyncio.wait_for(listener.accept(), TIME) for _ in clones]
        for peer in peers:
            assert await exactly(peer, 1) == b"x"
        for clone in clones:
            clone.send(bytes(MIB))
        await until_still(lambda: sum(peer.statistics["bytes_received"] for peer in peers), 0.2)
        assert sum(peer.statistics["bytes_received"] for peer in peers) <= 60 * 2 * read_ahead(60)
        for peer in peers:
            assert len(await exactly(peer, MIB)) == MIB


async def test_a_large_message_that_began_to_arrive_before_it_was_asked_for_arrives_whole() -> None:
    async with pair(framers=length_framed()) as (client, server):
        client.send(payload(3 * MIB))
        await until_still(lambda: server.statistics["bytes_received"])
        assert server.statistics["bytes_received"] < MIB
        message = await asyncio.wait_for(server.receive(), TIME)
        assert (message.data, message.end_of_message) == (payload(3 * MIB), True)


async def test_a_clone_that_has_ended_is_freed_without_the_garbage_collector() -> None:
    async def ended(client: Connection, server: Connection) -> weakref.ref[Connection]:
        clone = client.clone()
        peer = await peer_of(clone, server)
        await asyncio.gather(clone.close(), peer.close())
        return weakref.ref(clone)

    async with pair() as (client, server):
        gc.disable()
        try:
            freed = await ended(client, server)
            await until(lambda: freed() is None)
        finally:
            gc.enable()


async def test_a_clone_is_a_stream_that_its_first_byte_makes_visible() -> None:
    async with pair() as (client, server):
        clone = await ready(client.clone())
        assert clone.local_endpoint == client.local_endpoint
        assert transport_of(clone) is transport_of(client)
        assert flow_of(clone).stream == 4
        await turns(20)
        assert server.grouped_connections == {server}
        peer = await peer_of(clone, server)
        assert peer.stack == "quic"
        assert peer.state is ConnectionState.ESTABLISHED
        peer.send(b"back")
        assert await exactly(clone, 4) == b"back"


async def test_the_listener_hands_out_clones_like_connections() -> None:
    async with listening() as listener, connected(going_to(port_of(listener)), listener) as (client, server):
        clone = client.clone()
        clone.send(b"hello")
        peer = await asyncio.wait_for(listener.accept(), TIME)
        assert peer.grouped_connections == server.grouped_connections == {peer, server}
        assert await exactly(peer, 5) == b"hello"


async def test_clones_have_the_framers_of_their_parents() -> None:
    async with pair(framers=length_framed()) as (client, server):
        clone = await ready(client.clone())
        clone.send(b"a message")
        await until(lambda: len(server.grouped_connections) == 2)
        (peer,) = server.grouped_connections - {server}
        assert bytes(await asyncio.wait_for(peer.receive(), TIME)) == b"a message"


async def test_streams_keep_their_own_order_and_do_not_mix() -> None:
    async with pair() as (client, server):
        clones = [await ready(client.clone()) for _ in range(5)]
        peers = [await peer_of(clone, server) for clone in clones]
        for number in range(200):
            for index, clone in enumerate(clones):
                clone.send(b"%d:%04d " % (index, number))
        for index, peer in enumerate(peers):
            expected = b"".join(b"%d:%04d " % (index, number) for number in range(200))
            assert await exactly(peer, len(expected)) == expected


@asynccontextmanager
async def echoing(listener: Listener) -> AsyncIterator[None]:
    async def echo(connection: Connection) -> None:
        while True:
            try:
                message = await connection.receive(min_incomplete_length=1)
            except ReceiveError:
                return
            await connection.send(message.data)

    serving = asyncio.ensure_future(listener.serve(echo, grace=0))
    try:
        yield
    finally:
        listener.stop()
        await serving


async def test_two_hundred_clones_at_once_are_all_answered() -> None:
    async with listening() as listener, echoing(listener):
        client = await going_to(port_of(listener)).initiate(timeout=TIME)
        clones = [client.clone() for _ in range(200)]
        for number, clone in enumerate(clones):
            clone.send(b"%04d" % number)
        answers = await asyncio.gather(*(exactly(clone, 4) for clone in clones))
        assert answers == [b"%04d" % number for number in range(200)]
        assert len({flow_of(clone).stream for clone in clones}) == 200
        assert {transport_of(clone) for clone in clones} == {transport_of(client)}
        await asyncio.wait_for(client.close_group(), TIME)


async def test_clones_made_before_ready_become_streams_too() -> None:
    async with listening() as listener, echoing(listener):
        client = going_to(port_of(listener)).initiate(timeout=TIME)
        clones = [client.clone() for _ in range(10)]
        for clone in clones:
            clone.send(b"early")
        for clone in clones:
            assert await exactly(clone, 5) == b"early"
            assert transport_of(clone) is transport_of(client)
        await asyncio.wait_for(client.close_group(), TIME)


async def test_a_stream_that_has_ended_makes_room_for_another() -> None:
    async with listening(properties=streams(group_conn_limit=4)) as listener, echoing(listener):
        client = await going_to(port_of(listener)).initiate(timeout=TIME)
        for _ in range(20):
            await until(lambda: transport_of(client).engine.may_open(False))
            clone = await ready(client.clone())
            assert transport_of(clone) is transport_of(client)
            clone.send(b"x", final=True)
            assert await to_the_end(clone) == b"x"
            await asyncio.wait_for(clone.close(), TIME)
        await asyncio.wait_for(client.close_group(), TIME)


async def test_a_clone_beyond_the_peers_limit_goes_on_a_new_connection() -> None:
    async with listening(properties=streams(group_conn_limit=1)) as listener, echoing(listener):
        client = await going_to(port_of(listener)).initiate(timeout=TIME)
        within, beyond = await ready(client.clone()), await ready(client.clone())
        assert transport_of(within) is transport_of(client)
        assert transport_of(beyond) is not transport_of(client)
        assert beyond in client.grouped_connections
        for clone in (client, within, beyond):
            clone.send(b"hello")
            assert await exactly(clone, 5) == b"hello"
        await asyncio.wait_for(client.close_group(), TIME)


async def test_a_higher_limit_is_told_to_the_peer() -> None:
    async with pair(server_properties=streams(group_conn_limit=1)) as (client, server):
        client.send(b"x")
        await exactly(server, 1)
        await ready(client.clone())
        assert not transport_of(client).engine.may_open(False)
        server.set_property("group_conn_limit", 3)
        server.send(b"x")
        await until(lambda: transport_of(client).engine.may_open(False))
        clone = await ready(client.clone())
        assert transport_of(clone) is transport_of(client)


async def test_clones_of_a_unidirectional_connection_are_unidirectional_streams() -> None:
    async with pair(
        streams(direction=Direction.UNIDIRECTIONAL_SEND),
        server_properties=streams(direction=Direction.UNIDIRECTIONAL_RECEIVE),
    ) as (client, server):
        client.send(b"x")
        await exactly(server, 1)
        clone = await ready(client.clone())
        assert flow_of(clone).stream == 6
        peer = await peer_of(clone, server)
        assert not peer.can_send
        assert not clone.can_receive


async def test_a_listener_for_both_directions_only_receives_where_the_client_only_sends() -> None:
    async with pair(streams(direction=Direction.UNIDIRECTIONAL_SEND), server_properties=streams()) as (
        client,
        server,
    ):
        client.send(b"x")
        await exactly(server, 1)
        assert (client.can_send, client.can_receive) == (True, False)
        assert (server.can_send, server.can_receive) == (False, True)
        assert server.get_properties()["send_msg_max_len"] == 0
        with pytest.raises(SendError, match="only the peer sends"):
            await server.send(b"back")
        client.send(b"y", final=True)
        assert await to_the_end(server) == b"y"
        assert (client.can_send, server.can_receive) == (False, False)


@pytest.mark.parametrize("framed", [False, True], ids=["raw", "framed"])
async def test_a_unidirectional_stream_beside_others_is_a_connection_that_only_receives(framed: bool) -> None:
    async with pair(framers=length_framed() if framed else ()) as (client, server):
        data = b"\0\0\0\1x" if framed else b"x"
        for opener, other in ((client, server), (server, client)):
            received: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
            other.on_connection_received = lambda _, new, received=received: received.set_result(new)
            transport = transport_of(opener)
            transport.engine.write(transport.engine.open_stream(True), data, True)
            transport.schedule()
            if other is server:
                await until(lambda: len(server.grouped_connections) == 2)
                (new,) = server.grouped_connections - {server}
            else:
                new = await asyncio.wait_for(received, TIME)
            assert not new.can_send
            assert bytes(await asyncio.wait_for(new.receive(), TIME)) == b"x"
            assert not new.can_receive
            with pytest.raises(SendError, match="only the peer sends"):
                await new.send(b"back")
            await asyncio.wait_for(new.close(), TIME)


# Streams that the server opens


async def test_a_stream_that_the_server_opens_reaches_the_initiator() -> None:
    async with pair() as (client, server):
        received: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        client.on_connection_received = lambda _, new: received.set_result(new)
        clone = await ready(server.clone())
        clone.send(b"from the server")
        new = await asyncio.wait_for(received, TIME)
        assert new in client.grouped_connections
        assert flow_of(new).stream == 1
        assert await exactly(new, 15) == b"from the server"
        new.send(b"thanks")
        assert await exactly(clone, 6) == b"thanks"


async def test_a_stream_that_nobody_takes_is_reset_and_the_others_live_on() -> None:
    async with pair() as (client, server):
        clone = await ready(server.clone())
        clone.send(b"unwanted")
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(clone.receive(), TIME)
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        server.send(b"wanted")
        assert await exactly(client, 6) == b"wanted"


async def test_a_large_message_on_a_stream_that_nobody_takes_costs_no_credit() -> None:
    async with pair() as (client, server):
        for _ in range(8):
            clone = await ready(server.clone())
            clone.send(bytes(MIB))
            with pytest.raises(ReceiveError):
                await asyncio.wait_for(clone.receive(), TIME)
        server.send(bytes(6 * MIB))
        assert await exactly(client, 6 * MIB) == bytes(6 * MIB)


async def test_after_the_listener_has_stopped_new_streams_are_refused_and_old_ones_go_on() -> None:
    async with listening() as listener, connected(going_to(port_of(listener)), listener) as (client, server):
        clone = await ready(client.clone())
        clone.send(b"x")
        peer = await asyncio.wait_for(listener.accept(), TIME)
        assert await exactly(peer, 1) == b"x"
        await listener.stop()
        clone.send(b"still here")
        assert await exactly(peer, 10) == b"still here"
        late = await ready(client.clone())
        late.send(b"late")
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(late.receive(), TIME)
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        client.send(b"here too")
        assert await exactly(server, 8) == b"here too"


# The ends of groups


async def test_the_first_stream_may_end_before_the_others() -> None:
    async with pair() as (client, server):
        clone = await ready(client.clone())
        peer = await peer_of(clone, server)
        await asyncio.wait_for(asyncio.gather(client.close(), server.close()), TIME)
        clone.send(b"alone now")
        assert await exactly(peer, 9) == b"alone now"
        third = await ready(clone.clone())
        other = await peer_of(third, peer)
        other.send(b"fine")
        assert await exactly(third, 4) == b"fine"
        third.abort_group()


async def test_aborting_the_group_ends_every_stream() -> None:
    async with pair() as (client, server):
        for _ in range(5):
            await peer_of(await ready(client.clone()), server)
        failed: list[ConnectionError] = []
        for one in server.grouped_connections:
            one.on_connection_error = lambda _, error: failed.append(error)
        client.abort_group()
        await until(lambda: len(failed) == 6)
        assert {error.reason for error in failed} == {Reason.CONNECTION_ABORTED}


async def test_closing_the_group_delivers_every_stream() -> None:
    async with pair() as (client, server):
        clones = [await ready(client.clone()) for _ in range(5)]
        peers = [await peer_of(clone, server) for clone in clones]
        for clone in clones:
            clone.send(bytes(200_000))
        reading = [asyncio.ensure_future(to_the_end(peer)) for peer in peers]
        await asyncio.wait_for(client.close_group(), TIME)
        assert [len(data) for data in await asyncio.gather(*reading)] == [200_000] * 5
        await asyncio.wait_for(server.close_group(), TIME)


# Priorities and schedulers


@asynccontextmanager
async def slow_pair(scheduler: Scheduler) -> AsyncIterator[tuple[Connection, Connection]]:
    """Whose client sends through a relay that hands on a few datagrams at a time."""
    waiting: list[bytes] = []

    def hold(datagram: bytes, from_client: bool, index: int) -> tuple[bytes, ...]:
        if not from_client:
            return (datagram,)
        waiting.append(datagram)
        return ()

    properties = streams(conn_scheduler=scheduler)
    async with (
        listening() as listener,
        Relay.to(port_of(listener)) as relay,
        connected(going_to(relay.port, properties=properties), listener) as both,
    ):
        relay.decide = hold

        async def release() -> None:
            while True:
                for datagram in waiting[:8]:
                    relay.inject(datagram, True)
                del waiting[:8]
                await asyncio.sleep(0.002)

        releasing = asyncio.ensure_future(release())
        try:
            yield both
        finally:
            releasing.cancel()


async def shares(scheduler: Scheduler, *priorities: float) -> list[int]:
    """What of each of several clones, with these priorities, has come when the first of them has all."""
    size = 240_000
    async with slow_pair(scheduler) as (client, server):
        clones = [await ready(client.clone(conn_priority=priority)) for priority in priorities]
        peers = [await peer_of(clone, server) for clone in clones]
        for clone in clones:
            clone.send(bytes(size))
        got = [0] * len(peers)
        at_first_end: list[int] = []

        async def count(index: int) -> None:
            while got[index] < size:
                got[index] += len(await peers[index].receive(min_incomplete_length=1))
            if not at_first_end:
                at_first_end.extend(got)

        await asyncio.wait_for(asyncio.gather(*map(count, range(len(peers)))), TIME)
        return at_first_end


async def test_the_more_urgent_stream_finishes_first() -> None:
    less, more = await shares(Scheduler.PRIORITY, 200, 1)
    assert more == 240_000
    assert less < 100_000


async def test_weighted_fair_queueing_shares_by_priority() -> None:
    heavy, light = await shares(Scheduler.WEIGHTED_FAIR_QUEUEING, 1, 3)
    assert heavy == 240_000
    assert 70_000 < light < 180_000


async def test_first_come_is_first_served() -> None:
    first, second = await shares(Scheduler.FIRST_COME_FIRST_SERVED, 100, 1)
    assert first == 240_000
    assert second < 100_000


async def test_round_robin_does_not_care_for_priorities() -> None:
    one, other = await shares(Scheduler.ROUND_ROBIN, 200, 1)
    assert min(one, other) > 180_000


async def test_a_priority_may_be_changed_while_data_waits() -> None:
    async with slow_pair(Scheduler.PRIORITY) as (client, server):
        first, second = await ready(client.clone(conn_priority=1)), await ready(client.clone(conn_priority=9))
        peers = [await peer_of(clone, server) for clone in (first, second)]
        for clone in (first, second):
            clone.send(bytes(400_000))
        await exactly(peers[0], 50_000)
        second.set_property("conn_priority", 0)
        assert await exactly(peers[1], 400_000) == bytes(400_000)
        left = asyncio.ensure_future(exactly(peers[0], 350_000))
        assert not left.done()
        await left


async def test_what_has_an_effect_is_not_named_as_without() -> None:
    async with pair() as (client, _):
        for scheduler in Scheduler:
            client.set_property("conn_scheduler", scheduler)
        client.set_property("conn_priority", 1)
        client.set_property("conn_capacity_profile", CapacityProfile.LOW_LATENCY_INTERACTIVE)
        named = set(client.get_properties()["without_effect"])
        assert not {"conn_priority", "conn_scheduler", "conn_capacity_profile", "conn_timeout"} & named


@pytest.mark.parametrize("policy", list(MultipathPolicy))
async def test_policies_for_several_paths_at_once_are_hints(policy: MultipathPolicy) -> None:
    async with pair() as (client, _):
        client.set_property("multipath_policy", policy)
        told = client.get_properties()
        assert told["multipath_policy"] is policy
        acts = policy is MultipathPolicy.HANDOVER
        assert ("multipath_policy" in told["without_effect"]) is not acts


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback has one address")
@pytest.mark.parametrize("policy", [MultipathPolicy.HANDOVER, MultipathPolicy.AGGREGATE])
async def test_a_client_goes_on_from_another_address_when_the_first_fails(policy: MultipathPolicy) -> None:
    gone: set[tuple[str, int]] = set()
    async with (
        listening() as listener,
        Relay.to(port_of(listener), lambda data, _, __: () if relay.client in gone else (data,)) as relay,
        connected(going_to(relay.port), listener) as (client, server),
    ):
        client.set_property("multipath_policy", policy)
        moved = asyncio.Event()
        client.on_path_change = lambda _: moved.set()
        client.send(b"x")
        await exactly(server, 1)
        client.add_local(LocalEndpoint(address="127.0.0.2"))
        client.send(b"x")
        await exactly(server, 1)
        assert not moved.is_set(), "the first carries packets"
        assert relay.client is not None
        gone.add(relay.client)
        client.send(b"still here")
        assert await exactly(server, 10) == b"still here"
        await asyncio.wait_for(moved.wait(), TIME)
        assert client.local_endpoint is not None
        assert str(client.local_endpoint.address) == "127.0.0.2"


async def test_statistics_tell_of_the_connection() -> None:
    async with pair() as (client, server):
        client.send(bytes(100_000))
        await exactly(server, 100_000)
        statistics = client.statistics
        assert 0 < statistics["rtt"] < 1
        assert statistics["streams"] == 1
        assert statistics["congestion_window"] > 10_000
        assert statistics["path_mtu"] >= 1200


# A Listener of several


async def test_a_stopped_listener_leaves_accepted_connections_alone_and_refuses_others() -> None:
    async with listening() as listener, connected(going_to(port_of(listener)), listener) as (client, server):
        port = port_of(listener)
        await listener.stop()
        for number in range(20):
            client.send(b"%02d" % number)
            assert await exactly(server, 2) == b"%02d" % number
        with pytest.raises(EstablishmentError, match="takes no new connections"):
            await going_to(port).initiate(timeout=5)
        server.send(b"bye")
        assert await exactly(client, 3) == b"bye"


async def test_after_the_last_connection_the_port_is_free_again() -> None:
    async with listening() as listener, connected(going_to(port_of(listener)), listener) as (client, server):
        port = port_of(listener)
        await listener.stop()
        client.abort()
        server.abort()
        await until(lambda: is_free_for_udp(port))


async def test_a_clone_that_sends_at_once_is_told_ready_once_whenever_the_handler_is_set() -> None:
    async with pair() as (client, _):
        told: list[str] = []
        early, late = client.clone(), client.clone()
        early.on_ready = lambda clone: told.append("early")
        sent = [early.send(b"1"), late.send(b"2")]
        assert told == []
        late.on_ready = lambda clone: told.append("late")
        await asyncio.gather(*sent)
        await until(lambda: len(told) == 2)
        await asyncio.gather(early, late)
        assert sorted(told) == ["early", "late"]


async def test_wider_items_count_as_their_bytes() -> None:
    async with pair() as (client, server):
        numbers = array.array("I", [1, 2])
        await client.send(numbers)  # type: ignore[arg-type]
        assert bytes(await server.receive(min_incomplete_length=8)) == numbers.tobytes()
        await client.send(memoryview(b"s.t.r.i.d.e.d.")[::2])
        assert bytes(await server.receive(min_incomplete_length=7)) == b"strided"
