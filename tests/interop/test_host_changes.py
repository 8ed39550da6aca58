"""The kernel's notices of addresses that come and go, in a network namespace; ``hear`` runs inside."""

from __future__ import annotations

import asyncio
import importlib
import subprocess

import pytest

from interop.netns import Namespace
from neatpy.system.changes import hear_no_more, hear_of_changes

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_program("ip")]


async def hear(loop_name: str) -> list[list[int]]:
    """How often two listeners have heard of changes after each of three; the second stops before the last."""

    async def in_its_loop() -> list[list[int]]:
        loop = asyncio.get_running_loop()
        heard = [0, 0]

        def first() -> None:
            heard[0] += 1

        def second() -> None:
            heard[1] += 1

        counts = []
        hear_of_changes(loop, first)
        hear_of_changes(loop, second)
        for command in ("add 10.8.0.1/32", "del 10.8.0.1/32", "add 10.8.0.2/32"):
            goal = heard[0] + 1
            subprocess.run(["ip", "address", *command.split(), "dev", "lo"], check=True)
            while heard[0] < goal:
                await asyncio.sleep(0.001)
            counts.append(list(heard))
            if len(counts) == 2:
                hear_no_more(loop, second)
        hear_no_more(loop, first)
        subprocess.run(["ip", "address", "del", "10.8.0.2/32", "dev", "lo"], check=True)
        return counts

    def in_a_loop_of_its_own() -> list[list[int]]:
        factory = importlib.import_module("uvloop").new_event_loop if loop_name == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(in_its_loop())

    return await asyncio.to_thread(in_a_loop_of_its_own)


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
async def test_changes_of_the_hosts_addresses_are_told_to_those_who_listen(
    alone: Namespace, loop_name: str
) -> None:
    pytest.importorskip(loop_name)
    assert await alone.run(hear, loop_name) == [[1, 1], [2, 2], [3, 2]]
