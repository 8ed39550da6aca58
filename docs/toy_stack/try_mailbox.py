"""Nobody names the mailbox here: of the stacks that keep boundaries, in order, it alone has no streams beside it."""

import asyncio

import neatpy
from neatpy import LocalEndpoint, Preconnection, RemoteEndpoint, SecurityParameters, TransportProperties

PLAIN = SecurityParameters.disabled()
LETTERS = TransportProperties.reliable_message().prohibit("multistreaming")


async def reply(connection: neatpy.Connection) -> None:
    async for letter in connection:
        await connection.send(b"Re: " + letter.data)


async def main() -> None:
    server = Preconnection(LocalEndpoint(0, address="127.0.0.1"), properties=LETTERS, security=PLAIN)
    async with server.listen() as listener:
        serving = asyncio.create_task(listener.serve(reply))
        remote = RemoteEndpoint("127.0.0.1", listener.local_endpoints[0].port)
        client = Preconnection(remote=remote, properties=LETTERS, security=PLAIN)
        print(await client.explain())
        async with client.initiate(timeout=5) as connection:
            connection.send(b"how are you?")
            print(bytes(await connection.receive()).decode(), "- over", connection.stack)
        await listener.stop()
        await serving


neatpy.run(main())
