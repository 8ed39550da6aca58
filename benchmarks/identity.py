"""A certificate that servers show and clients trust, for as long as a measure runs; processes find it by their
environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.work import IDENTITY_VARIABLE
from neatpy import Certificate


@contextmanager
def one_identity() -> Iterator[None]:
    """Processes that start meanwhile read the same certificate, of ``localhost``."""
    certificate = Certificate.self_signed("localhost")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "identity.pem")
        path.write_bytes(certificate.certificate_chain + certificate.private_key)
        os.environ[IDENTITY_VARIABLE] = str(path)
        try:
            yield
        finally:
            del os.environ[IDENTITY_VARIABLE]
