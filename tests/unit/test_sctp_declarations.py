"""What cffi prepared of usrsctp's declarations is what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "declare_sctp.py"


def test_the_prepared_declarations_are_those_of_the_library() -> None:
    """If they are not, run scripts/declare_sctp.py."""
    pytest.importorskip("cffi")
    script = runpy.run_path(str(SCRIPT))
    assert script["PLACE"].read_text() == script["declarations"]()
