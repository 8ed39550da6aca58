"""What an idle connection takes, at the client and at the server, above the kernel.

The growth of the process's resident set while 2000 connections are opened, for each of them, after 200 others have
filled the caches. Memory of the kernel (socket buffers) is no part of it; what Python's socket objects and libuv's
handles take is, and stands in the other contenders' figures. Servers wait to receive; clients do not. The figure is
bytes per connection.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import (
    ALL_CONTENDERS,
    NEATPY,
    NEATPY_ASYNCIO,
    Ceiling,
    Measure,
    Options,
    WorkerError,
    client,
    server,
)

LIMIT = 4096


def measure(options: Options) -> Iterator[Measure]:
    """One measure for each side, from the same runs; every run has a server of its own."""
    count, rounds = (1000, 1) if options.quick else (2000, 3)
    limits = (Ceiling(str(NEATPY), LIMIT), Ceiling(str(NEATPY_ASYNCIO), LIMIT))
    sides = {side: Measure(f"idle connection, {side} side", "B", limits) for side in ("client", "server")}
    failed = set()
    for _ in range(rounds):
        for contender in filter(options.admits, ALL_CONTENDERS):
            if contender in failed:
                continue
            try:
                with server(contender, "idle", None) as (port, pid):
                    grown = client(contender, "idle", port, None, count=count, server_pid=pid)
            except WorkerError as error:
                failed.add(contender)
                for result in sides.values():
                    result.fail(str(contender), error)
                continue
            for side, result in sides.items():
                result.add(str(contender), grown[side])
    yield from sides.values()
