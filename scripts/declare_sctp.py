"""Makes src/neatpy/stacks/_sctp/_declarations.py: run it after a change of the declarations in library.py."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cffi

from neatpy.stacks._sctp import library

PLACE = Path(__file__).parent.parent / "src/neatpy/stacks/_sctp/_declarations.py"
HEAD = '''"""The declarations of the room ``library``, as cffi prepares them; made by ``scripts/declare_sctp.py``."""

# ruff: noqa
# mypy: ignore-errors
'''


def declarations() -> str:
    """What the file should hold."""
    ffi = cffi.FFI()
    ffi.cdef(library.DECLARATIONS)
    ffi.set_source("neatpy.stacks._sctp._declarations", None)
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / "made.py"
        ffi.emit_python_code(str(made))
        return HEAD + made.read_text().replace("# auto-generated file\n", "")


if __name__ == "__main__":
    PLACE.write_text(declarations())
