"""The names of the Connection Properties of NEATPy 1.0; defaults and meaning are in the translation.

-1 is "not set" or "unlimited"; times are in seconds, rates in bits per second. Maximum sizes are read-only.
"""

from enum import Enum

from neatpy.classic.enumerations import CapacityProfiles

__all__ = ["CapacityProfiles", "ConnectionProperties", "TCPUserTimeout"]

ConnectionProperties = Enum(
    "ConnectionProperties",
    "RETRANSMISSION_THRESHOLD_BEFORE_EXCESSIVE_RETRANSMISSION_NOTIFICATION "
    "REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING PRIORITY TIMEOUT_FOR_ABORTING_CONNECTION "
    "CONNECTION_GROUP_TRANSMISSION_SCHEDULER MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT "
    "MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION MAXIMUM_MESSAGE_SIZE_ON_SEND "
    "MAXIMUM_MESSAGE_SIZE_ON_RECEIVE CAPACITY_PROFILE BOUNDS_ON_SEND_OR_RECEIVE_RATE USER_TIMEOUT_TCP",
)
TCPUserTimeout = Enum("TCPUserTimeout", "ADVERTISED_USER_TIMEOUT USER_TIMEOUT_ENABLED CHANGEABLE")
"""The keys of ``USER_TIMEOUT_TCP``."""
