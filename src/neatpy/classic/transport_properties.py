"""The Transport Properties of NEATPy 1.0: three dictionaries, and what they mean to NEATPy now."""

from __future__ import annotations

import neatpy
from neatpy.classic.connection_properties import ConnectionProperties
from neatpy.classic.enumerations import (
    PreferenceLevel,
    ServiceLevel,
    SupportedProtocolStacks,
    TransportPropertyProfiles,
)
from neatpy.classic.message_properties import MessageProperties
from neatpy.classic.selection_properties import SelectionProperties
from neatpy.classic.translation import OldProperty, translated
from neatpy.classic.utils import log, shim_print

__all__ = [
    "ConnectionProperties",
    "MessageProperties",
    "PreferenceLevel",
    "SelectionProperties",
    "ServiceLevel",
    "SupportedProtocolStacks",
    "TransportProperties",
    "TransportPropertyProfiles",
    "shim_print",
]

_PROFILES = {
    TransportPropertyProfiles.RELIABLE_INORDER_STREAM: ("REQUIRE", "REQUIRE", "REQUIRE", "PROHIBIT"),
    TransportPropertyProfiles.RELIABLE_MESSAGE: ("REQUIRE", "REQUIRE", "REQUIRE", "REQUIRE"),
    TransportPropertyProfiles.UNRELIABLE_DATAGRAM: ("PROHIBIT", "IGNORE", "IGNORE", "REQUIRE"),
}
"""Reliability, order, congestion control and boundaries."""

_OTHER_DEFAULTS = (SelectionProperties.PRESERVE_MSG_BOUNDARIES, SelectionProperties.MULTIPATH)
"""Properties whose default is another one now."""


class TransportProperties:
    """Selection, Message and Connection Properties, in dictionaries by their enumerations."""

    def __init__(self, property_profile: TransportPropertyProfiles | None = None) -> None:
        self.selection_properties = SelectionProperties.get_default()
        self.message_properties = MessageProperties.get_default()
        self.connection_properties = ConnectionProperties.get_default()
        if property_profile is not None:
            reliability, order, control, boundaries = _PROFILES[property_profile]
            self.add(SelectionProperties.RELIABILITY, PreferenceLevel[reliability])
            self.add(SelectionProperties.PRESERVE_ORDER, PreferenceLevel[order])
            self.add(SelectionProperties.CONGESTION_CONTROL, PreferenceLevel[control])
            self.add(SelectionProperties.PRESERVE_MSG_BOUNDARIES, PreferenceLevel[boundaries])
        if property_profile is TransportPropertyProfiles.UNRELIABLE_DATAGRAM:
            self.add(MessageProperties.IDEMPOTENT, True)

    def add(self, prop: OldProperty, value: object) -> None:
        """Set a property; what is none, is read-only or has a value that is not allowed is logged and ignored."""
        place = self._place(prop)
        if place is None:
            return
        if prop is ConnectionProperties.USER_TIMEOUT_TCP and isinstance(value, dict):
            value = {**self.connection_properties[prop], **value}
        try:
            if not translated(prop, value):
                log.warning("%s is kept, but does nothing: RFC 9622 has no such property", prop.name)
        except (TypeError, ValueError, AttributeError) as error:
            log.warning("%s was not set: %s", prop.name, error)
        else:
            place[prop] = value

    def require(self, prop: SelectionProperties) -> None:
        """Only what has the feature will do."""
        self.add(prop, PreferenceLevel.REQUIRE)

    def prefer(self, prop: SelectionProperties) -> None:
        """What has the feature is better."""
        self.add(prop, PreferenceLevel.PREFER)

    def ignore(self, prop: SelectionProperties) -> None:
        """The feature does not matter."""
        self.add(prop, PreferenceLevel.IGNORE)

    def avoid(self, prop: SelectionProperties) -> None:
        """What does not have the feature is better."""
        self.add(prop, PreferenceLevel.AVOID)

    def prohibit(self, prop: SelectionProperties) -> None:
        """Nothing that has the feature will do."""
        self.add(prop, PreferenceLevel.PROHIBIT)

    def default(self, prop: SelectionProperties) -> None:
        """Take back what was set."""
        place = self._place(prop)
        if place is not None:
            place.pop(prop, None)
            default = type(prop).get_default(prop)
            if default is not None:
                place[prop] = default

    def translated(self) -> neatpy.TransportProperties:
        """As NEATPy has them now. Raises TypeError or ValueError for what was put into the dictionaries and is not
        allowed."""
        result = neatpy.TransportProperties()
        for place in (self.selection_properties, self.message_properties, self.connection_properties):
            for prop, value in place.items():
                if prop in _OTHER_DEFAULTS or value != type(prop).get_default(prop):
                    for name, now in translated(prop, value).items():
                        result.set(name, now)
        return result

    def _place(self, prop: object) -> dict[OldProperty, object] | None:
        for kind, place in (
            (SelectionProperties, self.selection_properties),
            (MessageProperties, self.message_properties),
            (ConnectionProperties, self.connection_properties),
        ):
            if isinstance(prop, kind):
                found: dict[OldProperty, object] = place
                return found
        log.warning("%r is no property and was ignored", prop)
        return None
