"""``neatpy demo``: four clients that ask for different things of the same servers, on loopback.

For each: what was asked, the candidates with the reasons for every decision, which one won, the Messages and what
the protocol measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from rich.console import Console
from rich.text import Text

from neatpy import (
    Certificate,
    Connection,
    Framer,
    Listener,
    LocalEndpoint,
    Preconnection,
    Preference,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
    TransportServicesError,
)
from neatpy.cli.console import out, report, say, show_selection
from neatpy.framers import LengthPrefixFramer

_HOST = "localhost"
_ADDRESS = "127.0.0.1"
_LIMIT = 3.0
"""Seconds that any one step may take."""


class _Tour:
    """One client: what it asks for and what it says."""

    __slots__ = ("framed", "messages", "properties", "secure", "stream", "title", "why")

    def __init__(
        self,
        title: str,
        why: str,
        properties: TransportProperties,
        messages: Sequence[bytes],
        *,
        secure: bool = False,
        framed: bool = False,
        stream: bool = False,
    ) -> None:
        self.title = title
        self.why = why
        self.properties = properties
        self.messages = messages
        self.secure = secure
        self.framed = framed
        self.stream = stream


_TOURS = (
    _Tour(
        "A secure stream",
        "Nothing is said about security, so there must be some. Boundaries are prohibited, which leaves a stream of\n"
        "bytes. It is one Message; its end is told to the server, which answers then.",
        TransportProperties.reliable_inorder_stream().prohibit("preserve_msg_boundaries"),
        [b"Say what your traffic needs,\n", b"not which protocol it takes.\n"],
        secure=True,
        stream=True,
    ),
    _Tour(
        "Secure Messages",
        "Boundaries are required. SCTP has them. The streams of QUIC or TLS have none, but with a length framer on top "
        "they\nwill do as well.",
        TransportProperties.reliable_message(),
        [b"each Message", b"arrives as it was sent", b"whole, and in order"],
        secure=True,
        framed=True,
    ),
    _Tour(
        "A stream without security",
        "Said aloud: SecurityParameters.disabled(). Again only a byte stream is left, of all that the server offers on "
        "one port.",
        TransportProperties.reliable_inorder_stream()
        .prohibit("preserve_msg_boundaries")
        .set("conn_capacity_profile", "low_latency_interactive"),
        [b"in the clear, ", b"and in order"],
        stream=True,
    ),
    _Tour(
        "Datagrams that may be lost",
        "The same server and port as before. Only the properties differ, and so does what wins.",
        TransportProperties.unreliable_datagram(),
        [b"one", b"packet", b"each"],
    ),
)


async def demonstrate() -> int:
    """Run all of it; the exit code."""
    console = out()
    start = time.monotonic()
    try:
        certificate = Certificate.self_signed(_HOST, _ADDRESS)
    except ImportError as error:
        report(error, "the demonstration makes a certificate", "install NEATPy with its extra all")
        return 1
    stacks = []
    try:
        async with AsyncExitStack() as open_things:
            servers = await _open_servers(open_things, certificate)
            serving = [asyncio.create_task(listener.serve(_answer, grace=0)) for listener in servers.values()]
            _introduce(console, servers)
            for number, tour in enumerate(_TOURS, 1):
                security = (
                    SecurityParameters(trusted_certificates=certificate)
                    if tour.secure
                    else SecurityParameters.disabled()
                )
                stacks.append(await _show(console, number, tour, servers[tour.secure, tour.framed], security))
            for listener in servers.values():
                listener.stop()
            await asyncio.gather(*serving)
    except TimeoutError:
        report(TimeoutError(f"no answer within {_LIMIT:g} seconds"), "the demonstration failed")
        return 1
    except (TransportServicesError, _Wrong) as error:
        report(error, "the demonstration failed")
        return 1
    say(console, "")
    seconds = time.monotonic() - start
    say(
        console,
        f"{len(stacks)} of {len(_TOURS)} clients were served, over {', '.join(stacks)}, in {seconds:.2f} s.",
        "bold green",
    )
    return 0


class _Wrong(Exception):
    """The wrong thing came back."""


async def _open_servers(
    open_things: AsyncExitStack, certificate: Certificate
) -> Mapping[tuple[bool, bool], Listener]:
    """The Listeners by (secure, framed). The one without security takes streams and datagrams alike."""
    anything = TransportProperties(
        reliability=Preference.NO_PREFERENCE,
        preserve_order=Preference.NO_PREFERENCE,
        congestion_control=Preference.NO_PREFERENCE,
        safely_replayable=True,
    )
    secure = SecurityParameters(server_certificate=certificate)
    stream = TransportProperties.reliable_inorder_stream()
    message = TransportProperties.reliable_message()
    wanted: dict[tuple[bool, bool], tuple[TransportProperties, SecurityParameters, list[Framer]]] = {
        (True, False): (stream, secure, []),
        (True, True): (message, secure, [LengthPrefixFramer()]),
        (False, False): (anything, SecurityParameters.disabled(), []),
    }
    servers = {}
    for key, (properties, security, framers) in wanted.items():
        local = LocalEndpoint(0, address=_ADDRESS)
        listener = Preconnection(local, None, properties, security, framers).listen()
        servers[key] = await open_things.enter_async_context(listener)
    return servers


async def _answer(connection: Connection) -> None:
    """What the servers do: say the same, but louder."""
    async for message in connection:
        await connection.send(message.data.upper())


async def _show(
    console: Console, number: int, tour: _Tour, server: Listener, security: SecurityParameters
) -> str:
    """One client from its wishes to its statistics; the name of the stack that won."""
    preconnection = Preconnection(
        remote=RemoteEndpoint(_HOST, server.local_endpoints[0].port),
        properties=tour.properties,
        security=security,
        framers=[LengthPrefixFramer()] if tour.framed else [],
    )
    _heading(console, f"{number}. {tour.title}")
    say(console, tour.why)
    _section(console, "asked for")
    for name, value in tour.properties.explicit().items():
        say(console, f"  {name} = {str(getattr(value, 'name', value)).lower().replace('_', ' ')}")
    say(console, f"  security = {security.mode.value}{', own root certificate' if tour.secure else ''}")
    _section(console, "candidates, and why the others are none")
    show_selection(console, await preconnection.explain())

    start = time.perf_counter()
    async with preconnection.initiate(timeout=_LIMIT) as connection:
        milliseconds = (time.perf_counter() - start) * 1000
        _section(console, "winner")
        stack = connection.stack or "?"
        details = [f"ready after {milliseconds:.1f} ms"]
        told = connection.get_properties()["security"]
        if told.get("protocol"):
            details.append(f"{told['protocol']}, {told['ciphersuite']}")
        console.print(Text.assemble("  ", (stack, "bold green"), f"  {', '.join(details)}"), soft_wrap=True)
        _section(console, "Messages")
        async with asyncio.timeout(_LIMIT):
            await _talk(console, connection, tour)
        _section(console, "statistics")
        for line in _statistics(connection.statistics, tour.stream):
            say(console, f"  {line}")
    return stack


async def _talk(console: Console, connection: Connection, tour: _Tour) -> None:
    """Say what there is to say, and hear it back."""
    expected = []
    for index, data in enumerate(tour.messages, 1):
        await connection.send(data, final=tour.stream and index == len(tour.messages))
        say(console, f"  sent      {data!r}")
        if not tour.stream:
            await _hear(console, connection, data.upper())
        expected.append(data.upper())
    if tour.stream:
        await _hear(console, connection, b"".join(expected))


async def _hear(console: Console, connection: Connection, expected: bytes) -> None:
    answer = await connection.receive()
    say(console, f"  received  {bytes(answer)!r}")
    if bytes(answer) != expected:
        raise _Wrong(f"{bytes(answer)!r} came back, not {expected!r}")


def _statistics(statistics: Mapping[str, float], stream: bool) -> list[str]:
    sent, received = f"{statistics['bytes_sent']:.0f} bytes", f"{statistics['bytes_received']:.0f} bytes"
    if not stream:
        sent = f"{statistics['messages_sent']:.0f} Messages, {sent}"
        received = f"{statistics['messages_received']:.0f} Messages, {received}"
    lines = [f"sent {sent}; received {received}"]
    if "rtt" in statistics:
        lines.append(f"round-trip time {statistics['rtt'] * 1000:.3f} ms")
    if "retransmissions" in statistics:
        lines.append(f"{statistics['retransmissions']:.0f} retransmissions")
    return lines


def _introduce(console: Console, servers: Mapping[tuple[bool, bool], Listener]) -> None:
    _heading(console, "NEATPy on loopback")
    say(console, "Three Listeners, each on every stack that fits what it asked for:")
    about = {
        (True, False): "secure streams",
        (True, True): "secure Messages",
        (False, False): "without security",
    }
    for key, listener in servers.items():
        port = listener.local_endpoints[0].port
        say(console, f"  {_ADDRESS}:{port}  {about[key]:17} {', '.join(listener.stacks)}")


def _heading(console: Console, text: str) -> None:
    say(console, "")
    if console.is_terminal:
        console.rule(Text(text, "bold cyan"), align="left", style="cyan")
    else:
        say(console, f"== {text} ==")


def _section(console: Console, text: str) -> None:
    say(console, f"\n{text}:", "bold")
