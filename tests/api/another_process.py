"""A coroutine of the tests run as a program of its own, whose loop and process end with it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import neatpy

PATHS = (str(Path(__file__).parent.parent), str(Path(neatpy.__file__).parent.parent))
TIME = 10.0


@asynccontextmanager
async def program(
    main: Callable[..., Coroutine[Any, Any, None]], *arguments: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process with the same kind of loop, which complains of nothing, not even of a socket left open."""
    loop = "uvloop" if "uvloop" in type(asyncio.get_running_loop()).__module__ else "asyncio"
    call = f"{main.__name__}({', '.join(map(repr, map(str, arguments)))})"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "always::ResourceWarning", "-c"),
        f"import {loop}; from {main.__module__} import {main.__name__}; {loop}.run({call})",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
        assert process.stderr is not None
        complaints = await asyncio.wait_for(process.stderr.read(), TIME)
        assert not complaints, complaints.decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
