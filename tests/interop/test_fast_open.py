"""TCP Fast Open, in a namespace whose kernel allows it: the first Message, or TLS's hello, travels with the SYN."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from interop.netns import Namespace
from neatpy import (
    Certificate,
    LocalEndpoint,
    MessageContext,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)

HOST = "127.0.0.1"
TIMES = 3


async def ask_again_and_again(protocol: str, marked: bool, wanted: str, isolated: bool = False) -> list[Any]:
    """What a Listener hears early, asked several times; and what the kernel counts of SYNs with data."""
    properties = TransportProperties(zero_rtt_msg=wanted, isolate_session=isolated)
    certificate = Certificate.self_signed("localhost", HOST)
    secure = protocol == "tls/tcp"
    serving = SecurityParameters(server_certificate=certificate) if secure else SecurityParameters.disabled()
    asking = SecurityParameters(trusted_certificates=certificate) if secure else SecurityParameters.disabled()
    early: list[bool] = []
    before = _syns_with_data()

    async def answer(connection: Any) -> None:
        message = await connection.receive(min_incomplete_length=8)
        assert bytes(message) == b"question"
        early.append(message.context.early_data)
        await connection.send(b"answer", final=True)
        async for _ in connection:
            pass

    listener = Preconnection(
        LocalEndpoint(0, address=HOST, protocol=protocol), properties=properties, security=serving
    ).listen()
    await listener
    served = asyncio.create_task(listener.serve(answer))
    preconnection = Preconnection(
        remote=RemoteEndpoint("localhost", listener.local_endpoints[0].port, address=HOST, protocol=protocol),
        properties=properties,
        security=asking,
    )
    for _ in range(TIMES):
        context = MessageContext(safely_replayable=marked)
        async with preconnection.initiate_with_send(b"question", context, timeout=5) as connection:
            assert bytes(await connection.receive()) == b"answer"
    await listener.stop()
    await served
    return [early, _syns_with_data() - before]


def _syns_with_data() -> int:
    lines = Path("/proc/net/netstat").read_text().splitlines()
    names, numbers = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(numbers[names.index("TCPFastOpenActive")])


@pytest.fixture
def fast(alone: Namespace) -> Namespace:
    """A namespace whose kernel uses Fast Open on both sides."""
    alone.execute("sysctl", "-q", "-w", "net.ipv4.tcp_fastopen=3")
    return alone


async def test_a_replayable_message_travels_with_the_syn_once_there_is_a_cookie(fast: Namespace) -> None:
    early, with_data = await fast.run(ask_again_and_again, "tcp", True, "prefer")
    assert early == [False, True, True]
    assert with_data == TIMES - 1


async def test_a_message_that_is_not_marked_never_travels_with_the_syn(fast: Namespace) -> None:
    assert await fast.run(ask_again_and_again, "tcp", False, "prefer") == [[False] * TIMES, 0]


async def test_nothing_travels_with_the_syn_unasked(fast: Namespace) -> None:
    assert await fast.run(ask_again_and_again, "tcp", True, "no_preference") == [[False] * TIMES, 0]


@pytest.mark.parametrize("protocol", ["tcp", "tls/tcp"])
async def test_an_isolated_session_is_not_recognised_by_a_cookie(fast: Namespace, protocol: str) -> None:
    assert await fast.run(ask_again_and_again, protocol, True, "prefer", True) == [[False] * TIMES, 0]


async def test_the_hello_of_tls_travels_with_the_syn(fast: Namespace) -> None:
    early, with_data = await fast.run(ask_again_and_again, "tls/tcp", True, "prefer")
    assert early == [False] * TIMES  # the Message itself is encrypted, and waits for the handshake
    assert with_data >= TIMES - 1


async def test_where_the_kernel_allows_no_fast_open_the_message_comes_after_the_handshake(
    alone: Namespace,
) -> None:
    alone.execute("sysctl", "-q", "-w", "net.ipv4.tcp_fastopen=0")
    assert await alone.run(ask_again_and_again, "tcp", True, "prefer") == [[False] * TIMES, 0]
