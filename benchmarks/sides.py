"""Runs a module as the server and as the client of a measure, each in a network namespace or in none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

CLIENT_SECONDS = 90.0


@contextmanager
def server_inside(namespace: str | None, module: str, kind: str, host: str) -> Iterator[int]:
    """Run ``MODULE server KIND HOST``; gives the port that it prints, and ends it. Raises ValueError if it prints
    none."""
    process = subprocess.Popen(
        [*_inside(namespace, module), "server", kind, host],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it tells that clients end by aborting
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def client_inside(
    namespace: str | None, module: str, role: str, kind: str, host: str, details: Mapping[str, object]
) -> Any:
    """Run ``MODULE ROLE KIND HOST DETAILS`` to its end; gives what it prints, which is JSON. Raises
    subprocess.SubprocessError and ValueError."""
    command = [*_inside(namespace, module), role, kind, host, json.dumps(details)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=CLIENT_SECONDS, check=True)
    return json.loads(done.stdout)


def _inside(namespace: str | None, module: str) -> list[str]:
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    return [*prefix, sys.executable, "-m", module]
