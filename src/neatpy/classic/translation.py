"""The properties of 2020 in terms of RFC 9622, both ways: one table, which everything that translates reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import neatpy
from neatpy.classic.connection_properties import ConnectionProperties, TCPUserTimeout
from neatpy.classic.enumerations import AddressPreference, CapacityProfiles, PreferenceLevel
from neatpy.classic.message_properties import MessageProperties
from neatpy.classic.selection_properties import SelectionProperties

OldProperty = SelectionProperties | MessageProperties | ConnectionProperties
Read = Callable[[str], Any]
"""Gives the value of one of today's properties, None if there is none."""


class Row(NamedTuple):
    """``to`` gives today's properties by name for an old value, ``back`` the old value."""

    to: Callable[[Any], dict[str, Any]]
    back: Callable[[Read], Any]


def translated(prop: OldProperty, value: object) -> dict[str, Any]:
    """Today's properties by name for an old one; none if RFC 9622 has no such property.

    Raises TypeError or ValueError for a value that is not allowed or a property that is read-only."""
    row = TABLE.get(prop)
    if row is None:
        return {}
    names = row.to(value)
    neatpy.TransportProperties(**names)  # which checks the values
    return names


def _one(name: str, to: Callable[[Any], Any] | None = None, back: Callable[[Any], Any] | None = None) -> Row:
    return Row(
        lambda value: {name: value if to is None else to(value)},
        lambda read: read(name) if back is None else back(read(name)),
    )


def _read_only(name: str | None, back: Callable[[Any], Any] | None = None) -> Row:
    def refuse(value: object) -> dict[str, Any]:
        raise TypeError("it is read-only")

    return Row(refuse, lambda read: None if name is None else back(read(name)) if back else read(name))


def _preference(value: Any) -> neatpy.Preference:
    if not isinstance(value, PreferenceLevel):
        raise TypeError(f"it takes a PreferenceLevel, not {value!r}")
    return neatpy.Preference.NO_PREFERENCE if value.value == 0 else neatpy.Preference[value.name]


def _opposite(value: Any) -> neatpy.Preference:
    """Who wants to do without full checksums wants the opposite of full ones; who does not care gets them."""
    preference = _preference(value)
    return neatpy.Preference.REQUIRE if value.value == 0 else _OPPOSITES[preference]


_OPPOSITES = {
    neatpy.Preference.REQUIRE: neatpy.Preference.PROHIBIT,
    neatpy.Preference.PREFER: neatpy.Preference.AVOID,
    neatpy.Preference.AVOID: neatpy.Preference.PREFER,
    neatpy.Preference.PROHIBIT: neatpy.Preference.REQUIRE,
}


def _pairs(value: Any) -> set[tuple[neatpy.Preference, str]]:
    return {(_preference(level), name) for level, name in value}


def _multipath(value: Any) -> neatpy.Multipath | None:
    wanted = _preference(value)
    if wanted in (neatpy.Preference.REQUIRE, neatpy.Preference.PREFER):
        return neatpy.Multipath.ACTIVE
    return None if wanted is neatpy.Preference.NO_PREFERENCE else neatpy.Multipath.DISABLED


def _temporary(value: Any) -> neatpy.Preference:
    temporary = AddressPreference(value) is AddressPreference.TEMPORARY
    return neatpy.Preference.PREFER if temporary else neatpy.Preference.AVOID


def _limit(value: Any) -> Any:
    return math.inf if value == -1 else value


def _unlimited(value: Any) -> Any:
    return -1 if value in (None, math.inf) else value


def _timeout(value: Any) -> Any:
    return None if value == -1 else value


def _profile(value: Any) -> neatpy.CapacityProfile:
    return neatpy.CapacityProfile[CapacityProfiles(value).name]


def _old_profile(value: Any) -> CapacityProfiles:
    return CapacityProfiles.DEFAULT if value is None else CapacityProfiles[value.name]


def _true_unless_set(value: Any) -> bool:
    return value is not False


def _rates(value: Any) -> dict[str, Any]:
    send, receive = value
    return {"max_send_rate": _limit(send), "max_recv_rate": _limit(receive)}


