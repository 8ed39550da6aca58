"""Connection Properties that act on a QUIC connection: on both sides of it, and on every member of the group."""

from __future__ import annotations

import asyncio
import socket

import pytest

pytest.importorskip("aioquic")

from quic_wire import initial, stranger, talk

from api.conftest import complaints
from api.loopback import until
from api.quic_loopback import (
    TIME,
    everything_is_given_back,
    listening,
    pair,
    streams,
    transport_of,
)
from neatpy import CapacityProfile, Reason, ReceiveError, Scheduler
from neatpy.stacks._quic.paths import OwnPath

__all__ = ["complaints", "everything_is_given_back"]
pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.usefixtures("everything_is_given_back"),
]


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_group_limit_is_of_connections_beside_the_first(side: str) -> None:
    limited, other = streams(group_conn_limit=2), streams()
    of_client, of_server = (limited, other) if side == "client" else (other, limited)
    async with pair(of_client, server_properties=of_server) as (client, server):
        await talk(client, server)
        opener = server if side == "client" else client
        for _ in range(2):
            assert transport_of(opener).engine.may_open(False)
            clone = await opener.clone()
            assert transport_of(clone) is transport_of(opener)
        assert not transport_of(opener).engine.may_open(False)


async def test_what_a_clone_is_to_have_the_whole_group_has() -> None:
    async with pair() as (client, _):
        first = await client.clone()
        second = await client.clone(
            conn_timeout=7.0,
            conn_capacity_profile=CapacityProfile.SCAVENGER,
            conn_scheduler=Scheduler.PRIORITY,
            conn_priority=3,
        )
        for member, priority in ((client, 100), (first, 100), (second, 3)):
            told = member.get_properties()
            assert told["conn_timeout"] == 7.0
            assert told["conn_capacity_profile"] is CapacityProfile.SCAVENGER
            assert told["conn_scheduler"] is Scheduler.PRIORITY
            assert told["conn_priority"] == priority
        transport = transport_of(client)
        assert transport.engine.idle_timeout == 7.0
        assert isinstance(transport.path, OwnPath)
        assert transport.path._profile is CapacityProfile.SCAVENGER
        assert transport.order._scheduler is Scheduler.PRIORITY


async def test_without_keep_alive_silence_ends_a_connection() -> None:
    silent = streams(conn_timeout=0.3)
    silent.prohibit("keep_alive")
    async with pair(silent) as both:
        await talk(*both)
        for connection in both:
            with pytest.raises(ReceiveError) as caught:
                await asyncio.wait_for(connection.receive(), TIME)
            assert caught.value.reason is Reason.TIMEOUT


async def test_the_capacity_profile_of_a_listener_marks_the_packets_of_accepted_connections() -> None:
    marked = streams(conn_capacity_profile=CapacityProfile.LOW_LATENCY_INTERACTIVE)
    async with listening(properties=marked) as listener, stranger(listener) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        sock.send(initial())
        seen: list[int] = []

        def came() -> bool:
            try:
                _, control, _, _ = sock.recvmsg(2000, 200)
            except BlockingIOError:
                return False
            seen.extend(value[0] >> 2 for _, kind, value in control if kind == socket.IP_TOS)
            return True

        await until(came)
        assert seen == [CapacityProfile.LOW_LATENCY_INTERACTIVE]
