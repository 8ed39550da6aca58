"""One side of what :mod:`benchmarks.first_reply` and :mod:`benchmarks.silent_udp` measure: ``python -m
benchmarks.asking server KIND HOST``, or ``... replies KIND HOST DETAILS`` and ``... race KIND HOST DETAILS`` (JSON).

A server prints its port and answers whoever comes until it is ended. A client prints what it measured as JSON, in
milliseconds; it is an error if anything went another way than the one that is to be measured.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.work import SMALL, identity, identity_path
from neatpy import (
    Certificate,
    Connection,
    LocalEndpoint,
    MessageContext,
    Preconnection,
    Preference,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)

EARLY, IN_TIME = b"early", b"later"
"""What a NEATPy server answers, of the same length."""
NAME = "localhost"
FALLBACK = "tls/tcp"
SECONDS = 10.0
"""What one attempt may take."""


def _mirror(host: str) -> None:
    """Send every datagram back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        print(sock.getsockname()[1], flush=True)
        while True:
            data, address = sock.recvfrom(len(SMALL))
            sock.sendto(data, address)


async def _serve(kind: str, host: str) -> None:
    if kind in ("streams", "streams-tls"):
        server = await asyncio.start_server(_answer_stream, host, 0, ssl=_server_context(kind))
        await _serving_at(server.sockets[0].getsockname()[1], server.serve_forever())
    elif kind == "silent":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as never_read:
            never_read.bind((host, 0))
            await _listen(FALLBACK, host, never_read.getsockname()[1])
    else:
        await _listen(kind, host, 0)


async def _listen(protocol: str, host: str, port: int) -> None:
    certificate = None if protocol == "tcp" else Certificate.from_pem(identity())
    listener = await Preconnection(
        local=LocalEndpoint(port, address=host, protocol=protocol),
        properties=TransportProperties(zero_rtt_msg=Preference.PREFER),
        security=SecurityParameters(server_certificate=certificate)
        if certificate
        else SecurityParameters.disabled(),
    ).listen()
    await _serving_at(listener.local_endpoints[0].port, listener.serve(_answer))


async def _serving_at(port: int | None, serving: Awaitable[object]) -> None:
    print(port, flush=True)
    await serving


async def _answer(connection: Connection) -> None:
    with suppress(ReceiveError):  # the client has finished
        while True:
            message = await connection.receive(min_incomplete_length=len(SMALL))
            await connection.send(EARLY if message.context.early_data else IN_TIME)


async def _answer_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(len(SMALL)):
        writer.write(IN_TIME)
        await writer.drain()
    writer.close()


async def _replies(kind: str, host: str, *, port: int, times: int, early: bool) -> list[float]:
    """How long the first reply takes from nothing, so many times. One goes before that does not count: it loads what
    is loaded late, and brings the session or the cookie that the others need to be early."""
    if early:
        return await _early_replies(kind, host, port, times)
    attempt: Callable[[], Awaitable[float]]
    if kind == "udp":
        attempt = partial(_udp_reply, host, port)
    elif kind in ("streams", "streams-tls"):
        attempt = partial(_stream_reply, kind, host, port)
    else:
        attempt = partial(_reply, kind, host, port)
    await attempt()
    return [await attempt() for _ in range(times)]


async def _early_replies(kind: str, host: str, port: int, times: int) -> list[float]:
    preconnection = _preconnection(kind, host, port, Preference.PREFER)
    await _early_reply(preconnection)
    before = _syns_with_data()
    found = [await _early_reply(preconnection) for _ in range(times)]
    if kind != "quic" and _syns_with_data() < before + times:
        raise RuntimeError("the kernel sent no data with a SYN")
    if kind != FALLBACK and not all(early for _, early in found):
        raise RuntimeError("a Message was not early")
    return [figure for figure, _ in found]


