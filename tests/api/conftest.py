"""What every test of the public API checks besides: nothing reached the loop's exception handler unasked."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

_PATIENCE = 15.0
"""Seconds after which a test that hangs is cancelled, so that its traceback shows where."""


@pytest.fixture(autouse=True, scope="module")
def quick_collection() -> Iterator[None]:
    """What was there before is not looked at by the collections after each test, which would take most of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop's exception handler got, such as "exception was never retrieved"; a test that causes something
    takes it out."""
    loop = asyncio.get_running_loop()
    found: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: found.append(context))
    watchdog = loop.call_later(_PATIENCE, _cancel_everything, loop)
    yield found
    watchdog.cancel()
    for _ in range(5):  # connections that drain see the ends of their peers
        await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert found == []


def _cancel_everything(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
