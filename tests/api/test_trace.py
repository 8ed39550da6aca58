"""The trace hook: everything that happens to Connections and Listeners can be seen, and nothing secret."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import neatpy
from api.loopback import BOTH_LOOPS, HOST, pair, until
from neatpy import EstablishmentError, Preconnection, RemoteEndpoint, SecurityParameters, trace
from neatpy.hook import hook


def names(events: list[trace.Event], subject: object) -> list[str]:
    return [type(event).__name__ for event in events if event.subject is subject]


@BOTH_LOOPS
async def test_a_whole_life_is_told_in_order() -> None:
    events: list[trace.Event] = []
    unsubscribe = trace.subscribe(events.append)
    try:
        async with pair() as (client, server):
            await client.send(b"hello")
            assert bytes(await server.receive(min_incomplete_length=1)) == b"hello"
            await client.close()
            await until(lambda: "PeerFinished" in names(events, server))
    finally:
        unsubscribe()
    told = names(events, client)
    assert told == ["CandidateStarted", "CandidateWon", "Ready", "MessageSent", "Closed"]
    assert names(events, server)[:3] == ["Ready", "DataReceived", "PeerFinished"]
    listener_told = [type(event).__name__ for event in events if isinstance(event.subject, neatpy.Listener)]
    assert listener_told[:2] == ["Listening", "ConnectionReceived"]
    times = [event.time for event in events]
    assert times == sorted(times)
    ready = next(event for event in events if isinstance(event, trace.Ready) and event.subject is client)
    assert ready.details["stack"] == "tcp"


async def test_a_failed_establishment_is_told_with_its_attempts(refused_port: int) -> None:
    events: list[trace.Event] = []
    unsubscribe = trace.subscribe(events.append)
    connection = Preconnection(
        remote=RemoteEndpoint(HOST, refused_port), security=SecurityParameters.disabled()
    ).initiate()
    with pytest.raises(EstablishmentError):
        await connection
    unsubscribe()
    assert names(events, connection) == ["CandidateStarted", "CandidateFailed", "EstablishmentFailed"]


async def test_nothing_is_told_after_unsubscribing() -> None:
    events: list[trace.Event] = []
    trace.subscribe(events.append)()
    async with pair() as (client, _):
        await client.send(b"unseen")
    assert events == []


async def test_a_listener_that_raises_harms_nothing_and_is_reported() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    def bad(event: trace.Event) -> None:
        raise ZeroDivisionError

    unsubscribe = trace.subscribe(bad)
    try:
        async with pair() as (client, server):
            await client.send(b"still works")
            assert bytes(await server.receive(min_incomplete_length=1)) == b"still works"
    finally:
        unsubscribe()
    assert reports
    assert all(isinstance(report["exception"], ZeroDivisionError) for report in reports)
    asyncio.get_running_loop().set_exception_handler(None)


async def test_logging_tells_every_event_but_no_data(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "neatpy")
    stop = trace.log_events()
    try:
        async with pair() as (client, server):
            await client.send(b"a secret")
            assert bytes(await server.receive(min_incomplete_length=1)) == b"a secret"
    finally:
        stop()
    assert "Ready(stack=tcp" in caplog.text
    assert "MessageSent(size=8)" in caplog.text
    assert "secret" not in caplog.text
    levels = {record.levelname for record in caplog.records}
    assert levels == {"INFO", "DEBUG"}


def test_a_listener_outside_of_a_loop_is_reported_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def bad(event: trace.Event) -> None:
        raise ZeroDivisionError

    unsubscribe = trace.subscribe(bad)
    hook.emit(trace.Closed(None))
    unsubscribe()
    assert "ZeroDivisionError" in caplog.text


def test_events_read_well() -> None:
    assert repr(trace.MessageSent(None, size=3)) == "MessageSent(size=3)"
