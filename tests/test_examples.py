"""Every program in ``examples/`` runs to its end on loopback, as its reader would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from api.loopback import available

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
RELIABLE = available("sctp", "tcp")[0]
"""Where reliable data go without security on this host."""

SAYS = {
    "callbacks.py": "NEATPy: HELLO FROM A CLONE",
    "clone.py": "dnoces"[::-1],
    "custom_framer.py": "[b'one', b'', b'three']",
    "datagrams.py": "got 21.7",
    "echo.py": f"Hello, world! came back over {RELIABLE}",
    "explain.py": f"1.1.1 [127.0.0.1:4433, any, {RELIABLE}]",
    "framed_requests.py": "{'sum': 42}",
    "secure_client.py": "refused, as it should be",
}
"""Part of what each prints."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_example_runs_to_its_end(example: Path) -> None:
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert SAYS[example.name] in done.stdout


def test_there_are_examples_short_enough_to_read() -> None:
    assert {example.name for example in EXAMPLES} == set(SAYS)
    for example in EXAMPLES:
        assert len(example.read_text().splitlines()) < 60, example.name
