"""Data both ways between one Connection and the standard streams, to both ends, without losing any.

The end of the input becomes the Final mark, so that the peer sees it and can still answer. Where the protocol cannot
say that there is no more (datagrams), silence has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import math

from neatpy import Connection, ConnectionError, MessageContext, Reason, ReceiveError, SendError
from neatpy.cli.standard_streams import Input, Output

_SILENCE = 1.0
"""Seconds without anything from a peer that cannot say that it is done, once our side is."""

_DATAGRAM = 1200
"""Bytes in a datagram when the path's own limit is not known."""


async def exchange(
    connection: Connection,
    source: Input,
    sink: Output,
    *,
    lines: bool = False,
    input_counts: bool = True,
    wait: float | None = None,
) -> None:
    """Send what comes in, write what is received, until both sides are done.

    With ``lines`` each line is a Message, both ways. ``input_counts``: after the peer is done, what is left of the
    input is still sent, unless it is typed. ``wait``: once one side is done, so many seconds of silence end
    the other too (math.inf: none do; None: one second, of a peer that cannot say that it is done).

    Raises ConnectionError, SendError or ReceiveError when data could not be delivered, BrokenPipeError when nobody
    reads the output.
    """
    sending = asyncio.create_task(_send_all(connection, source, lines))
    receiving = asyncio.create_task(_receive_all(connection, sink, lines))
    try:
        done, _ = await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        if receiving in done:
            receiving.result()
            if input_counts and not source.is_terminal:
                await _await_other(connection, sending, "bytes_sent", math.inf if wait is None else wait)
        else:
            await _finish_sending(connection, sending)
            if wait is None and not _tells_its_end(connection):
                wait = _SILENCE
            await _await_other(connection, receiving, "bytes_received", math.inf if wait is None else wait)
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.wait((sending, receiving))
        for task in (sending, receiving):
            if not task.cancelled():
                task.exception()  # asked for, so that nobody is told that it was not


async def echo(connection: Connection, framed: bool) -> None:
    """Send everything back, Messages as Messages and a stream as it comes, until the peer is done.

    ``framed``: it has a framer. Raises SendError or ReceiveError when the Connection broke.
    """
    whole = framed or connection.get_properties()["preserve_msg_boundaries"]
    context = MessageContext()
    try:
        while True:
            message = await connection.receive(None if whole else 1)
            if not whole:
                await connection.send(message.data)
                continue
            # A Message above the receive limit comes in parts, which belong together by their context.
            await connection.send(message.data, context, end_of_message=message.end_of_message)
            if message.end_of_message:
                context = MessageContext()
    except ReceiveError as error:
        if error.reason is not Reason.CONNECTION_CLOSED:
            raise


async def _send_all(connection: Connection, source: Input, lines: bool) -> None:
    if lines:
        while (line := await source.line()) is not None:
            await connection.send(line)
    else:
        limit = None if _tells_its_end(connection) else _datagram_limit(connection)
        while chunk := await source.chunk():
            for start in range(0, len(chunk), limit or len(chunk)):
                await connection.send(chunk[start : start + limit] if limit else chunk)
    if _tells_its_end(connection):
        await connection.send(b"", final=True)


async def _receive_all(connection: Connection, sink: Output, lines: bool) -> None:
    try:
        while True:
            message = await connection.receive(min_incomplete_length=1)
            end = b"\n" if lines and message.end_of_message else b""
            await sink.write(message.data + end if end else message.data)
    except ReceiveError as error:
        if error.reason is not Reason.CONNECTION_CLOSED:
            raise


async def _finish_sending(connection: Connection, sending: asyncio.Task[None]) -> None:
    try:
        sending.result()
    except SendError:
        with contextlib.suppress(ConnectionError):  # what was sent before is still to arrive
            await connection.close()
        raise


async def _await_other(connection: Connection, task: asyncio.Task[None], measure: str, wait: float) -> None:
    """Wait until the other side is done too, or silent for so many seconds."""
    while True:
        before = connection.statistics[measure]
        done, _ = await asyncio.wait((task,), timeout=None if wait == math.inf else wait)
        if done:
            task.result()
            return
        if connection.statistics[measure] == before:
            return


def _tells_its_end(connection: Connection) -> bool:
    """Whether the peer learns that there is no more: what is not reliable has no end that could be relied on."""
    return bool(connection.get_properties()["reliability"])


def _datagram_limit(connection: Connection) -> int:
    told = connection.get_properties()["singular_transmission_msg_max_len"]
    return int(told) if told else _DATAGRAM
