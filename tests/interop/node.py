"""Packages of npm for tests, installed once into a directory of temporary files and kept there for the next run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import program

INSTALLING = 120.0
"""Seconds that npm may take."""


def modules(*packages: str) -> Path:
    """The directory ``node_modules`` with these packages; skips the test where they are not to be had."""
    node, npm = program("node"), program("npm")
    if node is None or npm is None:
        pytest.skip(f"needs {'node' if node is None else 'npm'}: not installed")
    place = Path(tempfile.gettempdir()) / f"neatpy-tests-node-{os.getuid()}" / "-".join(packages)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.parent.stat().st_uid != os.getuid():
        pytest.skip(f"{place.parent} belongs to somebody else")
    found = place / "node_modules"
    if all((found / package / "package.json").exists() for package in packages):
        return found
    try:
        done = subprocess.run(
            [
                npm,
                "install",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--prefix",
                str(place),
                *packages,
            ],
            capture_output=True,
            text=True,
            timeout=INSTALLING,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {', '.join(packages)} in {INSTALLING:.0f} s")
    if done.returncode != 0:
        pytest.skip(f"npm could not install {', '.join(packages)}: {done.stderr.strip()[-200:]}")
    return found
