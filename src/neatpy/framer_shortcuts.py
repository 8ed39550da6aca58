"""The shortcuts of framers: which of them hold. A framer's author may override any method of a framer that comes with
NEATPy, and is heard: a shortcut of a base class that would go past that is not taken. The room knows of framers only
which method a shortcut stands for, and nothing of handles and Connections.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from neatpy.framer import Framer

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTENED = {
    "next_frame": ("handle_received_data",),
    "whole_payload": (),
    "whole_frame": ("new_sent_message",),
}
"""The shortcuts of a framer, and the methods that it defines beside them at the latest."""

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def shortens(*methods: str) -> Callable[[_Function], _Function]:
    """Decorates a shortcut that does not call these methods, so that a more derived class which defines one of them
    does without the shortcut. Without this it is the method that the shortcut is declared for in :class:`Framer`."""

    def mark(shortcut: _Function) -> _Function:
        shortcut.shortened = methods  # type: ignore[attr-defined]
        return shortcut

    return mark


def shortcut_of(framer: Framer, name: str) -> Callable[..., Any] | None:
    """A shortcut of this framer, unless it has none or a more derived class defines a method that it shortens."""
    return getattr(framer, name) if _has_shortcut(type(framer), name) else None


@lru_cache(maxsize=256)
def _has_shortcut(kind: type[Framer], name: str) -> bool:
    derived: list[type] = []
    for base in kind.__mro__:
        if name not in vars(base):
            derived.append(base)
        elif base is Framer and name != "whole_payload":
            return False
        else:
            methods = getattr(vars(base)[name], "shortened", _SHORTENED[name])
            return not any(method in vars(one) for one in derived for method in methods)
    return False
