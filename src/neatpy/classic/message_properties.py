"""The names of the Message Properties of NEATPy 1.0; defaults and meaning are in the translation.

``LIFETIME`` is in seconds, and the lower ``PRIORITY`` leaves first. The last three are read-only.
"""

from enum import Enum

from neatpy.classic.enumerations import CapacityProfiles

__all__ = ["CapacityProfiles", "MessageProperties"]

MessageProperties = Enum(
    "MessageProperties",
    "LIFETIME PRIORITY ORDERED IDEMPOTENT FINAL CORRUPTION_PROTECTION_LENGTH RELIABLE_DATA_TRANSFER "
    "MESSAGE_CAPACITY_PROFILE_OVERRIDE SINGULAR_TRANSMISSION ECN EARLY_DATA RECEIVING_FINAL_MESSAGE",
)
