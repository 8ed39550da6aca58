"""The Connection Properties of NEATPy 1.0 and their defaults."""

from __future__ import annotations

from enum import Enum
from typing import Any

from neatpy.classic.enumerations import CapacityProfiles

__all__ = ["CapacityProfiles", "ConnectionProperties", "TCPUserTimeout"]


class TCPUserTimeout(Enum):
    """The keys of ``ConnectionProperties.USER_TIMEOUT_TCP``."""

    ADVERTISED_USER_TIMEOUT = "tcp.user-timeout-value"
    """In seconds."""
    USER_TIMEOUT_ENABLED = "tcp.user-timeout"
    CHANGEABLE = "tcp.user-timeout-recv"


class ConnectionProperties(Enum):
    """What acts on Connections; the values are the names of the draft of 2020. -1 is "not set" or "unlimited"."""

    RETRANSMISSION_THRESHOLD_BEFORE_EXCESSIVE_RETRANSMISSION_NOTIFICATION = "retransmit-notify-threshold"
    REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING = "recv-checksum-len"
    PRIORITY = "conn-prio"
    """Among the Connections of a group; lower values are more urgent."""
    TIMEOUT_FOR_ABORTING_CONNECTION = "conn-timeout"
    """In seconds."""
    CONNECTION_GROUP_TRANSMISSION_SCHEDULER = "conn-scheduler"
    MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT = "zero-rtt-msg-max-len"
    MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION = "singular-transmission-msg-max-len"
    MAXIMUM_MESSAGE_SIZE_ON_SEND = "send-msg-max-len"
    MAXIMUM_MESSAGE_SIZE_ON_RECEIVE = "recv-msg-max-len"
    CAPACITY_PROFILE = "conn-capacity-profile"
    BOUNDS_ON_SEND_OR_RECEIVE_RATE = "max-send-rate / max-recv-rate"
    """A pair, in bits per second."""
    USER_TIMEOUT_TCP = "tcp-uto"
    """A dictionary with any of the keys of ``TCPUserTimeout``."""

    def __str__(self) -> str:
        return self.value

    @staticmethod
    def get_default(prop: ConnectionProperties | None = None) -> Any:
        """The default of one property, or a new dictionary of all."""
        defaults = {one: _DEFAULTS.get(one, -1) for one in ConnectionProperties}
        defaults[ConnectionProperties.USER_TIMEOUT_TCP] = dict(_USER_TIMEOUT)
        return defaults if prop is None else defaults[prop]


_USER_TIMEOUT: dict[TCPUserTimeout, Any] = {
    TCPUserTimeout.ADVERTISED_USER_TIMEOUT: 300,
    TCPUserTimeout.USER_TIMEOUT_ENABLED: False,
    TCPUserTimeout.CHANGEABLE: True,
}
_DEFAULTS: dict[ConnectionProperties, Any] = {
    ConnectionProperties.PRIORITY: 100,
    ConnectionProperties.CONNECTION_GROUP_TRANSMISSION_SCHEDULER: "Weighted fair queueing",
    ConnectionProperties.CAPACITY_PROFILE: CapacityProfiles.DEFAULT,
    ConnectionProperties.BOUNDS_ON_SEND_OR_RECEIVE_RATE: (-1, -1),
}
