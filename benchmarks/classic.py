"""64-byte requests and responses through the callback API of NEATPy 1.0, beside the asyncio API below it.

As :mod:`benchmarks.round_trips`; the figure is round trips per second.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import (
    CLASSIC,
    CLASSIC_ASYNCIO,
    NEATPY,
    NEATPY_ASYNCIO,
    Contender,
    Floor,
    Measure,
    Options,
    client,
    shared_core,
    take_turns,
)

FLOOR = 0.5


def measure(options: Options) -> Iterator[Measure]:
    """One measure."""
    core = shared_core()
    seconds, rounds = (0.3, 3) if options.quick else (1.0, 7)

    def rate(contender: Contender, port: int, server_pid: int) -> float:
        return client(contender, "echo", port, core, seconds=seconds)["rate"]

    limits = (
        Floor(str(CLASSIC), str(NEATPY), FLOOR),
        Floor(str(CLASSIC_ASYNCIO), str(NEATPY_ASYNCIO), FLOOR),
    )
    yield take_turns(
        Measure("64-B request/response, callbacks of NEATPy 1.0", "1/s", limits),
        options,
        "echo",
        rate,
        contenders=(NEATPY, CLASSIC, NEATPY_ASYNCIO, CLASSIC_ASYNCIO),
        rounds=rounds,
        core=core,
    )
