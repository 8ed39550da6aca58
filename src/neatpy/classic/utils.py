"""What 1.0 printed with, and the log of this layer."""

from __future__ import annotations

import logging

__all__ = ["shim_print"]

log = logging.getLogger("neatpy.classic")
"""What is ignored or goes unheard is said here; programs that set up no logging see it on standard error."""


def shim_print(main_msg: object, additional_msg: object = "", level: str | None = None) -> None:
    """Print a line, as 1.0 did though without its banners. ``level`` is None, ``"msg"`` or ``"error"``."""
    mark = "NEATPy error" if level == "error" else "NEATPy"
    print(f"{mark}: {main_msg}", additional_msg, sep="\n" if additional_msg else "", flush=True)
