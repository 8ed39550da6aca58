"""What 1.0 printed with; the log of this layer; handlers, and how many arguments they take."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

__all__ = ["shim_print"]

Handler = Callable[..., Any]

log = logging.getLogger("neatpy.classic")
"""What is ignored or goes unheard is said here; programs that set up no logging see it on standard error."""


def fire(handler: Handler | None, *arguments: Any) -> None:
    """Call a handler, if there is one."""
    if handler is not None:
        handler(*arguments)


def takes_two(handler: Any) -> bool:
    """Whether this is a handler that can be called with a second argument."""
    try:
        inspect.signature(handler).bind(None, None)
    except (TypeError, ValueError):  # a built-in function may have no signature to tell
        return False
    return True


def shim_print(main_msg: object, additional_msg: object = "", level: str | None = None) -> None:
    """Print a line, as 1.0 did though without its banners. ``level`` is None, ``"msg"`` or ``"error"``."""
    mark = "NEATPy error" if level == "error" else "NEATPy"
    print(f"{mark}: {main_msg}", additional_msg, sep="\n" if additional_msg else "", flush=True)
