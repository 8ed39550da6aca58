"""The trace hook: everything that happens to Connections and Listeners can be seen, and nothing secret."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

import neatpy
from api.loopback import (
    BOTH_LOOPS,
    HOST,
    PLAIN,
    datagrams,
    going_to,
    listening_on,
    pair,
    port_of,
    stream,
    turns,
    until,
)
from neatpy import (
    Certificate,
    EstablishmentError,
    SecurityParameters,
    TransportProperties,
    trace,
)
from neatpy.hook import hook

CERTIFICATE = Certificate.self_signed(HOST)


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
    connection = going_to(refused_port).initiate()
    with pytest.raises(EstablishmentError):
        await connection
    unsubscribe()
    assert names(events, connection) == ["CandidateStarted", "CandidateFailed", "EstablishmentFailed"]


# What a client does, and what the Listener's trace says of it.
REFUSED: dict[str, tuple[TransportProperties, SecurityParameters, str]] = {
    "speaks no TLS": (stream(), PLAIN, "the peer does not speak TLS"),
    "distrusts the certificate": (stream(), SecurityParameters(alpn="chat/1"), "unknown ca"),
    "offers other application protocols": (
        stream(),
        SecurityParameters(trusted_certificates=CERTIFICATE, alpn="imap"),
        "the client offers others; ours: chat/1",
    ),
    "offers no application protocol": (
        stream(),
        SecurityParameters(trusted_certificates=CERTIFICATE),
        "the client offers none; ours: chat/1",
    ),
    "distrusts the certificate over udp": (
        datagrams(),
        SecurityParameters(alpn="chat/1"),
        "the peer refused",
    ),
}


@BOTH_LOOPS
@pytest.mark.parametrize("what", REFUSED)
async def test_a_listener_tells_of_every_handshake_that_it_refuses(what: str) -> None:
    properties, security, why = REFUSED[what]
    events: list[trace.Event] = []
    unsubscribe = trace.subscribe(events.append)
    offering = SecurityParameters(server_certificate=CERTIFICATE, alpn="chat/1")
    try:
        async with listening_on(properties, security=offering).listen() as listener:
            client = going_to(port_of(listener), properties, security=security).initiate()
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            await until(lambda: "CandidateFailed" in names(events, listener))
            client.abort()
    finally:
        unsubscribe()
    told = [event for event in events if event.subject is listener and type(event) is trace.CandidateFailed]
    assert {event.details["stack"] for event in told} == {listener.stacks[0]}
    assert why in told[0].written()["error"]
    assert told[0].written()["remote"].startswith("127.0.0.1:")


async def test_a_listener_tells_of_handshakes_that_its_end_cuts_short() -> None:
    events: list[trace.Event] = []
    unsubscribe = trace.subscribe(events.append)
    offering = SecurityParameters(server_certificate=CERTIFICATE)
    try:
        async with listening_on(security=offering).listen() as listener:
            client = await going_to(port_of(listener)).initiate()
            client.send(b"\x16\x03\x01")
            await turns(20)
            await listener.stop()
            client.abort()
    finally:
        unsubscribe()
    assert names(events, listener) == ["Listening", "CandidateFailed", "Stopped"]


async def test_events_are_written_as_people_write_them() -> None:
    events: list[trace.Event] = []
    unsubscribe = trace.subscribe(events.append)
    try:
        async with pair() as (client, _):
            client.set_property("conn_capacity_profile", "scavenger")
    finally:
        unsubscribe()
    written = {type(event).__name__: repr(event) for event in events}
    address = rf"{HOST}:\d+"
    assert re.fullmatch(rf"Listening\(endpoints=tcp on {address}\)", written["Listening"])
    assert re.fullmatch(rf"Ready\(stack=tcp, remote={address}\)", written["Ready"])
    assert written["PropertyChanged"] == "PropertyChanged(name=conn_capacity_profile, value=scavenger)"
    assert not [text for text in written.values() if "Address(" in text or "object at" in text]


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
