"""A thousand clones of one QUIC connection, each echoing: whether what one of them costs grows with their number.

A hundred, or a thousand, are opened and echo at once, and stay open; then all of them echo again at once, and then one
of them alone, again and again. Beside NEATPy stands its engine (``aioquic_bare``), which walks over all of its streams
for each packet. Both processes are pinned to one core.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.growth import FEW
from benchmarks.harness import (
    Ceiling,
    Contender,
    Floor,
    Measure,
    Options,
    WorkerError,
    client,
    server,
    shared_core,
)
from benchmarks.identity import one_identity
from benchmarks.quic import BARE, BARE_ASYNCIO, QUIC, QUIC_ASYNCIO

CLONES = 1000
NOISE = 0.1
"""What a ratio of times that are the same may differ by."""
MICROSECONDS = 1e6


def measure(options: Options) -> Iterator[Measure]:
    """Three measures of time, one of what did not come back."""
    core = shared_core()
    both = (QUIC, QUIC_ASYNCIO)
    no_growth = [Floor(_beside(one, CLONES), _beside(one, FEW), 1 + NOISE, at_most=True) for one in both]
    measures = {
        work: Measure(title, "µs", no_growth)
        for work, title in (
            ("opened", "clones of quic: opened and echoing, all at once"),
            ("together", "clones of quic: an echo, all at once"),
            ("single", "clones of quic: an echo, one at a time"),
        )
    }
    none = [Ceiling(str(one), 0) for one in both]
    wrong = Measure("clones of quic: echoes that did not come back right", "echoes", none)
    for _ in range(2 if options.quick else 5):
        for contender in filter(options.admits, (QUIC, BARE, QUIC_ASYNCIO, BARE_ASYNCIO)):
            name = str(contender)
            if name in wrong.failures:
                continue
            try:
                with one_identity(), server(contender, "clones", core) as (port, pid):
                    found = client(contender, "clones", port, core, count=CLONES, server_pid=pid)
            except WorkerError as error:
                wrong.fail(name, error)
                continue
            wrong.add(name, found["wrong"])
            for work, result in measures.items():
                result.add(_beside(contender, FEW), found[f"{work}, few"] * MICROSECONDS)
                result.add(_beside(contender, CLONES), found[f"{work}, many"] * MICROSECONDS)
    yield from measures.values()
    yield wrong


def _beside(contender: Contender, count: int) -> str:
    return f"{contender}, {count} open"