def _user_timeout(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {_USER_TIMEOUT[TCPUserTimeout(key)]: setting for key, setting in value.items()}


def _old_user_timeout(read: Read) -> dict[TCPUserTimeout, Any]:
    defaults = ConnectionProperties.get_default(ConnectionProperties.USER_TIMEOUT_TCP)
    found = {key: read(name) for key, name in _USER_TIMEOUT.items()}
    return {key: defaults[key] if value is None else value for key, value in found.items()}


_USER_TIMEOUT = {
    TCPUserTimeout.ADVERTISED_USER_TIMEOUT: "tcp.user_timeout_value",
    TCPUserTimeout.USER_TIMEOUT_ENABLED: "tcp.user_timeout_enabled",
    TCPUserTimeout.CHANGEABLE: "tcp.user_timeout_changeable",
}

TABLE: Mapping[OldProperty, Row] = {
    SelectionProperties.RELIABILITY: _one("reliability", _preference),
    SelectionProperties.PRESERVE_MSG_BOUNDARIES: _one("preserve_msg_boundaries", _preference),
    SelectionProperties.PER_MSG_RELIABILITY: _one("per_msg_reliability", _preference),
    SelectionProperties.PRESERVE_ORDER: _one("preserve_order", _preference),
    SelectionProperties.ZERO_RTT_MSG: _one("zero_rtt_msg", _preference),
    SelectionProperties.MULTISTREAMING: _one("multistreaming", _preference),
    SelectionProperties.PER_MSG_CHECKSUM_LEN_SEND: _one("full_checksum_send", _opposite),
    SelectionProperties.PER_MSG_CHECKSUM_LEN_RECV: _one("full_checksum_recv", _opposite),
    SelectionProperties.CONGESTION_CONTROL: _one("congestion_control", _preference),
    SelectionProperties.INTERFACE: _one("interface", _pairs),
    SelectionProperties.PVD: _one("pvd", _pairs),
    SelectionProperties.LOCAL_ADDRESS_PREFERENCE: _one("use_temporary_local_address", _temporary),
    SelectionProperties.MULTIPATH: _one("multipath", _multipath),
    SelectionProperties.DIRECTION: _one("direction", lambda value: neatpy.Direction[value.name]),
    SelectionProperties.SOFT_ERROR_NOTIFY: _one("soft_error_notify", _preference),
    MessageProperties.LIFETIME: _one("msg_lifetime"),
    MessageProperties.PRIORITY: _one("msg_priority"),
    MessageProperties.ORDERED: _one("msg_ordered", None, _true_unless_set),
    MessageProperties.IDEMPOTENT: _one("safely_replayable"),
    MessageProperties.FINAL: _one("final"),
    MessageProperties.CORRUPTION_PROTECTION_LENGTH: _one("msg_checksum_len", _limit, _unlimited),
    MessageProperties.RELIABLE_DATA_TRANSFER: _one("msg_reliable", None, _true_unless_set),
    MessageProperties.MESSAGE_CAPACITY_PROFILE_OVERRIDE: _one("msg_capacity_profile", _profile, _old_profile),
    MessageProperties.SINGULAR_TRANSMISSION: Row(
        lambda value: {"no_fragmentation": value, "no_segmentation": value},
        lambda read: read("no_segmentation"),
    ),
    MessageProperties.ECN: _read_only("ecn"),
    MessageProperties.EARLY_DATA: _read_only("early_data"),
    MessageProperties.RECEIVING_FINAL_MESSAGE: _read_only("final"),
    ConnectionProperties.REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING: _one(
        "recv_checksum_len", _limit, _unlimited
    ),
    ConnectionProperties.PRIORITY: _one("conn_priority"),
    ConnectionProperties.TIMEOUT_FOR_ABORTING_CONNECTION: _one("conn_timeout", _timeout, _unlimited),
    ConnectionProperties.CONNECTION_GROUP_TRANSMISSION_SCHEDULER: _one(
        "conn_scheduler", None, lambda scheduler: scheduler.name.replace("_", " ").capitalize()
    ),
    ConnectionProperties.CAPACITY_PROFILE: _one("conn_capacity_profile", _profile, _old_profile),
    ConnectionProperties.BOUNDS_ON_SEND_OR_RECEIVE_RATE: Row(
        _rates, lambda read: (_unlimited(read("max_send_rate")), _unlimited(read("max_recv_rate")))
    ),
    ConnectionProperties.USER_TIMEOUT_TCP: Row(_user_timeout, _old_user_timeout),
    ConnectionProperties.MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT: _read_only(
        "zero_rtt_msg_max_len", _unlimited
    ),
    ConnectionProperties.MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION: _read_only(
        "singular_transmission_msg_max_len", _unlimited
    ),
    ConnectionProperties.MAXIMUM_MESSAGE_SIZE_ON_SEND: _read_only("send_msg_max_len", _unlimited),
    ConnectionProperties.MAXIMUM_MESSAGE_SIZE_ON_RECEIVE: _read_only("recv_msg_max_len", _unlimited),
}
