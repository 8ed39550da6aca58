"""Goodbye to the peers of a loop that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from neatpy.stacks._farewell import farewells


class Connection:
    """Something that has a peer."""

    def __init__(self, said: list[str], word: str) -> None:
        self._said = said
        self._word = word

    def say_goodbye(self) -> None:
        """Tell who asks."""
        if not self._word:
            raise RuntimeError("dumb")
        self._said.append(self._word)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_is_left_when_the_loop_ends_says_goodbye_even_beside_one_that_cannot(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    said: list[str] = []
    told: list[dict[str, Any]] = []
    kept = [Connection(said, word) for word in ("first", "", "ended", "last")]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        for connection in kept:
            farewells.add(loop, connection)
        farewells.discard(loop, kept[2])

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert sorted(said) == ["first", "last"]
    (failure,) = told
    assert str(failure["exception"]) == "dumb"
