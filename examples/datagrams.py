"""Messages that may be lost, reordered or doubled: what live audio or a sensor wants.

Run it: python examples/datagrams.py
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

# The profile avoids reliability and order, requires boundaries, and says that Messages may safely arrive twice.
DATAGRAMS = TransportProperties.unreliable_datagram()
PLAIN = SecurityParameters.disabled()  # without this word, a stack without encryption is no candidate


async def acknowledge(connection: Connection) -> None:
    # A Connection for each peer, from its first datagram on. Datagrams have no end: this runs until the Listener stops.
    async for reading in connection:
        await connection.send(b"got " + reading.data)


async def main() -> None:
    server = Preconnection(LocalEndpoint(0, address="127.0.0.1"), properties=DATAGRAMS, security=PLAIN)
    async with server.listen() as listener:
        serving = asyncio.create_task(listener.serve(acknowledge, grace=0))  # grace: seconds after stop()
        sensor = Preconnection(
            remote=RemoteEndpoint("127.0.0.1", listener.local_endpoints[0].port),
            properties=DATAGRAMS,
            security=PLAIN,
        )
        async with sensor.initiate() as connection:
            limit = connection.get_properties()["send_msg_max_len"]
            print(f"over {connection.stack}, up to {limit} bytes each")
            for reading in (b"21.5", b"21.7"):
                # Worth nothing after half a second: if it is still here then, it expires instead of leaving.
                await connection.send(reading, msg_lifetime=0.5)
                async with asyncio.timeout(5):  # it may be lost, so waiting for ever would be wrong
                    print(bytes(await connection.receive()).decode())
        await listener.stop()
        await serving


neatpy.run(main())
