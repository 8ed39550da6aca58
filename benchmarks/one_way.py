"""64-byte Messages one way, with a length before each, in batches of a hundred.

The client waits after each batch until it may send on (``drain``, ``resume_writing``, Sent). A last Message, which the
server answers, shows that all were received. The server cuts Messages out of the stream; for streams by
``readexactly``. Both processes are pinned to one core, so that the work of both sides counts; with ``--spread`` the
slower side decides. The figure is Messages per second.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import (
    NEATPY,
    NEATPY_ASYNCIO,
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


def measure(options: Options) -> Iterator[Measure]:
    """One measure."""
    core = None if options.spread else shared_core()
    seconds, rounds = (0.3, 3) if options.quick else (1.0, 7)

    def rate(contender: Contender, port: int, server_pid: int) -> float:
        return client(contender, "sink-framed", port, core, seconds=seconds)["rate"]

    limits = (
        Floor(str(NEATPY), str(STREAMS), 0.7),
        Floor(str(NEATPY_ASYNCIO), str(STREAMS_ASYNCIO), 0.7),
    )
    result = Measure("64-B one-way, length-framed, in batches", "1/s", limits)
    yield take_turns(result, options, "sink-framed", rate, rounds=rounds, core=core)
