"""The enumerations of the API (RFC 9622). Plain data."""

from __future__ import annotations

from enum import Enum, IntEnum


class Preference(Enum):
    """How much a feature matters in selection (RFC 9622 section 6.2)."""

    REQUIRE = "require"
    PREFER = "prefer"
    NO_PREFERENCE = "no preference"
    AVOID = "avoid"
    PROHIBIT = "prohibit"


class PropertyKind(Enum):
    """When a property acts: in selection, on a Connection, or on a Message."""

    SELECTION = "selection"
    CONNECTION = "connection"
    MESSAGE = "message"


class Multipath(Enum):
    """Use of several paths (RFC 9622 section 6.2.14)."""

    DISABLED = "disabled"
    ACTIVE = "active"
    PASSIVE = "passive"


class MultipathPolicy(Enum):
    """How several paths are used (RFC 9622 section 8.1.7)."""

    HANDOVER = "handover"
    INTERACTIVE = "interactive"
    AGGREGATE = "aggregate"


class Direction(Enum):
    """Which ways data flow (RFC 9622 section 6.2.16)."""

    BIDIRECTIONAL = "bidirectional"
    UNIDIRECTIONAL_SEND = "unidirectional send"
    UNIDIRECTIONAL_RECEIVE = "unidirectional receive"


class CapacityProfile(IntEnum):
    """What traffic wants of the network (RFC 9622 section 8.1.6); the values are DSCPs."""

    DEFAULT = 0
    SCAVENGER = 1
    LOW_LATENCY_INTERACTIVE = 36
    LOW_LATENCY_NON_INTERACTIVE = 18
    CONSTANT_RATE_STREAMING = 28
    CAPACITY_SEEKING = 10


class Scheduler(IntEnum):
    """How the Connections of a group share capacity (RFC 8260 section 3)."""

    FIRST_COME_FIRST_SERVED = 0
    ROUND_ROBIN = 1
    ROUND_ROBIN_PACKET = 2
    PRIORITY = 3
    FAIR_CAPACITY = 4
    WEIGHTED_FAIR_QUEUEING = 5


class InterfaceType(Enum):
    """Kinds of network interface (RFC 9622 section 6.2.11)."""

    LOOPBACK = "loopback"
    WIRED = "wired"
    WIFI = "wifi"
    CELLULAR = "cellular"
    TUNNEL = "tunnel"
    OTHER = "other"


class ConnectionState(Enum):
    """Where a Connection is in its life (RFC 9622 section 8.1.11.1)."""

    ESTABLISHING = "establishing"
    ESTABLISHED = "established"
    CLOSING = "closing"
    CLOSED = "closed"
