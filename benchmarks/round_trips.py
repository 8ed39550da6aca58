"""64-byte requests and responses, raw and with a length before each.

One client sends 64 bytes and waits for them to come back, again and again on one connection. Both processes are pinned
to one core, so that what counts is the work of both sides and not how the scheduler wakes the other. The figure is
round trips per second.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import (
    NEATPY,
    NEATPY_ASYNCIO,
    PROTOCOL,
    STREAMS,
    STREAMS_ASYNCIO,
    Contender,
    Floor,
    Measure,
    Options,
    client,
    shared_core,
    take_turns,
)

FLOORS = {"echo": 0.65, "echo-framed": 0.60}


def measure(options: Options) -> Iterator[Measure]:
    """One measure for raw, one for framed."""
    core = shared_core()
    seconds, rounds = (0.3, 3) if options.quick else (1.0, 7)
    for work, floor in FLOORS.items():

        def rate(contender: Contender, port: int, server_pid: int, work: str = work) -> float:
            return client(contender, work, port, core, seconds=seconds)["rate"]

        title = f"64-B request/response, {'length-framed' if work == 'echo-framed' else 'raw'}"
        limits = (
            Floor(str(NEATPY), str(PROTOCOL), floor),
            Floor(str(NEATPY), str(STREAMS), 1.0),
            Floor(str(NEATPY_ASYNCIO), str(STREAMS_ASYNCIO), 1.0),
        )
        yield take_turns(Measure(title, "1/s", limits), options, work, rate, rounds=rounds, core=core)
