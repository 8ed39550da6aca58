"""Clones with a connection of their own take turns in sending, by ``conn_priority`` and ``conn_scheduler``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from api.loopback import BOTH_LOOPS, going_to, length_framed, listening_on, port_of, stream, until
from neatpy import Connection, ConnectionError, Expired, Scheduler, SendError, TransportProperties

BLOCK = bytes(64 * 1024)
RATE = 64_000_000
"""Bits per second at which each connection sends, so that something has to wait."""


def paced(**properties: object) -> TransportProperties:
    return stream(max_send_rate=RATE, **properties)


@asynccontextmanager
async def group(
    count: int = 2, **properties: object
) -> AsyncIterator[tuple[list[Connection], list[tuple[int, int]]]]:
    """So many Connections of one group, and what arrives of them: (which, size) in order of arrival."""
    arrived: list[tuple[int, int]] = []

    async def serve(connection: Connection) -> None:
        which = -1
        with suppress(ConnectionError):  # aborted
            async for message in connection:
                if which < 0:
                    which = bytes(message)[0]
                else:
                    arrived.append((which, len(message)))

    async with listening_on(paced(), framers=length_framed()).listen() as listener:
        serving = asyncio.create_task(listener.serve(serve))
        first = await going_to(port_of(listener), paced(**properties), framers=length_framed()).initiate()
        members = [first, *[await first.clone() for _ in range(count - 1)]]
        for number, member in enumerate(members):
            await member.send(bytes([number]))
        try:
            yield members, arrived
        finally:
            first.abort_group()
            await listener.stop()
            await serving


def finished(arrived: list[tuple[int, int]], count: int) -> list[int]:
    """In which order the members had got so many Messages through."""
    seen: dict[int, int] = {}
    order = []
    for which, _ in arrived:
        seen[which] = seen.get(which, 0) + 1
        if seen[which] == count:
            order.append(which)
    return order


@BOTH_LOOPS
@pytest.mark.parametrize("scheduler", [Scheduler.PRIORITY, Scheduler.WEIGHTED_FAIR_QUEUEING])
async def test_the_more_urgent_clone_goes_first(scheduler: Scheduler) -> None:
    async with group(conn_scheduler=scheduler) as ((bulk, urgent), arrived):
        urgent.set_property("conn_priority", 1)
        sends = [bulk.send(BLOCK) for _ in range(60)]
        sends += [urgent.send(BLOCK) for _ in range(20)]
        await asyncio.gather(*sends)
        await until(lambda: len(arrived) == 80)
        assert finished(arrived, 20)[0] == 1
        before = [which for which, _ in arrived[: arrived.index((1, len(BLOCK)), 0) + 1]]
        assert len(before) < 40, "the urgent one had to wait for nearly everything"


@BOTH_LOOPS
async def test_equal_priorities_leave_the_sharing_to_congestion_control() -> None:
    async with group() as ((one, other), arrived):
        assert one._path.outgoing.turns is None
        one.set_property("conn_priority", 7)
        assert one._path.outgoing.turns is not None
        other.set_property("conn_priority", 7)
        assert one._path.outgoing.turns is None
        await asyncio.gather(*(member.send(BLOCK) for member in (one, other) for _ in range(4)))
        await until(lambda: len(arrived) == 8)


@BOTH_LOOPS
async def test_what_waited_while_turns_were_taken_leaves_when_they_end() -> None:
    async with group() as ((one, other), arrived):
        other.set_property("conn_priority", 0)
        sends = [member.send(BLOCK) for _ in range(30) for member in (one, other)]
        other.set_property("conn_priority", 100)
        await asyncio.gather(*sends)
        await until(lambda: len(arrived) == 60)


@BOTH_LOOPS
async def test_each_message_is_answered_once_and_arrives_in_order_of_its_connection() -> None:
    async with group(3, conn_scheduler=Scheduler.ROUND_ROBIN) as (members, arrived):
        sends = [member.send(bytes(1000 + number)) for number in range(50) for member in members]
        await asyncio.gather(*sends)
        await until(lambda: len(arrived) == 150)
        for which in range(3):
            assert [size for who, size in arrived if who == which] == [1000 + n for n in range(50)]


@BOTH_LOOPS
async def test_a_message_expires_while_it_waits_for_its_turn() -> None:
    async with group(conn_scheduler=Scheduler.PRIORITY) as ((urgent, other), arrived):
        urgent.set_property("conn_priority", 0)
        first = [urgent.send(BLOCK) for _ in range(40)]
        late = [other.send(BLOCK, msg_lifetime=0.02) for _ in range(3)]
        results = await asyncio.gather(*late, return_exceptions=True)
        assert any(isinstance(result, Expired) for result in results)
        await asyncio.gather(*first)
        kept = other.send(b"still here")
        await kept
        await until(lambda: (1, 10) in arrived)


@BOTH_LOOPS
async def test_close_delivers_what_waits_for_its_turn() -> None:
    async with group(conn_scheduler=Scheduler.PRIORITY) as ((urgent, other), arrived):
        urgent.set_property("conn_priority", 0)
        for _ in range(20):
            urgent.send(BLOCK)
            other.send(BLOCK)
        await asyncio.gather(other.close(), urgent.close())
        await until(lambda: len(arrived) == 40)


@BOTH_LOOPS
async def test_who_is_aborted_holds_nobody_up() -> None:
    async with group(conn_scheduler=Scheduler.PRIORITY) as ((urgent, other), arrived):
        urgent.set_property("conn_priority", 0)
        sends = [urgent.send(BLOCK) for _ in range(60)]
        kept = [other.send(BLOCK) for _ in range(10)]
        urgent.abort()
        await asyncio.gather(*kept)
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert any(isinstance(result, SendError) for result in results)
        await until(lambda: sum(which == 1 for which, _ in arrived) == 10)


@BOTH_LOOPS
async def test_a_final_message_waits_for_its_turn_and_ends_the_sending_side() -> None:
    async with group(conn_scheduler=Scheduler.PRIORITY) as ((urgent, other), arrived):
        urgent.set_property("conn_priority", 0)
        sends = [urgent.send(BLOCK) for _ in range(10)]
        sends += [other.send(BLOCK), other.send(b"the end", final=True)]
        await asyncio.gather(*sends)
        assert not other.can_send
        await until(lambda: (1, 7) in arrived)


async def test_priorities_are_told_to_have_an_effect() -> None:
    async with group(conn_scheduler=Scheduler.PRIORITY, conn_priority=3) as ((one, _), _arrived):
        without = one.get_properties()["without_effect"]
        assert "conn_priority" not in without
        assert "conn_scheduler" not in without
