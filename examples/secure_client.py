"""A client that trusts a certificate of its own choice, and what becomes of one that does not.

Run it: python examples/secure_client.py (making the certificate needs neatpy[tls])
"""

from __future__ import annotations

import asyncio

import neatpy
from neatpy import Certificate, Connection, LocalEndpoint, Preconnection, RemoteEndpoint, SecurityParameters


async def greet(connection: Connection) -> None:
    await connection.send(b"welcome")


async def main() -> None:
    # For tests and demonstrations; a real server reads its own: Certificate.from_files("chain.pem", "key.pem").
    certificate = Certificate.self_signed("localhost")
    server = Preconnection(
        LocalEndpoint(0, address="127.0.0.1"), security=SecurityParameters(server_certificate=certificate)
    )
    async with server.listen() as listener:
        serving = asyncio.create_task(listener.serve(greet))
        remote = RemoteEndpoint("localhost", listener.local_endpoints[0].port)

        # trusted_certificates stand beside the system's roots. The name is verified in any case.
        trusting = Preconnection(remote=remote, security=SecurityParameters(trusted_certificates=certificate))
        async with trusting.initiate(timeout=5) as connection:
            message = await connection.receive()
            print(f"{bytes(message).decode()}, over {connection.get_properties()['security']['protocol']}")

        # Without it the server is a stranger. Nothing falls back: the error names every attempt.
        try:
            await Preconnection(remote=remote).initiate(timeout=5)
        except neatpy.EstablishmentError as error:
            print(f"refused, as it should be: {error.reason.value}, {len(error.attempts)} attempts")

        await listener.stop()
        await serving


neatpy.run(main())
