"""An echo server and its client, both in this process: the shortest way in.

Neither says which protocol to use; both say what they need. Run it: python examples/echo.py
"""

from __future__ import annotations

import asyncio
import contextlib

import neatpy
from neatpy import (
    Connection,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)

# Security is on unless a program says otherwise, aloud. secure_client.py leaves it on.
PLAIN = SecurityParameters.disabled()
STREAM = TransportProperties.reliable_inorder_stream()


async def echo(connection: Connection) -> None:
    # Without boundaries, as over tcp, a stream is one Message, which ends when the client is done. An echo wants parts
    # as they come: min_incomplete_length=1 takes whatever is there. At the end it raises ReceiveError.
    with contextlib.suppress(neatpy.ReceiveError):
        while True:
            part = await connection.receive(min_incomplete_length=1)
            await connection.send(part.data)  # Sent: the stack has it, so a slow client slows us down


async def main() -> None:
    server = Preconnection(LocalEndpoint(0, address="127.0.0.1"), properties=STREAM, security=PLAIN)
    async with server.listen() as listener:  # port 0 is any free one; local_endpoints has the real one
        serving = asyncio.create_task(listener.serve(echo))  # one task for each Connection
        port = listener.local_endpoints[0].port

        client = Preconnection(remote=RemoteEndpoint("localhost", port), properties=STREAM, security=PLAIN)
        async with client.initiate(timeout=5) as connection:  # waits for Ready, closes at the end
            connection.send(b"Hello, ")  # nobody has to wait for Sent
            await connection.send(b"world!", final=True)  # Final: the server sees the end, we still receive
            # A profile for streams cares for no boundaries, so one or two Messages come back; sctp keeps them apart.
            reply = b"".join([bytes(message) async for message in connection])
            print(f"{reply.decode()} came back over {connection.stack}")
        await listener.stop()
        await serving


neatpy.run(main())
