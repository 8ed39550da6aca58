"""Connect, send 64 bytes, wait for them to come back, close; again and again, one at a time.

Both processes are pinned to one core. The figure is connections per second.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import (
    NEATPY,
    PROTOCOL,
    STREAMS,
    Contender,
    Floor,
    Measure,
    Options,
    client,
    shared_core,
    take_turns,
)


def measure(options: Options) -> Iterator[Measure]:
    """One measure."""
    core = shared_core()
    seconds, rounds = (0.3, 3) if options.quick else (1.0, 7)

    def rate(contender: Contender, port: int, server_pid: int) -> float:
        return client(contender, "connect", port, core, seconds=seconds)["rate"]

    limits = (Floor(str(NEATPY), str(PROTOCOL), 0.40), Floor(str(NEATPY), str(STREAMS), 0.5))
    result = Measure("connect, 64 B, reply, close", "1/s", limits)
    yield take_turns(result, options, "echo", rate, rounds=rounds, core=core)
