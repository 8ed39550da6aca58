"""The enumerations of the API (RFC 9622). Plain data.

Here are those that every Connection needs; the others are defined in :mod:`neatpy.choices`, which is loaded when one of
them is asked for here.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neatpy.choices import CapacityProfile as CapacityProfile
    from neatpy.choices import InterfaceType as InterfaceType
    from neatpy.choices import Multipath as Multipath
    from neatpy.choices import MultipathPolicy as MultipathPolicy
    from neatpy.choices import Scheduler as Scheduler


class Preference(Enum):
    """How much a feature matters in selection (RFC 9622 section 6.2)."""

    REQUIRE = "require"
    """Only what has the feature; otherwise establishment fails."""
    PREFER = "prefer"
    """What has the feature comes first."""
    NO_PREFERENCE = "no preference"
    """The feature does not matter."""
    AVOID = "avoid"
    """What lacks the feature comes first."""
    PROHIBIT = "prohibit"
    """Only what lacks the feature; otherwise establishment fails."""


class PropertyKind(Enum):
    """When a property acts: in selection, on a Connection, or on a Message."""

    SELECTION = "selection"
    CONNECTION = "connection"
    MESSAGE = "message"


class Direction(Enum):
    """Which ways data flow (RFC 9622 section 6.2.16)."""

    BIDIRECTIONAL = "bidirectional"
    UNIDIRECTIONAL_SEND = "unidirectional send"
    UNIDIRECTIONAL_RECEIVE = "unidirectional receive"


class ConnectionState(Enum):
    """Where a Connection is in its life (RFC 9622 section 8.1.11.1)."""

    ESTABLISHING = "establishing"
    ESTABLISHED = "established"
    CLOSING = "closing"
    CLOSED = "closed"


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # the import system asks for __path__
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from neatpy import choices

    return getattr(choices, name)
