"""SCTP over UDP with werift-sctp, an implementation in TypeScript that shares nothing with usrsctp, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.loopback import BOTH_LOOPS, HOST, PLAIN, until
from interop.node import modules
from interop.programs import running
from neatpy import (
    LocalEndpoint,
    MessageContext,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    TransportProperties,
)
from neatpy.stacks._sctp.library import obstacle

SCRIPT = str(Path(__file__).with_name("werift_sctp.js"))
SIZES = (1, 1200, 5000, 60_000)

pytestmark = [
    BOTH_LOOPS,
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
    pytest.mark.needs_program("node", "npm"),
]


@pytest.fixture(scope="module")
def werift() -> str:
    """The directory that has werift-sctp, and what it forgets to say that it needs."""
    return str(modules("werift-sctp", "debug"))


@pytest.fixture(autouse=True)
async def _everything_is_given_back() -> AsyncIterator[None]:
    from neatpy.stacks._sctp.engine import ENGINE

    yield
    await until(lambda: ENGINE.counts() == (0, 0))


async def test_it_gives_back_what_we_send(werift: str, free_port: int) -> None:
    async with running("node", SCRIPT, werift, str(free_port), "listen") as program:
        udp_port = int((await program.says(r"udp (\d+)", 10))[1])
        # It takes the peer's SCTP port to be its own.
        connection = Preconnection(
            local=LocalEndpoint(free_port, address=HOST),
            remote=RemoteEndpoint(HOST, free_port, protocol="sctp"),
            properties=TransportProperties.reliable_message().set("_neatpy.encapsulation_port", udp_port),
            security=PLAIN,
        ).initiate(timeout=5)
        await connection
        for ordered in (True, False):
            for size in SIZES:
                context = MessageContext(msg_ordered=ordered, **{"_neatpy.payload_protocol_id": 51})
                connection.send(bytes([size % 251]) * size, context)
                message = await asyncio.wait_for(connection.receive(), 10)
                assert bytes(message) == bytes([size % 251]) * size
                assert message.context.neatpy_payload_protocol_id == 51
        connection.abort()
        await program.says("closed")


async def test_a_listener_takes_what_it_sends(werift: str, free_port: int) -> None:
    listener = Preconnection(
        local=LocalEndpoint(free_port, address=HOST, protocol="sctp"),
        properties=TransportProperties.reliable_message(),
        security=PLAIN,
    ).listen()
    sizes = [str(size) for size in SIZES]
    port = str(free_port)
    async with listener, running("node", SCRIPT, werift, port, "connect", port, *sizes) as program:
        server = await asyncio.wait_for(listener.accept(), 10)
        for index, size in enumerate(SIZES):
            message = await asyncio.wait_for(server.receive(), 10)
            assert bytes(message) == bytes([index]) * size
            assert message.context.neatpy_payload_protocol_id == 50 + index
        server.send(b"\x07" * 40_000)
        await program.says(r"received 0 0 40000 7")
        await asyncio.wait_for(server.close(), 10)
        with pytest.raises(ReceiveError) as caught:
            await server.receive()
        assert caught.value.reason is Reason.CONNECTION_CLOSED
