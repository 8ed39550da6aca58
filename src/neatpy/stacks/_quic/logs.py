"""Logs on request: the secrets of connections for a packet analyser, and qlog, where the environment names a place.

``SSLKEYLOGFILE`` names a file for the secrets, as browsers and curl have it: who has them can read everything, so that
it is for debugging alone. ``QLOGDIR`` names a directory for one qlog file for each connection, written at its end.
"""

from __future__ import annotations

import os
from typing import Any

from aioquic.quic.logger import QuicFileLogger


def key_log() -> Any:
    """Where the engine writes its secrets; None unless somebody asks for them."""
    path = os.environ.get("SSLKEYLOGFILE")
    return _Appended(path) if path else None


def qlog() -> QuicFileLogger | None:
    """What the engine tells its events; None unless somebody asks for them, or if there is no such directory."""
    directory = os.environ.get("QLOGDIR")
    return QuicFileLogger(directory) if directory and os.path.isdir(directory) else None


class _Appended:
    """A file that is opened for each line: several processes write to it, and there are few lines."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """Append this. What cannot be written is left out: a log never ends a connection."""
        try:
            with open(self._path, "a", encoding="ascii", opener=_private) as file:
                file.write(text)
        except OSError:
            return

    def flush(self) -> None:
        """It is written."""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
