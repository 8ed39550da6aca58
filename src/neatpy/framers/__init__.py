"""Framers that come with NEATPy. Each module knows one format and nothing of Connections or sockets.

Importing the package loads none of them; each is loaded when it is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neatpy.framers.delimiter import DelimiterFramer
    from neatpy.framers.header import HeaderFramer
    from neatpy.framers.length_prefix import LengthPrefixFramer
    from neatpy.framers.type_length_value import TypeLengthValueFramer

__all__ = ["DelimiterFramer", "HeaderFramer", "LengthPrefixFramer", "TypeLengthValueFramer"]

_HOMES = {
    "DelimiterFramer": "delimiter",
    "HeaderFramer": "header",
    "LengthPrefixFramer": "length_prefix",
    "TypeLengthValueFramer": "type_length_value",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
