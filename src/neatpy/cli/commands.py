"""``connect``, ``listen`` and ``explain``: each gives the exit code of the process."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

from neatpy import (
    Connection,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    TransportServicesError,
)
from neatpy.cli.console import err, hint_for, out, report, say, show_selection
from neatpy.cli.exchange import echo, exchange
from neatpy.cli.standard_streams import Input, Output
from neatpy.cli.wishes import Framing, Wishes

_BROKEN = "the connection failed"

_RACE = 0.25
"""Seconds for which a Connection that says nothing may turn out to be the loser of a race."""

_LOOK = 0.005
"""Seconds between two looks at whether it has said something."""


def to_peer(host: str, port: str, wishes: Wishes) -> Preconnection:
    """The Preconnection of a client. Raises ValueError or TypeError for what cannot be."""
    remote = (
        RemoteEndpoint(host, int(port))
        if port.isascii() and port.isdigit()
        else RemoteEndpoint(host, service=port)
    )
    return Preconnection(
        remote=remote,
        properties=wishes.properties(),
        security=wishes.security(),
        framers=wishes.framers(),
    )


def at_port(port: str, address: str | None, wishes: Wishes, save_certificate: Path | None) -> Preconnection:
    """The Preconnection of a Listener. Raises ValueError or TypeError for what cannot be, OSError for the file."""
    local = LocalEndpoint(int(port)) if port.isascii() and port.isdigit() else LocalEndpoint(service=port)
    if address is not None:
        local.with_ip_address(address)
    security = wishes.security(listening=True)
    if save_certificate is not None:
        if not security.server_certificate:
            raise ValueError("--save-cert needs --self-signed or --cert")
        save_certificate.write_bytes(security.server_certificate[0].certificate_chain)
    return Preconnection(
        local=local, properties=wishes.properties(), security=security, framers=wishes.framers()
    )


async def connect(
    preconnection: Preconnection,
    where: str,
    framing: Framing | None,
    *,
    timeout: float | None,
    wait: float | None,
    explained: bool,
) -> int:
    """Connect, and exchange data with the standard streams until both sides are done."""
    try:
        if explained:
            show_selection(err(), await preconnection.explain())
        connection = await preconnection.initiate(timeout)
    except EstablishmentError as error:
        report(error, f"could not connect to {where}", hint_for(error))
        return 1
    return await _serve_streams(connection, Input(), Output(), framing, wait=wait)


async def listen(
    preconnection: Preconnection,
    framing: Framing | None,
    *,
    wait: float | None,
    echoing: bool,
    keep: bool,
) -> int:
    """Listen, and exchange data with the standard streams, or send them back, for one Connection or for each."""
    listener = preconnection.listen()
    try:
        await listener
    except EstablishmentError as error:
        report(error, "could not listen", hint_for(error))
        return 1
    for endpoint in listener.local_endpoints:
        host = f"[{endpoint.address}]" if ":" in (endpoint.address or "") else endpoint.address
        say(err(), f"listening on {host}:{endpoint.port} ({', '.join(listener.stacks)})")
    async with listener:
        if keep:
            return await _serve_all(listener, framing, wait=wait, echoing=echoing)
        connection = await _first_that_stays(listener)
        listener.stop()
        if echoing:
            return await _echo(connection, framing)
        # Who listens has time: only if asked to does silence end it.
        return await _serve_streams(
            connection, Input(), Output(), framing, wait=math.inf if wait is None else wait
        )


async def explain(preconnection: Preconnection, where: str) -> int:
    """Print the candidate tree; 1 if nothing could be tried."""
    try:
        selection = await preconnection.explain()
    except EstablishmentError as error:
        report(error, f"cannot explain {where}")
        return 1
    show_selection(out(), selection)
    return 0 if selection.candidates else 1


async def _first_that_stays(listener: Listener) -> Connection:
    """The first Connection whose client wants it. One that races several stacks may complete two at nearly the same
    time, and aborts the one that it does not take."""
    loop = asyncio.get_running_loop()
    while True:
        connection = await listener.accept()
        gone: list[Exception] = []
        connection.on_connection_error = lambda _, error, gone=gone: gone.append(error)
        until = loop.time() + _RACE
        while not gone and not connection.statistics["bytes_received"] and loop.time() < until:
            await asyncio.sleep(_LOOK)
        connection.on_connection_error = None
        if not gone or connection.statistics["bytes_received"]:
            return connection


async def _serve_all(
    listener: Listener, framing: Framing | None, *, wait: float | None, echoing: bool
) -> int:
    """Until interrupted: echo all Connections at once, or give the standard streams to one after the other."""
    if echoing:
        await listener.serve(lambda connection: _echo(connection, framing))
        return 0
    source, sink = Input(), Output()
    async for connection in listener:
        await _serve_streams(connection, source, sink, framing, wait=wait, input_counts=False)
    return 0


async def _echo(connection: Connection, framing: Framing | None) -> int:
    try:
        async with connection:
            await echo(connection, framing is not None)
    except TransportServicesError as error:
        report(error, _BROKEN, hint_for(error))
        return 1
    return 0


async def _serve_streams(
    connection: Connection,
    source: Input,
    sink: Output,
    framing: Framing | None,
    *,
    wait: float | None,
    input_counts: bool = True,
) -> int:
    lines = framing is Framing.LINE
    try:
        async with connection:
            await exchange(connection, source, sink, lines=lines, input_counts=input_counts, wait=wait)
    except TransportServicesError as error:
        report(error, _BROKEN, hint_for(error))
        return 1
    except BrokenPipeError:  # nobody reads the output: as silent as other filters
        return 1
    return 0
