"""One side of what :mod:`benchmarks.head_of_line` measures: ``python -m benchmarks.sharing server PROTOCOL HOST``, or
``... client PROTOCOL HOST DETAILS`` (JSON), each in a namespace of its own.

A client sends much on one Connection and, later, less on a clone of it, and waits until the server has all of the
latter: over ``sctp`` both are streams of one association, over ``tcp`` connections of their own. It prints the seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from time import perf_counter
from typing import Any

from neatpy import (
    Connection,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from neatpy.framers import LengthPrefixFramer

PIECE = 64 * 1024
ANSWER = b"all of it"


async def _serve(protocol: str, host: str) -> None:
    preconnection = Preconnection(
        local=LocalEndpoint(0, address=host, protocol=protocol),
        properties=_properties(protocol),
        security=SecurityParameters.disabled(),
        framers=_framers(protocol),
    )
    async with preconnection.listen() as listener:
        serving = asyncio.create_task(listener.serve(_answer))
        print(listener.local_endpoints[0].port, flush=True)
        await serving


async def _answer(connection: Connection) -> None:
    async for message in connection:
        if len(message) < PIECE:  # the last piece of what is waited for
            await connection.send(ANSWER)


async def measure(
    protocol: str,
    host: str,
    port: int,
    *,
    much: int,
    later: float,
    less: int,
    priority: int,
    whole: bool = False,
) -> float:
    """Send ``much`` bytes (0: none) and, ``later`` seconds after, ``less`` on a clone of this priority (lower numbers
    are more urgent, all else has 100), in pieces or each as one Message; gives the seconds until the server has the
    latter."""
    connection = await Preconnection(
        remote=RemoteEndpoint(host, port, protocol=protocol),
        properties=_properties(protocol),
        security=SecurityParameters.disabled(),
        framers=_framers(protocol),
    ).initiate()
    clone = await connection.clone(conn_priority=priority)
    sending = asyncio.create_task(_send(connection, much, whole))
    await asyncio.sleep(later if much else 0)
    start = perf_counter()
    answer = asyncio.create_task(_receive(clone))
    await _send(clone, less, whole)
    clone.send(b"end")
    await answer
    seconds = perf_counter() - start
    busy = not sending.done()
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sending
    connection.abort_group()
    if much and not busy:
        raise RuntimeError("what the clone competes with was over too early")
    return seconds


async def _send(connection: Connection, size: int, whole: bool) -> None:
    piece = size if whole else PIECE
    for _ in range(size // piece if piece else 0):
        await connection.send(bytes(piece))


async def _receive(connection: Connection) -> None:
    assert bytes(await connection.receive()) == ANSWER


def _properties(protocol: str) -> TransportProperties:
    if protocol == "sctp":
        return TransportProperties.reliable_message()
    return TransportProperties.reliable_inorder_stream()


def _framers(protocol: str) -> tuple[LengthPrefixFramer, ...]:
    return () if protocol == "sctp" else (LengthPrefixFramer(),)


async def _main(role: str, protocol: str, host: str, *details: str) -> None:
    if role == "server":
        await _serve(protocol, host)
        return
    given: dict[str, Any] = json.loads(*details)
    print(await measure(protocol, host, **given), flush=True)
    os._exit(0)  # what the association still holds is of no interest


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
