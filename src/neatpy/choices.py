"""The enumerations that few programs need: values of properties that are rarely set (RFC 9622). Plain data.

Loaded when such a property is set or read. The place to import them from is :mod:`neatpy.enumerations`.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class Multipath(Enum):
    """Use of several paths (RFC 9622 section 6.2.14)."""

    DISABLED = "disabled"
    """One path only, once established."""
    ACTIVE = "active"
    """The Connection asks its peer for several paths."""
    PASSIVE = "passive"
    """Several paths only if the peer asks for them."""


class MultipathPolicy(Enum):
    """How several paths are used (RFC 9622 section 8.1.7)."""

    HANDOVER = "handover"
    """Another path only when the one in use fails or is about to."""
    INTERACTIVE = "interactive"
    """Whichever paths give low latency, several at once where that helps, weighed against their cost."""
    AGGREGATE = "aggregate"
    """All paths at once, for throughput."""


class CapacityProfile(IntEnum):
    """What traffic wants of the network (RFC 9622 section 8.1.6); the values are DSCPs."""

    DEFAULT = 0
    """Nothing in particular: best effort."""
    SCAVENGER = 1
    """Only what others leave: less than best effort."""
    LOW_LATENCY_INTERACTIVE = 36
    """Somebody waits: loss rather than delay, and no coalescing of small Messages. AF42."""
    LOW_LATENCY_NON_INTERACTIVE = 18
    """Loss rather than delay, though nobody waits. AF21."""
    CONSTANT_RATE_STREAMING = 28
    """A constant rate with little delay and variation of it. AF32."""
    CAPACITY_SEEKING = 10
    """As much throughput as there is. AF11."""


class Scheduler(IntEnum):
    """How the Connections of a group share capacity (RFC 8260 section 3)."""

    FIRST_COME_FIRST_SERVED = 0
    """In the order of sending."""
    ROUND_ROBIN = 1
    """A Message of each Connection in turn."""
    ROUND_ROBIN_PACKET = 2
    """As round robin, but never two Connections in one packet."""
    PRIORITY = 3
    """Strictly by ``conn_priority``."""
    FAIR_CAPACITY = 4
    """The same number of bytes for each Connection."""
    WEIGHTED_FAIR_QUEUEING = 5
    """Bytes in proportion to weights, which follow from ``conn_priority``."""


class InterfaceType(Enum):
    """Kinds of network interface (RFC 9622 section 6.2.11)."""

    LOOPBACK = "loopback"
    WIRED = "wired"
    WIFI = "wifi"
    CELLULAR = "cellular"
    TUNNEL = "tunnel"
    OTHER = "other"
