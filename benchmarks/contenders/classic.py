"""Echo through the callback API of NEATPy 1.0, over plain TCP as all the others. It has no other work."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from benchmarks.work import SMALL
from neatpy.classic import (
    Connection,
    LocalEndpoint,
    MessageDataObject,
    Preconnection,
    RemoteEndpoint,
    TransportProperties,
    TransportPropertyProfiles,
)

STREAM = TransportProperties(TransportPropertyProfiles.RELIABLE_INORDER_STREAM)


async def serve(work: str) -> tuple[int, object]:
    if work != "echo":
        raise ValueError(f"the callback API is measured by echo only, not by {work}")
    local = LocalEndpoint()
    local.with_address("127.0.0.1")
    local.with_port(0)
    preconnection = Preconnection(local_endpoint=local, transport_properties=STREAM)
    listener = preconnection.listen()
    listener.HANDLE_CONNECTION_RECEIVED = lambda connection: connection.receive(_echo)
    listening = asyncio.get_running_loop().create_future()
    listener.HANDLE_STATE_LISTENING = lambda: listening.set_result(None)
    await listening
    return listener.port, listener


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    remote = RemoteEndpoint()
    remote.with_address("127.0.0.1")
    remote.with_port(port)
    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    count = 0
    start = end = 0.0

    def ready(connection: Connection) -> None:
        nonlocal start, end
        start = perf_counter()
        end = start + seconds
        connection.send(SMALL)
        connection.receive(received, len(SMALL))

    def received(connection: Connection, *_: Any) -> None:
        nonlocal count
        count += 1
        if perf_counter() < end:
            connection.send(SMALL)
            connection.receive(received, len(SMALL))
        else:
            done.set_result(count / (perf_counter() - start))
            connection.close()

    connection = Preconnection(remote_endpoint=remote, transport_properties=STREAM).initiate()
    connection.HANDLE_STATE_READY = ready
    return await done


def _echo(connection: Connection, message: MessageDataObject, context: Any, is_end: Any, error: Any) -> None:
    if error is None:
        connection.send(message.data)
        connection.receive(_echo)
