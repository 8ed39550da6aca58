"""One server process: ``python -m benchmarks.server WORK API LOOP [CORE]``.

Prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys

from benchmarks.process import load_contender, prepare, run


async def main(work: str, api: str) -> None:
    """Serve until standard input ends."""
    port, _held = await load_contender(api).serve(work)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    print(port, flush=True)
    await ended.wait()
    # What is still open is of no interest, and taking it down in order would take its time.
    os._exit(0)


if __name__ == "__main__":
    _, work, api, loop, *core = sys.argv
    prepare(core)
    run(main(work, api), loop)
