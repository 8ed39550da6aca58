"""How handlers are called that take fewer arguments than there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Handler = Callable[..., Any]

_VARIADIC = inspect.CO_VARARGS


def takes_two(handler: Handler) -> bool:
    """Whether a handler can be called with a second argument."""
    code = getattr(handler, "__code__", None)
    if code is None:
        return _parameters(handler) > 1
    bound = getattr(handler, "__self__", None) is not None
    return bool(code.co_flags & _VARIADIC) or code.co_argcount - bound > 1


def _parameters(handler: Handler) -> float:
    """How many arguments an object that is no plain function takes: a partial, a class, a built-in one."""
    try:
        kinds = [parameter.kind for parameter in inspect.signature(handler).parameters.values()]
    except (TypeError, ValueError):
        return 1
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return float("inf")
    return sum(
        kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
    )
