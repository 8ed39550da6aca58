"""256 MiB from client to server, raw and in framed Messages of 64 KiB.

The client waits after each 64 KiB until it may send on, half-closes at the end and waits for the server's answer, so
that everything has been received. Raw servers take the data as it comes; framed ones make a whole Message of each 64
KiB. Both processes are pinned to one core, so that the work of both sides counts; with ``--spread`` they are not. The
figure is bytes per second.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import (
    NEATPY,
    PROTOCOL,
    Contender,
    Floor,
    Measure,
    Options,
    client,
    shared_core,
    take_turns,
)

FLOORS = {"bulk": 0.90, "bulk-framed": 0.80}
MEBIBYTE = 1024 * 1024


def measure(options: Options) -> Iterator[Measure]:
    """One measure for raw, one for framed."""
    core = None if options.spread else shared_core()
    size, rounds = (32 * MEBIBYTE, 3) if options.quick else (256 * MEBIBYTE, 7)
    for work, floor in FLOORS.items():

        def rate(contender: Contender, port: int, server_pid: int, work: str = work) -> float:
            return client(contender, work, port, core, size=size)["rate"] / MEBIBYTE

        kind = "framed 64-KiB Messages" if work == "bulk-framed" else "raw"
        result = Measure(
            f"bulk {size // MEBIBYTE} MiB, {kind}", "MiB/s", (Floor(str(NEATPY), str(PROTOCOL), floor),)
        )
        yield take_turns(result, options, work, rate, rounds=rounds, core=core)
