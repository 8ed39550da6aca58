"""The package itself: what ``import neatpy`` gives, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import neatpy

LIGHT = """
import sys
import neatpy
print([name for name in ("neatpy.trace", "neatpy.framers", "neatpy.framer") if name in sys.modules])
print(neatpy.trace.Event.__name__, neatpy.framers.DelimiterFramer.__name__)
"""

MINIMAL_CLIENT = """
import asyncio
import sys
from neatpy import Preconnection, RemoteEndpoint, SecurityParameters, TransportProperties

async def echo(reader, writer):
    writer.write(await reader.readexactly(4))

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    client = Preconnection(
        remote=RemoteEndpoint("127.0.0.1", server.sockets[0].getsockname()[1], protocol="tcp"),
        properties=TransportProperties.reliable_inorder_stream(),
        security=SecurityParameters.disabled(),
    )
    async with client.initiate() as connection:
        connection.send(b"ping")
        print(bytes(await connection.receive(min_incomplete_length=4)))
    server.close()

asyncio.run(main())
print(*sys.modules)
"""
NEEDLESS = {
    "neatpy.choices",
    "neatpy.establishment.contest",
    "neatpy.establishment.interface_choice",
    "neatpy.establishment.resolution",
    "neatpy.establishment.ruled_out",
    "neatpy.establishment.tree",
    "neatpy.group",
    "neatpy.listener",
    "neatpy.scheduling",
    "neatpy.security_values",
    "neatpy.stacks.dtls",
    "neatpy.stacks.sctp",
    "neatpy.stacks.tls",
    "neatpy.stacks.udp",
}


def test_a_client_of_one_stack_and_one_address_loads_no_other_stack_and_nothing_for_a_choice() -> None:
    done = subprocess.run([sys.executable, "-c", MINIMAL_CLIENT], capture_output=True, text=True, timeout=30)
    received, loaded = done.stdout.splitlines()
    assert (received, done.stderr) == ("b'ping'", "")
    assert not NEEDLESS & set(loaded.split())


def test_the_public_modules_are_loaded_when_they_are_first_used() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("[]\nEvent DelimiterFramer\n", "")
    assert {"framers", "trace"} <= set(dir(neatpy))


def test_run_inside_a_loop_says_so_and_leaves_nothing_behind() -> None:
    async def nothing() -> None:
        """Never runs."""

    async def inside() -> None:
        neatpy.run(nothing())

    with pytest.raises(RuntimeError, match="running event loop"):
        neatpy.run(inside())
