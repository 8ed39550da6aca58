"""Files for libraries that take certificates and keys only by path: in memory where the system can, so that a private
key never touches a disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def memory_file(contents: bytes) -> Iterator[str]:
    """The path of a file with these contents that only this user can read and that is gone afterwards."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("neatpy", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{descriptor}"
    else:
        descriptor, path = tempfile.mkstemp(prefix="neatpy-")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(contents)
        yield path
    finally:
        os.close(descriptor)
        if not path.startswith("/proc/"):
            with suppress(OSError):
                os.unlink(path)
