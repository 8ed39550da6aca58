"""The Message of InitiateWithSend travels with the handshake where it may (RFC 9622 sections 6.2.5 and 9.2.5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from api.loopback import BOTH_LOOPS, HOST, length_framed, port_of, until
from neatpy import (
    Certificate,
    Framer,
    LocalEndpoint,
    Message,
    MessageContext,
    Preconnection,
    Preference,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from neatpy.framers import DelimiterFramer
from neatpy.stacks.registry import stacks

pytestmark = pytest.mark.skipif(not stacks()["quic"].available().available, reason="aioquic is not installed")

CERTIFICATE = Certificate.self_signed("localhost", HOST)
SERVING = SecurityParameters(server_certificate=CERTIFICATE)
REPLAYABLE = MessageContext(safely_replayable=True)


def asking(port: int, framers: Iterable[Framer] = (), **properties: Any) -> Preconnection:
    return Preconnection(
        remote=RemoteEndpoint("localhost", port, address=HOST, protocol="quic"),
        properties=TransportProperties(**properties),
        security=SecurityParameters(trusted_certificates=CERTIFICATE, alpn=f"at-{port}"),
        framers=framers,
    )


async def ask(preconnection: Preconnection, context: MessageContext | None = REPLAYABLE) -> dict[str, Any]:
    """Ask once, and wait for the answer and the session that comes after it; what was negotiated."""
    async with preconnection.initiate_with_send(b"question", context, timeout=5) as connection:
        answer = await connection.receive(min_incomplete_length=6)
        assert bytes(answer) == b"answer"
        assert connection.initial_send is not None
        await connection.initial_send
        facts: dict[str, Any] = connection.get_properties()["security"]
        return facts


async def free_port() -> int:
    """A port that nobody listens on, at least for now."""
    async with Preconnection(
        LocalEndpoint(0, address=HOST, protocol="quic"), security=SERVING
    ).listen() as one:
        return port_of(one)


@asynccontextmanager
async def answering(
    port: int, framers: tuple[Framer, ...] = (), sessions: int | None = None, **properties: Any
) -> AsyncIterator[list[Message]]:
    """Somebody who answers there; gives the first Messages of all who come. An ALPN of its own keeps the sessions of
    one test from the others."""
    heard: list[Message] = []

    async def answer(connection: Any) -> None:
        heard.append(await connection.receive(min_incomplete_length=1))
        await connection.send(b"answer")
        async for _ in connection:
            pass

    preconnection = Preconnection(
        LocalEndpoint(port, address=HOST, protocol="quic"),
        properties=TransportProperties(**properties),
        security=SecurityParameters(
            server_certificate=CERTIFICATE, alpn=f"at-{port}", max_cached_sessions=sessions
        ),
        framers=framers,
    )
    async with preconnection.listen() as listener:
        served = asyncio.create_task(listener.serve(answer))
        yield heard
        await listener.stop()
        await served


@asynccontextmanager
async def both(
    framers: Iterable[Framer] = (), asked: dict[str, Any] | None = None, **properties: Any
) -> AsyncIterator[tuple[Preconnection, list[Message]]]:
    """Somebody who answers, and how to ask."""
    port = await free_port()
    framers = tuple(framers)
    async with answering(port, framers, **properties) as heard:
        yield asking(port, framers, **(asked or {})), heard


@BOTH_LOOPS
@pytest.mark.parametrize("framers", [(), tuple(length_framed())], ids=["raw", "framed"])
async def test_a_replayable_message_travels_early_once_there_is_a_session(
    framers: tuple[Framer, ...],
) -> None:
    async with both(framers) as (preconnection, heard):
        assert not (await ask(preconnection))["resumed"]
        assert (await ask(preconnection))["resumed"]
        assert [bytes(message) for message in heard] == [b"question", b"question"]
        assert [message.context.early_data for message in heard] == [False, True]


async def test_a_message_that_is_not_marked_never_travels_early() -> None:
    async with both() as (preconnection, heard):
        await ask(preconnection, None)
        assert (await ask(preconnection, None))["resumed"]
        assert [message.context.early_data for message in heard] == [False, False]


@pytest.mark.parametrize("preference", [Preference.AVOID, Preference.PROHIBIT])
async def test_nothing_travels_early_where_the_client_does_not_want_it(preference: Preference) -> None:
    async with both(asked={"zero_rtt_msg": preference}) as (preconnection, heard):
        await ask(preconnection)
        await ask(preconnection)
        assert [message.context.early_data for message in heard] == [False, False]


async def test_nothing_is_taken_early_where_the_listener_does_not_want_it() -> None:
    async with both(zero_rtt_msg=Preference.PROHIBIT) as (preconnection, heard):
        await ask(preconnection)
        await ask(preconnection)
        assert [message.context.early_data for message in heard] == [False, False]


async def test_an_isolated_session_is_neither_resumed_nor_kept() -> None:
    async with both(asked={"isolate_session": True}) as (preconnection, heard):
        for _ in range(3):
            assert not (await ask(preconnection))["resumed"]
        assert not any(message.context.early_data for message in heard)


async def test_a_rejected_message_comes_once_and_in_the_same_handshake() -> None:
    port = await free_port()
    preconnection = asking(port)
    async with answering(port) as heard:
        await ask(preconnection)
    async with answering(port, sessions=0) as heard:  # which knows nothing of the first one's sessions
        assert not (await ask(preconnection))["resumed"]
        assert [bytes(message) for message in heard] == [b"question"]
        assert not heard[0].context.early_data


async def test_a_message_that_travelled_early_survives_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both() as (preconnection, heard):
        await ask(preconnection)
        monkeypatch.setattr("neatpy.stacks._quic.port.UNPROVEN", 0)
        assert (await ask(preconnection))["resumed"]
        assert [bytes(message) for message in heard] == [b"question", b"question"]


async def test_a_message_whose_framer_has_no_frames_of_its_own_waits_for_the_handshake() -> None:
    async with both((DelimiterFramer(b"\n"),)) as (preconnection, heard):
        await ask(preconnection)
        assert (await ask(preconnection))["resumed"]
        assert not any(message.context.early_data for message in heard)


async def test_the_first_message_goes_before_more_urgent_ones_that_were_sent_after_it() -> None:
    async with both(length_framed()) as (preconnection, heard):
        await ask(preconnection)
        connection = preconnection.initiate_with_send(b"question", REPLAYABLE)
        later = connection.send(b"urgent", msg_priority=0)
        await later
        await until(lambda: len(heard) == 2)
        assert bytes(heard[1]) == b"question"
        await connection.close()
