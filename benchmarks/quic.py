"""QUIC: one stream in bulk, requests and responses on one stream, and each on a new one with 32 at once.

Beside NEATPy's stack ``quic`` stand its engine, aioquic, in a loop of the fewest lines that do (``aioquic_bare``: one
socket, GSO and GRO, one transmit for each wake-up, the same clock, packets and congestion control), and aioquic's own
layer for asyncio (``aioquic_asyncio``, with its packets of 1,200 bytes, which cannot be changed while it runs). Both
processes are pinned to one core, but with ``--spread`` for bulk.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Contender, Floor, Measure, Options, client, shared_core, take_turns
from benchmarks.identity import one_identity

QUIC, QUIC_ASYNCIO = Contender("neatpy_quic", "uvloop"), Contender("neatpy_quic", "asyncio")
BARE, BARE_ASYNCIO = Contender("aioquic_bare", "uvloop"), Contender("aioquic_bare", "asyncio")
LAYER, LAYER_ASYNCIO = Contender("aioquic_asyncio", "uvloop"), Contender("aioquic_asyncio", "asyncio")
CONTENDERS = (QUIC, BARE, LAYER, QUIC_ASYNCIO, BARE_ASYNCIO, LAYER_ASYNCIO)

MEBIBYTE = 1024 * 1024


def measure(options: Options) -> Iterator[Measure]:
    """One measure of bulk, two of requests and responses."""
    with one_identity():
        yield _bulk(options)
        yield _exchanges(options, "quic, 64-B request/response on one stream", "echo")
        yield _exchanges(options, "quic, 64-B request/response, each on a new stream, 32 at once", "streams")


def _bulk(options: Options) -> Measure:
    core = None if options.spread else shared_core()
    size, rounds = (8 * MEBIBYTE, 3) if options.quick else (64 * MEBIBYTE, 5)
    limits = (
        Floor(str(QUIC), str(BARE), 0.85),
        Floor(str(QUIC_ASYNCIO), str(BARE_ASYNCIO), 0.85),
        Floor(str(QUIC), str(LAYER), 2.0),
        Floor(str(QUIC_ASYNCIO), str(LAYER_ASYNCIO), 1.0),
    )

    def rate(contender: Contender, port: int, server_pid: int) -> float:
        return client(contender, "bulk", port, core, size=size)["rate"] / MEBIBYTE

    result = Measure("quic, one stream", "MiB/s", limits)
    return take_turns(result, options, "bulk", rate, contenders=CONTENDERS, rounds=rounds, core=core)


def _exchanges(options: Options, title: str, work: str) -> Measure:
    core = shared_core()
    seconds, rounds = (0.5, 3) if options.quick else (1.0, 7)
    limits = (
        Floor(str(QUIC), str(BARE), 0.8),
        Floor(str(QUIC_ASYNCIO), str(BARE_ASYNCIO), 0.8),
        Floor(str(QUIC), str(LAYER), 1.0),
        Floor(str(QUIC_ASYNCIO), str(LAYER_ASYNCIO), 1.0),
    )

    def rate(contender: Contender, port: int, server_pid: int) -> float:
        return client(contender, work, port, core, seconds=seconds)["rate"]

    result = Measure(title, "1/s", limits)
    return take_turns(result, options, work, rate, contenders=CONTENDERS, rounds=rounds, core=core)
