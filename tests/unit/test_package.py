"""The package itself: what ``import neatpy`` gives, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import neatpy

LIGHT = """
import sys
import neatpy
print([name for name in ("neatpy.trace", "neatpy.framers", "neatpy.framer") if name in sys.modules])
print(neatpy.trace.Event.__name__, neatpy.framers.DelimiterFramer.__name__)
"""


def test_the_public_modules_are_loaded_when_they_are_first_used() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("[]\nEvent DelimiterFramer\n", "")
    assert {"framers", "trace"} <= set(dir(neatpy))
