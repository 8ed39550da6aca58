"""One client process: ``python -m benchmarks.client WORK API LOOP [CORE]``.

Reads the details as JSON from standard input, does the work and prints what it measured as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

from benchmarks.harness import resident_bytes
from benchmarks.process import load_contender, prepare, run
from benchmarks.work import ContenderModule

WARM_UP_CONNECTIONS = 200


async def main(work: str, api: str, details: dict[str, Any]) -> None:
    """Do the work once and print the figures."""
    contender = load_contender(api)
    print(json.dumps(await _measure(contender, work, details)), flush=True)
    os._exit(0)


async def _measure(contender: ContenderModule, work: str, details: dict[str, Any]) -> dict[str, float]:
    port: int = details["port"]
    if work in ("echo", "echo-framed"):
        framed = work == "echo-framed"
        await contender.round_trips(port, framed, details["seconds"] / 5)
        return {"rate": await contender.round_trips(port, framed, details["seconds"])}
    if work == "connect":
        await contender.connects(port, details["seconds"] / 5)
        return {"rate": await contender.connects(port, details["seconds"])}
    if work == "sink-framed":
        await contender.one_way(port, details["seconds"] / 5)
        return {"rate": await contender.one_way(port, details["seconds"])}
    if work in ("bulk", "bulk-framed"):
        return {"rate": await contender.bulk(port, work == "bulk-framed", details["size"])}
    if work == "streams":
        await contender.streams(port, details["seconds"] / 5)
        return {"rate": await contender.streams(port, details["seconds"])}
    if work == "clones":
        return await contender.clones(port, details["count"], details["server_pid"])
    return await _idle(contender, port, details["count"], details["server_pid"])


async def _idle(contender: ContenderModule, port: int, count: int, server_pid: int) -> dict[str, float]:
    held = await contender.open_idle(port, WARM_UP_CONNECTIONS)
    gc.collect()
    before = resident_bytes(os.getpid()), resident_bytes(server_pid)
    held += await contender.open_idle(port, count)
    gc.collect()
    after = resident_bytes(os.getpid()), resident_bytes(server_pid)
    return {"client": (after[0] - before[0]) / count, "server": (after[1] - before[1]) / count}


if __name__ == "__main__":
    _, work, api, loop, *core = sys.argv
    prepare(core)
    run(main(work, api, json.load(sys.stdin)), loop)
