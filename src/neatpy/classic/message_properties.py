"""The Message Properties of NEATPy 1.0 and their defaults."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

from neatpy.classic.enumerations import CapacityProfiles

__all__ = ["CapacityProfiles", "MessageProperties"]


class MessageProperties(Enum):
    """What acts on single Messages; the values are the names of the draft of 2020."""

    LIFETIME = "msg-lifetime"
    """Seconds that a Message may wait to be sent."""
    PRIORITY = "msg-prio"
    """Lower values leave first."""
    ORDERED = "msg-ordered"
    IDEMPOTENT = "idempotent"
    FINAL = "final"
    CORRUPTION_PROTECTION_LENGTH = "msg-checksum-len"
    """Bytes that a checksum covers; -1 is all."""
    RELIABLE_DATA_TRANSFER = "msg-reliable"
    MESSAGE_CAPACITY_PROFILE_OVERRIDE = "msg-capacity-profile"
    SINGULAR_TRANSMISSION = "singular-transmission"
    ECN = "ecn"
    """Read-only, like the next two."""
    EARLY_DATA = "early-data"
    RECEIVING_FINAL_MESSAGE = "receiving-final-messages"

    def __str__(self) -> str:
        return self.value

    @staticmethod
    def get_default(prop: MessageProperties | None = None) -> Any:
        """The default of one property, or a new dictionary of all."""
        return dict(_DEFAULTS) if prop is None else _DEFAULTS[prop]


_DEFAULTS: dict[MessageProperties, Any] = {
    MessageProperties.LIFETIME: math.inf,
    MessageProperties.PRIORITY: 100,
    MessageProperties.ORDERED: True,
    MessageProperties.IDEMPOTENT: False,
    MessageProperties.FINAL: False,
    MessageProperties.CORRUPTION_PROTECTION_LENGTH: -1,
    MessageProperties.RELIABLE_DATA_TRANSFER: True,
    MessageProperties.MESSAGE_CAPACITY_PROFILE_OVERRIDE: CapacityProfiles.DEFAULT,
    MessageProperties.SINGULAR_TRANSMISSION: False,
    MessageProperties.ECN: None,
    MessageProperties.EARLY_DATA: None,
    MessageProperties.RECEIVING_FINAL_MESSAGE: None,
}
