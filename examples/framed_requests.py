"""Requests and responses over one connection: a framer gives Messages to a byte stream.

Run it: python examples/framed_requests.py
"""

from __future__ import annotations

import asyncio
import json

import neatpy
from neatpy import (
    Connection,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from neatpy.framers import LengthPrefixFramer

PLAIN = SecurityParameters.disabled()
# Boundaries are required. A stack that has them would do alone; a byte stream does with a framer on top.
MESSAGES = TransportProperties.reliable_message()
FRAMER = LengthPrefixFramer(max_length=65536)  # a length before each Message; bounded ones come whole


async def add(connection: Connection) -> None:
    async for request in connection:  # one Message after the other, until the client is done
        numbers = json.loads(request.data)
        await connection.send(json.dumps({"sum": sum(numbers)}).encode())


async def main() -> None:
    server = Preconnection(
        LocalEndpoint(0, address="127.0.0.1"),
        properties=MESSAGES,
        security=PLAIN,
        framers=[FRAMER],
    )
    async with server.listen() as listener:
        serving = asyncio.create_task(listener.serve(add))
        client = Preconnection(
            remote=RemoteEndpoint("localhost", listener.local_endpoints[0].port),
            properties=MESSAGES,
            security=PLAIN,
            framers=[FRAMER],
        )
        async with client.initiate(timeout=5) as connection:
            with connection.batch():  # requests that are sent together leave together
                for numbers in ([1, 2, 3], [40, 2], []):
                    connection.send(json.dumps(numbers).encode())
            for _ in range(3):
                print(json.loads((await connection.receive()).data))
        await listener.stop()
        await serving


neatpy.run(main())
