"""The names of the Selection Properties of NEATPy 1.0; defaults and meaning are in the translation.

Most take a ``PreferenceLevel``; ``INTERFACE`` and ``PVD`` pairs such as ``[(PreferenceLevel.REQUIRE, "eth0")]``,
``LOCAL_ADDRESS_PREFERENCE`` an ``AddressPreference``, and ``DIRECTION`` one of ``CommunicationDirections``.
"""

from enum import Enum

from neatpy.classic.enumerations import CommunicationDirections, PreferenceLevel

__all__ = ["CommunicationDirections", "PreferenceLevel", "SelectionProperties"]

SelectionProperties = Enum(
    "SelectionProperties",
    "RELIABILITY PRESERVE_MSG_BOUNDARIES PER_MSG_RELIABILITY PRESERVE_ORDER ZERO_RTT_MSG MULTISTREAMING "
    "PER_MSG_CHECKSUM_LEN_SEND PER_MSG_CHECKSUM_LEN_RECV CONGESTION_CONTROL INTERFACE PVD LOCAL_ADDRESS_PREFERENCE "
    "MULTIPATH DIRECTION RETRANSMIT_NOTIFY SOFT_ERROR_NOTIFY",
)
