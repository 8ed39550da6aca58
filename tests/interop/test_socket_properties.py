"""Connection Properties as the kernel shows them to others: its table of sockets, and the pace of arrival."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from api.loopback import BOTH_LOOPS, HOST, going_to, listening_on, port_of, stream, to_plain_peer, turns
from conftest import program
from neatpy import Connection

pytestmark = BOTH_LOOPS

needs_ss = pytest.mark.needs_program("ss")


def as_ss_tells(connection: Connection) -> str:
    """The line of ``ss`` about this Connection's socket, timers and options included."""
    local = connection.local_endpoint
    ss = program("ss")
    assert local is not None
    assert ss is not None
    filters = ("state", "established", f"sport = :{local.port}")
    return subprocess.run([ss, "-Htnoei", *filters], capture_output=True, text=True, check=True).stdout


@needs_ss
async def test_keep_alive_starts_the_kernels_timer() -> None:
    async with to_plain_peer(stream(keep_alive="require", keep_alive_timeout=77)) as (connection, _):
        assert re.search(r"timer:\(keepalive,1min1[5-7]sec,0\)", as_ss_tells(connection))


@needs_ss
async def test_keep_alive_is_off_unless_wanted() -> None:
    async with to_plain_peer(stream(keep_alive="prohibit", keep_alive_timeout=77)) as (connection, _):
        assert "keepalive" not in as_ss_tells(connection)


@needs_ss
async def test_keep_alive_starts_on_accepted_connections_too() -> None:
    properties = stream(keep_alive="require", keep_alive_timeout=77)
    async with listening_on(properties).listen() as listener:
        client = await going_to(port_of(listener)).initiate(timeout=5)
        accepted = await listener.accept()
        assert "timer:(keepalive,1min" in as_ss_tells(accepted)
        assert "keepalive" not in as_ss_tells(client)
        accepted.abort()
        client.abort()
        await turns()


@needs_ss
async def test_a_send_rate_is_known_to_the_kernel_and_can_change() -> None:
    async with to_plain_peer(stream(max_send_rate=80_000_000)) as (connection, _):
        assert "/80000000bps" in re.sub(r"Mbps", "000000bps", as_ss_tells(connection))
        connection.set_property("max_send_rate", 8_000_000)
        assert "/8000000bps" in re.sub(r"Mbps", "000000bps", as_ss_tells(connection))


async def test_a_send_rate_paces_what_arrives() -> None:
    rate = 16_000_000  # bits per second
    data = bytes(rate // 8 // 2)  # half a second's worth
    async with listening_on().listen() as listener:
        client = await going_to(port_of(listener), stream(max_send_rate=rate), host=HOST).initiate(timeout=5)
        accepted = await listener.accept()
        began = time.monotonic()
        client.send(data, final=True)
        message = await accepted.receive()
        assert len(message.data) == len(data)
        assert 0.25 < time.monotonic() - began < 1.5
        client.abort()
        accepted.abort()
        await turns()
