"""The Selection Properties of NEATPy 1.0 and their defaults."""

from __future__ import annotations

from enum import Enum
from typing import Any

from neatpy.classic.enumerations import CommunicationDirections, PreferenceLevel

__all__ = ["CommunicationDirections", "PreferenceLevel", "SelectionProperties"]


class SelectionProperties(Enum):
    """What decides which protocol stacks are candidates; the values are the names of the draft of 2020."""

    RELIABILITY = "reliability"
    PRESERVE_MSG_BOUNDARIES = "preserve-msg-boundaries"
    PER_MSG_RELIABILITY = "per-msg-reliability"
    PRESERVE_ORDER = "preserve-order"
    ZERO_RTT_MSG = "zero-rtt-msg"
    MULTISTREAMING = "multistreaming"
    PER_MSG_CHECKSUM_LEN_SEND = "per-msg-checksum-len-send"
    PER_MSG_CHECKSUM_LEN_RECV = "per-msg-checksum-len-recv"
    CONGESTION_CONTROL = "congestion-control"
    INTERFACE = "interface"
    """Set to pairs such as ``[(PreferenceLevel.REQUIRE, "eth0")]``."""
    PVD = "pvd"
    """Set to pairs, like ``INTERFACE``."""
    LOCAL_ADDRESS_PREFERENCE = "local-address-preference"
    """Set to an ``AddressPreference``."""
    MULTIPATH = "multipath"
    DIRECTION = "direction"
    """Set to one of ``CommunicationDirections``."""
    RETRANSMIT_NOTIFY = "retransmit-notify"
    SOFT_ERROR_NOTIFY = "soft-error-notify"

    def __str__(self) -> str:
        return self.value

    @staticmethod
    def get_default(prop: SelectionProperties | None = None) -> Any:
        """The default of one property, or a new dictionary of all that have one."""
        return dict(_DEFAULTS) if prop is None else _DEFAULTS.get(prop)


_REQUIRED = ("RELIABILITY", "PRESERVE_ORDER", "CONGESTION_CONTROL")
_PREFERRED = ("PRESERVE_MSG_BOUNDARIES", "MULTISTREAMING", "MULTIPATH")
_WITHOUT_DEFAULT = ("INTERFACE", "PVD", "LOCAL_ADDRESS_PREFERENCE")
_DEFAULTS: dict[SelectionProperties, Any] = {
    prop: PreferenceLevel.REQUIRE
    if prop.name in _REQUIRED
    else PreferenceLevel.PREFER
    if prop.name in _PREFERRED
    else PreferenceLevel.IGNORE
    for prop in SelectionProperties
    if prop.name not in _WITHOUT_DEFAULT
}
_DEFAULTS[SelectionProperties.DIRECTION] = CommunicationDirections.BIDIRECTIONAL
