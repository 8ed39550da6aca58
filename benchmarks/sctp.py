"""SCTP: 64-KiB Messages, 64-byte requests and responses, and a thousand clones of one association.

Beside NEATPy's stack ``sctp`` stand the library usrsctp itself, in a loop of the fewest Python lines that do
(``usrsctp``), SCTP in pure Python (``aiortc_sctp``, if aiortc is installed), and TCP by asyncio's streams, framed where
Messages are whole. All SCTP contenders have packets of the same size: 9,000 bytes, which NEATPy takes where a path has
room for them, as loopback has; and, in a measure of its own, 1,472 as on Ethernet. NEATPy and ``usrsctp`` have the same
socket options, and hand the kernel several packets at once (UDP_SEGMENT, UDP_GRO). Both processes are pinned to one
core, but with ``--spread`` for Messages.

Of the clones, each sends a Message and has it back while all are open; then all are closed and as many are opened
again. The figures are bytes of the resident set per clone at each side, and what was not answered or not given
back.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness import (
    STREAMS,
    STREAMS_ASYNCIO,
    Ceiling,
    Contender,
    Floor,
    Measure,
    Options,
    WorkerError,
    client,
    server,
    shared_core,
    take_turns,
)
from benchmarks.work import PACKET_VARIABLE

SCTP, SCTP_ASYNCIO = Contender("neatpy_sctp", "uvloop"), Contender("neatpy_sctp", "asyncio")
BARE, BARE_ASYNCIO = Contender("usrsctp", "uvloop"), Contender("usrsctp", "asyncio")
PURE, PURE_ASYNCIO = Contender("aiortc_sctp", "uvloop"), Contender("aiortc_sctp", "asyncio")
CONTENDERS = (SCTP, BARE, PURE, STREAMS, SCTP_ASYNCIO, BARE_ASYNCIO, PURE_ASYNCIO, STREAMS_ASYNCIO)

JUMBO, ETHERNET = 9000, 1472
CLONES, CLONE_BYTES = 1000, 10240
MEBIBYTE = 1024 * 1024


def measure(options: Options) -> Iterator[Measure]:
    """Two measures of Messages, one of round trips, three of clones."""
    for packet in (JUMBO, ETHERNET):
        yield _messages(options, packet)
    yield _round_trips(options)
    yield from _clones(options)


def _messages(options: Options, packet: int) -> Measure:
    core = None if options.spread else shared_core()
    size, rounds = (16 * MEBIBYTE, 3) if options.quick else (64 * MEBIBYTE, 7)
    limits = [Floor(str(SCTP), str(BARE), 0.8), Floor(str(SCTP_ASYNCIO), str(BARE_ASYNCIO), 0.8)]
    if packet == ETHERNET:
        limits += [Floor(str(SCTP), str(PURE), 3.0), Floor(str(SCTP_ASYNCIO), str(PURE_ASYNCIO), 3.0)]

    def rate(contender: Contender, port: int, server_pid: int) -> float:
        return client(contender, "bulk-framed", port, core, size=size)["rate"] / MEBIBYTE

    result = Measure(f"sctp, 64-KiB Messages in packets of {packet} B", "MiB/s", limits)
    with _packets_of(packet):
        return take_turns(
            result, options, "bulk-framed", rate, contenders=_there(result), rounds=rounds, core=core
        )


def _round_trips(options: Options) -> Measure:
    core = shared_core()
    seconds, rounds = (0.3, 3) if options.quick else (1.0, 7)
    limits = (
        Floor(str(SCTP_ASYNCIO), str(STREAMS_ASYNCIO), 0.7),
        Floor(str(SCTP), str(STREAMS_ASYNCIO), 0.7),
    )

    def rate(contender: Contender, port: int, server_pid: int) -> float:
        return client(contender, "echo-framed", port, core, seconds=seconds)["rate"]

    result = Measure("sctp, 64-B request/response", "1/s", limits)
    return take_turns(
        result, options, "echo-framed", rate, contenders=_there(result), rounds=rounds, core=core
    )


def _clones(options: Options) -> Iterator[Measure]:
    rounds = 1 if options.quick else 3
    both = (str(SCTP), str(SCTP_ASYNCIO))
    sizes = tuple(Ceiling(name, CLONE_BYTES) for name in both)
    none = tuple(Ceiling(name, 0) for name in both)
    sides = {
        side: Measure(f"sctp, one of {CLONES} clones, {side} side", "B", sizes)
        for side in ("client", "server")
    }
    lost = Measure(f"sctp, of {CLONES} clones not answered or not given back", "clones", none)
    for _ in range(rounds):
        for contender in filter(options.admits, (SCTP, SCTP_ASYNCIO)):
            name = str(contender)
            if name in lost.failures:
                continue
            try:
                with server(contender, "clones", None) as (port, pid):
                    found = client(contender, "clones", port, None, count=CLONES, server_pid=pid)
            except WorkerError as error:
                for result in (*sides.values(), lost):
                    result.fail(name, error)
                continue
            for side, result in sides.items():
                result.add(name, found[side])
            lost.add(name, found["unanswered"] + found["left"] + abs(found["streams"] - CLONES - 1))
    yield from sides.values()
    yield lost


def _there(result: Measure) -> tuple[Contender, ...]:
    """The contenders that can take part here."""
    if importlib.util.find_spec("aiortc") is not None:
        return CONTENDERS
    for contender in (PURE, PURE_ASYNCIO):
        result.leave_out(str(contender), "aiortc is not installed")
    return tuple(contender for contender in CONTENDERS if contender.api != PURE.api)


@contextmanager
def _packets_of(size: int) -> Iterator[None]:
    """Server and client processes take this from their environment."""
    os.environ[PACKET_VARIABLE] = str(size)
    try:
        yield
    finally:
        del os.environ[PACKET_VARIABLE]
