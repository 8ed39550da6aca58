"""What server and client processes share: their core, their limits, their loop, and the contender they load."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from benchmarks.work import ContenderModule


def prepare(core: Sequence[str]) -> None:
    """Pin this process to a core, if one is named, and allow it as many open files as the system does."""
    if core and sys.platform == "linux":
        os.sched_setaffinity(0, {int(core[0])})
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(coroutine: Coroutine[Any, Any, None], loop: str) -> None:
    """Run it on an event loop of this kind."""
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(coroutine)
    else:
        asyncio.run(coroutine)


def load_contender(api: str) -> ContenderModule:
    """Only the one that is measured is imported."""
    return cast(ContenderModule, importlib.import_module(f"benchmarks.contenders.{api}"))
