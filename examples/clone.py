"""A second Connection to the same peer: another stream where the protocol has streams, else a connection of its own.

Run it: python examples/clone.py
"""

from __future__ import annotations

import asyncio

import neatpy
from neatpy import (
    Connection,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from neatpy.framers import DelimiterFramer

PLAIN = SecurityParameters.disabled()


async def answer(connection: Connection) -> None:
    async for line in connection:
        await connection.send(line.data[::-1])


async def main() -> None:
    messages = TransportProperties.reliable_message()
    local = LocalEndpoint(0, address="127.0.0.1")
    server = Preconnection(local, None, messages, PLAIN, [DelimiterFramer(b"\n")])
    async with server.listen() as listener:
        serving = asyncio.create_task(listener.serve(answer))
        client = Preconnection(
            remote=RemoteEndpoint("127.0.0.1", listener.local_endpoints[0].port),
            properties=messages,
            security=PLAIN,
            framers=[DelimiterFramer(b"\n")],
        )
        async with client.initiate(timeout=5) as first:
            # Endpoints, properties and framers are those of the first; what is given here is different.
            second = await first.clone(conn_priority=10)  # more urgent than the default, 100
            print(f"{len(first.grouped_connections)} Connections in the group")

            # A Connection Property set on one holds for all of the group, conn_priority excepted.
            first.set_property("conn_capacity_profile", "scavenger")
            print("both are now", second.get_properties()["conn_capacity_profile"].name)

            first.send(b"tsrif")
            second.send(b"dnoces")
            for connection in (first, second):
                print(bytes(await connection.receive()).decode())
            await first.close_group()
        await listener.stop()
        await serving


neatpy.run(main())
