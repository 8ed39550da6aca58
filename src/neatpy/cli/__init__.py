"""The command line: a small application of the public API, with typer and rich.

It is a user of the library like any other: it imports ``neatpy``, ``neatpy.framers`` and ``neatpy.trace``, and knows
neither protocols nor how they are chosen.
"""

from __future__ import annotations

import sys

_NEEDED = ("typer", "rich")


def main() -> int:
    """Run ``neatpy`` with the arguments of the process; the exit code, or SystemExit from typer.

    2 for a wrong command line, 1 for what failed on the network, 130 when interrupted.
    """
    try:
        from neatpy.cli.app import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        print(f"neatpy: the command line needs {missing}: install NEATPy with its extra cli", file=sys.stderr)
        return 2
    try:
        app(prog_name="neatpy")
    except KeyboardInterrupt:
        return 130
    return 0
