"""The Transport Properties of NEATPy 1.0: three dictionaries, and what they mean to NEATPy now."""

from copy import copy
from functools import partialmethod
from typing import Any

import neatpy
from neatpy.classic.connection_properties import ConnectionProperties
from neatpy.classic.enumerations import PreferenceLevel, TransportPropertyProfiles
from neatpy.classic.message_properties import MessageProperties
from neatpy.classic.selection_properties import SelectionProperties
from neatpy.classic.translation import TABLE, OldProperty, translated
from neatpy.classic.utils import log, shim_print

__all__ = [
    "ConnectionProperties", "MessageProperties", "PreferenceLevel", "SelectionProperties", "TransportProperties",
    "TransportPropertyProfiles", "shim_print",
]  # fmt: skip

_S = SelectionProperties
_PROFILED = (_S.RELIABILITY, _S.PRESERVE_ORDER, _S.CONGESTION_CONTROL, _S.PRESERVE_MSG_BOUNDARIES)
_PROFILES = {
    TransportPropertyProfiles.RELIABLE_INORDER_STREAM: ("REQUIRE", "REQUIRE", "REQUIRE", "PROHIBIT"),
    TransportPropertyProfiles.RELIABLE_MESSAGE: ("REQUIRE", "REQUIRE", "REQUIRE", "REQUIRE"),
    TransportPropertyProfiles.UNRELIABLE_DATAGRAM: ("PROHIBIT", "IGNORE", "IGNORE", "REQUIRE"),
}

_OTHER_DEFAULTS = (_S.PRESERVE_MSG_BOUNDARIES, _S.MULTIPATH)
"""Properties whose default is another one now."""

_UNSET = (_S.INTERFACE, _S.PVD, _S.LOCAL_ADDRESS_PREFERENCE)


class TransportProperties:
    """Selection, Message and Connection Properties, in dictionaries by their enumerations."""

    def __init__(self, property_profile: TransportPropertyProfiles | None = None) -> None:
        self.selection_properties = _defaults(SelectionProperties)
        self.message_properties = _defaults(MessageProperties)
        self.connection_properties = _defaults(ConnectionProperties)
        if property_profile is not None:
            for prop, level in zip(_PROFILED, _PROFILES[property_profile], strict=True):
                self.add(prop, PreferenceLevel[level])
        if property_profile is TransportPropertyProfiles.UNRELIABLE_DATAGRAM:
            self.add(MessageProperties.IDEMPOTENT, True)

    def add(self, prop: OldProperty, value: Any) -> None:
        """Set a property; what is none, is read-only or has a value that is not allowed is logged and ignored."""
        if prop not in TABLE:
            log.warning("%r is no property and was ignored", prop)
            return
        try:
            if prop is ConnectionProperties.USER_TIMEOUT_TCP:
                value = {**self.connection_properties[prop], **value}
            if not translated(prop, value):
                log.warning("%s is kept, but does nothing: RFC 9622 has no such property", prop.name)
        except (TypeError, ValueError, AttributeError) as error:
            log.warning("%s was not set: %s", prop.name, error)
        else:
            self._place(prop)[prop] = value

    require = partialmethod(add, value=PreferenceLevel.REQUIRE)
    prefer = partialmethod(add, value=PreferenceLevel.PREFER)
    ignore = partialmethod(add, value=PreferenceLevel.IGNORE)
    avoid = partialmethod(add, value=PreferenceLevel.AVOID)
    prohibit = partialmethod(add, value=PreferenceLevel.PROHIBIT)

    def default(self, prop: SelectionProperties) -> None:
        """Take back what was set."""
        place = self._place(prop)
        place[prop] = TABLE[prop].default
        if prop in _UNSET:
            del place[prop]

    def translated(self) -> neatpy.TransportProperties:
        """As NEATPy has them now. Raises TypeError or ValueError for what the dictionaries hold and is not allowed."""
        result = neatpy.TransportProperties()
        for place in (self.selection_properties, self.message_properties, self.connection_properties):
            for prop, value in place.items():
                if prop in _OTHER_DEFAULTS or value != TABLE[prop].default:
                    for name, now in translated(prop, value).items():
                        result.set(name, now)
        return result

    def _place(self, prop: OldProperty) -> dict[Any, Any]:
        if isinstance(prop, SelectionProperties):
            return self.selection_properties
        return self.message_properties if isinstance(prop, MessageProperties) else self.connection_properties


def _defaults(kind: type[Any]) -> dict[Any, Any]:
    return {prop: copy(TABLE[prop].default) for prop in kind if prop not in _UNSET}
