"""Handlers, and how many arguments they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Handler = Callable[..., Any]


def takes_two(handler: Handler) -> bool:
    """Whether a handler can be called with a second argument."""
    try:
        inspect.signature(handler).bind(None, None)
    except (TypeError, ValueError):  # a built-in function may have no signature to tell
        return False
    return True