async def _early_reply(preconnection: Preconnection) -> tuple[float, bool]:
    """Once; and whether the server had the Message early. TLS never has: its hello is what travels with the SYN."""
    start = perf_counter()
    context = MessageContext(safely_replayable=True)
    async with preconnection.initiate_with_send(SMALL, context, timeout=SECONDS) as connection:
        answer = await connection.receive(min_incomplete_length=len(EARLY))
        figure = _milliseconds(start)
        await connection.send(SMALL)  # sessions come after the handshake, so wait for what comes after it too
        await connection.receive(min_incomplete_length=len(EARLY))
        return figure, bytes(answer) == EARLY


async def _reply(kind: str, host: str, port: int) -> float:
    preconnection = _preconnection(kind, host, port)  # of its own, so that it knows no session
    start = perf_counter()
    async with preconnection.initiate(timeout=SECONDS) as connection:
        await connection.send(SMALL)
        await connection.receive(min_incomplete_length=len(IN_TIME))
        return _milliseconds(start)


async def _stream_reply(kind: str, host: str, port: int) -> float:
    context, name = None, None
    if kind == "streams-tls":
        context, name = ssl.create_default_context(cafile=identity_path()), NAME
    start = perf_counter()
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    writer.write(SMALL)
    await reader.readexactly(len(IN_TIME))
    figure = _milliseconds(start)
    writer.close()
    await writer.wait_closed()
    return figure


async def _udp_reply(host: str, port: int) -> float:
    """One round trip of the link itself, without any protocol above UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect((host, port))
        start = perf_counter()
        sock.send(SMALL)
        sock.recv(len(SMALL))
        return _milliseconds(start)


def _races(host: str, *, port: int, times: int) -> dict[str, list[float]]:
    """How long a secure Connection takes to be Ready: over TLS alone, and where TLS races stacks over UDP, which are
    silent. One of each goes before that does not count. Each has a loop of its own, since a loop remembers what
    failed."""
    found: dict[str, list[float]] = {"alone": [], "raced": []}
    for _ in range(times + 1):
        for name, protocol in (("alone", FALLBACK), ("raced", None)):
            found[name].append(asyncio.run(_ready(_preconnection(protocol, host, port))))
    return {name: figures[1:] for name, figures in found.items()}


async def _ready(preconnection: Preconnection) -> float:
    start = perf_counter()
    async with preconnection.initiate(timeout=SECONDS) as connection:
        figure = _milliseconds(start)
        if connection.stack != FALLBACK:
            raise RuntimeError(f"the Connection is over {connection.stack}")
        return figure


def _preconnection(
    protocol: str | None, host: str, port: int, early: Preference = Preference.NO_PREFERENCE
) -> Preconnection:
    security = SecurityParameters.disabled()
    if protocol != "tcp":
        certificate = Certificate.from_pem(identity()).without_private_key()
        security = SecurityParameters(trusted_certificates=certificate)
    return Preconnection(
        remote=RemoteEndpoint(NAME, port, address=host, protocol=protocol),
        properties=TransportProperties(zero_rtt_msg=early),
        security=security,
    )


def _server_context(kind: str) -> ssl.SSLContext | None:
    if kind == "streams":
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity_path())
    return context


def _syns_with_data() -> int:
    """How many this namespace has sent whose data was taken."""
    lines = Path("/proc/net/netstat").read_text().splitlines()
    names, numbers = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(numbers[names.index("TCPFastOpenActive")])


def _milliseconds(start: float) -> float:
    return (perf_counter() - start) * 1000


def main(role: str, kind: str, host: str, *details: str) -> None:
    """Be one side."""
    if role == "server" and kind == "udp":
        _mirror(host)
    elif role == "server":
        asyncio.run(_serve(kind, host))
    elif role == "replies":
        print(json.dumps(asyncio.run(_replies(kind, host, **json.loads(*details)))), flush=True)
    else:
        print(json.dumps(_races(host, **json.loads(*details))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
