"""``import neatpy`` beside ``import asyncio``, and a minimal client's whole process beside a streams client's.

Every import and every client runs in a fresh interpreter; kinds take turns. Imports are timed inside the process,
without the interpreter's own start; "names" also touches what a minimal client uses, which ``import neatpy`` alone
would leave for later. Clients are timed from outside, from start to exit: connect to an echo server on loopback, 64
bytes, reply, close. The figures are milliseconds; the lowest are set beside each other, as whatever else the machine
does can only add to them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter

from benchmarks.harness import PROTOCOL_ASYNCIO, Floor, LowestMeasure, Measure, Options, WorkerError, server

TIMED_IMPORT = "from time import perf_counter as t; a = t(); {statement}; print((t() - a) * 1000)"
IMPORTS = {
    "import asyncio": "import asyncio",
    "import neatpy": "import neatpy",
    "import neatpy, names": (
        "from neatpy import Preconnection, RemoteEndpoint, SecurityParameters, TransportProperties"
    ),
}
STREAMS_CLIENT = """
import asyncio
{more}
async def main():
    reader, writer = await asyncio.open_connection("127.0.0.1", {port})
    writer.write(bytes(64))
    await reader.readexactly(64)
    writer.close()
    await writer.wait_closed()
{run}
"""
NEATPY_CLIENT = """
import asyncio
from neatpy import Preconnection, RemoteEndpoint, SecurityParameters, TransportProperties
{more}
async def main():
    preconnection = Preconnection(
        remote=RemoteEndpoint("127.0.0.1", {port}, protocol="tcp"),
        properties=TransportProperties.reliable_inorder_stream(),
        security=SecurityParameters.disabled(),
    )
    async with preconnection.initiate() as connection:
        connection.send(bytes(64))
        await connection.receive(min_incomplete_length=64)
{run}
"""
RUNS = {
    "asyncio": {"more": "", "run": "asyncio.run(main())"},
    "uvloop": {
        "more": "import uvloop",
        "run": "with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner: runner.run(main())",
    },
}


def measure(options: Options) -> Iterator[Measure]:
    """One measure for imports, one for whole clients."""
    rounds = 7 if options.quick else 31
    neatpy = "neatpy" in options.apis
    imports = {
        name: TIMED_IMPORT.format(statement=statement)
        for name, statement in IMPORTS.items()
        if neatpy or "neatpy" not in name
    }
    result = LowestMeasure("import", "ms", (Floor("import neatpy", "import asyncio", 1.10, at_most=True),))
    yield _fresh(result, imports, rounds, lambda script: float(_run(script)))

    with server(PROTOCOL_ASYNCIO, "echo", None) as (port, _):
        loops = ("asyncio", "uvloop") if options.has_uvloop() else ("asyncio",)
        clients = {}
        for loop in loops:
            clients[f"streams on {loop}"] = STREAMS_CLIENT.format(port=port, **RUNS[loop])
            if neatpy:
                clients[f"neatpy on {loop}"] = NEATPY_CLIENT.format(port=port, **RUNS[loop])
        limits = [Floor(f"neatpy on {loop}", f"streams on {loop}", 1.10, at_most=True) for loop in loops]
        yield _fresh(
            LowestMeasure("minimal client, whole process", "ms", limits), clients, rounds, _wall_time
        )


def _fresh(
    result: Measure, scripts: Mapping[str, str], rounds: int, figure: Callable[[str], float]
) -> Measure:
    for round_number in range(-1, rounds):
        for name, script in scripts.items():
            if name in result.failures:
                continue
            try:
                value = figure(script)
            except WorkerError as error:
                result.fail(name, error)
                continue
            if round_number >= 0:  # the first only fills the caches of files and of compiled code
                result.add(name, value)
    return result


def _wall_time(script: str) -> float:
    start = perf_counter()
    _run(script)
    return (perf_counter() - start) * 1000


def _run(script: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60, env=_environment()
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerError(f"the process was not done within {error.timeout:.0f} s") from None
    if done.returncode != 0:
        raise WorkerError(f"the process ended with code {done.returncode}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Ours, but with compiled code kept, as for an installed package: everybody else's modules have it already."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
