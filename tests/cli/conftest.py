"""What the commands are given: data, and files with certificates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.running import MEBIBYTE
from pki import Authority


@pytest.fixture
def blob() -> bytes:
    """A MiB with every byte in it."""
    return bytes(range(256)) * (MEBIBYTE // 256 - 1) + os.urandom(256)


@pytest.fixture
def authority(tmp_path: Path) -> dict[str, Path]:
    """Files: a root, and a certificate of it for localhost, good for servers and clients, with its key."""
    issuer = Authority()
    issued = issuer.issue("localhost", "127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("root", "cert", "key")}
    files["root"].write_bytes(issuer.root.certificate_chain)
    files["cert"].write_bytes(issued.certificate_chain)
    files["key"].write_bytes(issued.private_key)
    return files
