"""The Transport Properties of NEATPy 1.0: three dictionaries, and what they mean to NEATPy now."""

from copy import copy
from functools import partialmethod
from typing import Any

import neatpy
from neatpy.classic.enumerations import ConnectionProperties, MessageProperties, SelectionProperties
from neatpy.classic.enumerations import PreferenceLevel as PreferenceLevel
from neatpy.classic.enumerations import TransportPropertyProfiles as TransportPropertyProfiles
from neatpy.classic.translation import PROFILES, TABLE, OldProperty, apply
from neatpy.classic.utils import log, shim_print

__all__ = [
    "ConnectionProperties", "MessageProperties", "PreferenceLevel", "SelectionProperties", "TransportProperties",
    "TransportPropertyProfiles", "shim_print",
]  # fmt: skip


class TransportProperties:
    """Selection, Message and Connection Properties, in dictionaries by their enumerations. What is no property, is
    read-only or has a value that is not allowed is logged and ignored."""

    def __init__(self, property_profile: TransportPropertyProfiles | None = None) -> None:
        self.selection_properties = _defaults(SelectionProperties)
        self.message_properties = _defaults(MessageProperties)
        self.connection_properties = _defaults(ConnectionProperties)
        for prop, value in PROFILES[property_profile].items():
            self.add(prop, value)

    def add(self, prop: OldProperty, value: Any) -> None:
        """Set a property."""
        if not apply(prop, value, neatpy.TransportProperties().set, OldProperty, "property"):
            return
        if not TABLE[prop].to(value):
            log.warning("%s is kept, but does nothing: RFC 9622 has no such property", prop.name)
        place = self._place(prop)
        place[prop] = {**place[prop], **value} if prop is ConnectionProperties.USER_TIMEOUT_TCP else value

    require = partialmethod(add, value=PreferenceLevel.REQUIRE)
    prefer = partialmethod(add, value=PreferenceLevel.PREFER)
    ignore = partialmethod(add, value=PreferenceLevel.IGNORE)
    avoid = partialmethod(add, value=PreferenceLevel.AVOID)
    prohibit = partialmethod(add, value=PreferenceLevel.PROHIBIT)

    def default(self, prop: OldProperty) -> None:
        """Take back what was set."""
        self._place(prop)[prop] = copy(TABLE[prop].default)

    def translated(self) -> neatpy.TransportProperties:
        """As NEATPy has them now. Raises TypeError or ValueError for what the dictionaries hold and is not allowed."""
        # The defaults of 2020 that are others now; the rest need not be set.
        result = neatpy.TransportProperties(preserve_msg_boundaries="prefer", multipath="active")
        held = {**self.selection_properties, **self.message_properties, **self.connection_properties}
        for prop, value in held.items():
            if value != TABLE[prop].default:
                for name, now in TABLE[prop].to(value).items():
                    result.set(name, now)
        return result

    def _place(self, prop: OldProperty) -> dict[Any, Any]:
        if isinstance(prop, SelectionProperties):
            return self.selection_properties
        return self.message_properties if isinstance(prop, MessageProperties) else self.connection_properties


def _defaults(kind: type[Any]) -> dict[Any, Any]:
    return {prop: copy(TABLE[prop].default) for prop in kind}
