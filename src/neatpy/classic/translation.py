"""The properties of 2020 in terms of RFC 9622, both ways: one table, with the defaults of then."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import neatpy
from neatpy.classic.connection_properties import ConnectionProperties as C
from neatpy.classic.connection_properties import TCPUserTimeout
from neatpy.classic.enumerations import AddressPreference
from neatpy.classic.enumerations import CapacityProfiles as Profiles
from neatpy.classic.enumerations import CommunicationDirections as Ways
from neatpy.classic.enumerations import PreferenceLevel as Level
from neatpy.classic.message_properties import MessageProperties as M
from neatpy.classic.selection_properties import SelectionProperties as S
from neatpy.classic.utils import log

OldProperty = S | M | C
Convert = Callable[[Any], Any]
Read = Callable[[str], Any]
"""Gives the value of one of today's properties, None if there is none."""


class Row(NamedTuple):
    """The default of 2020 (None: there was none), today's properties for an old value, and the old value back."""

    default: Any
    to: Callable[[Any], dict[str, Any]]
    back: Callable[[Read], Any]


def translated(prop: OldProperty, value: object) -> dict[str, Any]:
    """Today's properties by name; none if RFC 9622 has dropped this one. Raises TypeError or ValueError for a value
    that is not allowed and for a property that is read-only."""
    names = TABLE[prop].to(value)
    neatpy.TransportProperties(**names)  # which checks the values
    return names


def apply(prop: OldProperty, value: object, set_one: Callable[[str, Any], object]) -> None:
    """Set today's properties for an old one; what is read-only or refused is logged and ignored."""
    try:
        for name, now in translated(prop, value).items():
            set_one(name, now)
    except (TypeError, ValueError, AttributeError) as error:
        log.warning("%s was not set: %s", prop.name, error)


def _same(value: Any) -> Any:
    return value


def _row(default: Any, name: str, to: Convert = _same, back: Convert = _same) -> Row:
    return Row(default, lambda value: {name: to(value)}, lambda read: back(read(name)))


def _read_only(value: Any) -> Any:
    raise TypeError("it is read-only")


def _dropped(default: Any) -> Row:
    return Row(default, lambda _: {}, lambda _: default)


def _preference(value: Any) -> neatpy.Preference:
    if not isinstance(value, Level):
        raise TypeError(f"it takes a PreferenceLevel, not {value!r}")
    return neatpy.Preference["NO_PREFERENCE" if value is Level.IGNORE else value.name]


def _opposite(value: Any) -> neatpy.Preference:
    """Who wants to do without full checksums wants the opposite of full ones; who does not care gets them."""
    _preference(value)
    return _preference(Level(-value.value) if value is not Level.IGNORE else Level.REQUIRE)


def _pairs(value: Any) -> set[tuple[neatpy.Preference, str]]:
    return {(_preference(level), name) for level, name in value}


def _multipath(value: Any) -> neatpy.Multipath | None:
    if _preference(value) is neatpy.Preference.NO_PREFERENCE:
        return None
    return neatpy.Multipath["ACTIVE" if value.value > 0 else "DISABLED"]


def _temporary(value: Any) -> neatpy.Preference:
    return neatpy.Preference["PREFER" if AddressPreference(value) is AddressPreference.TEMPORARY else "AVOID"]


def _limit(value: Any) -> Any:
    return math.inf if value == -1 else value


def _unlimited(value: Any) -> Any:
    return -1 if value in (None, math.inf) else value


def _limit_row(name: str) -> Row:
    return _row(-1, name, _limit, _unlimited)


def _profile_row(name: str) -> Row:
    def back(now: Any) -> Profiles:
        return Profiles.DEFAULT if now is None else Profiles[now.name]

    return _row(Profiles.DEFAULT, name, lambda old: neatpy.CapacityProfile[Profiles(old).name], back)


def _unless_false(value: Any) -> bool:
    return value is not False


_USER_TIMEOUT = {
    TCPUserTimeout.ADVERTISED_USER_TIMEOUT: ("tcp.user_timeout_value", 300),
    TCPUserTimeout.USER_TIMEOUT_ENABLED: ("tcp.user_timeout_enabled", False),
    TCPUserTimeout.CHANGEABLE: ("tcp.user_timeout_changeable", True),
}


def _old_user_timeout(read: Read) -> dict[TCPUserTimeout, Any]:
    found = {key: (read(name), default) for key, (name, default) in _USER_TIMEOUT.items()}
    return {key: default if value is None else value for key, (value, default) in found.items()}


_REQUIRED = (S.RELIABILITY, S.PRESERVE_ORDER, S.CONGESTION_CONTROL)
_PREFERRED = (S.PRESERVE_MSG_BOUNDARIES, S.MULTISTREAMING)
_IGNORED = (S.PER_MSG_RELIABILITY, S.ZERO_RTT_MSG, S.SOFT_ERROR_NOTIFY)

_MAXIMUM_SIZES = {
    C.MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT: "zero_rtt",
    C.MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION: "singular_transmission_msg_max_len",
    C.MAXIMUM_MESSAGE_SIZE_ON_SEND: "send_msg_max_len",
    C.MAXIMUM_MESSAGE_SIZE_ON_RECEIVE: "recv_msg_max_len",
}

TABLE: Mapping[OldProperty, Row] = {
    **{one: _row(Level.REQUIRE, one.name.lower(), _preference) for one in _REQUIRED},
    **{one: _row(Level.PREFER, one.name.lower(), _preference) for one in _PREFERRED},
    **{one: _row(Level.IGNORE, one.name.lower(), _preference) for one in _IGNORED},
    S.PER_MSG_CHECKSUM_LEN_SEND: _row(Level.IGNORE, "full_checksum_send", _opposite),
    S.PER_MSG_CHECKSUM_LEN_RECV: _row(Level.IGNORE, "full_checksum_recv", _opposite),
    S.INTERFACE: _row(None, "interface", _pairs),
    S.PVD: _row(None, "pvd", _pairs),
    S.LOCAL_ADDRESS_PREFERENCE: _row(None, "use_temporary_local_address", _temporary),
    S.MULTIPATH: _row(Level.PREFER, "multipath", _multipath),
    S.DIRECTION: _row(Ways.BIDIRECTIONAL, "direction", lambda way: neatpy.Direction[way.name]),
    S.RETRANSMIT_NOTIFY: _dropped(Level.IGNORE),
    M.LIFETIME: _row(math.inf, "msg_lifetime"),
    M.PRIORITY: _row(100, "msg_priority"),
    M.ORDERED: _row(True, "msg_ordered", back=_unless_false),
    M.IDEMPOTENT: _row(False, "safely_replayable"),
    M.FINAL: _row(False, "final"),
    M.CORRUPTION_PROTECTION_LENGTH: _limit_row("msg_checksum_len"),
    M.RELIABLE_DATA_TRANSFER: _row(True, "msg_reliable", back=_unless_false),
    M.MESSAGE_CAPACITY_PROFILE_OVERRIDE: _profile_row("msg_capacity_profile"),
    M.SINGULAR_TRANSMISSION: Row(
        False,
        lambda value: {"no_fragmentation": value, "no_segmentation": value},
        lambda read: read("no_segmentation"),
    ),
    M.ECN: _row(None, "ecn", _read_only),
    M.EARLY_DATA: _row(None, "early_data", _read_only),
    M.RECEIVING_FINAL_MESSAGE: _row(None, "final", _read_only),
    C.RETRANSMISSION_THRESHOLD_BEFORE_EXCESSIVE_RETRANSMISSION_NOTIFICATION: _dropped(-1),
    C.REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING: _limit_row("recv_checksum_len"),
    C.PRIORITY: _row(100, "conn_priority"),
    C.TIMEOUT_FOR_ABORTING_CONNECTION: _row(
        -1, "conn_timeout", lambda value: None if value == -1 else value, _unlimited
    ),
    C.CONNECTION_GROUP_TRANSMISSION_SCHEDULER: _row(
        "Weighted fair queueing", "conn_scheduler", back=lambda now: now.name.replace("_", " ").capitalize()
    ),
    **{one: _row(-1, name, _read_only, _unlimited) for one, name in _MAXIMUM_SIZES.items()},
    C.CAPACITY_PROFILE: _profile_row("conn_capacity_profile"),
    C.BOUNDS_ON_SEND_OR_RECEIVE_RATE: Row(
        (-1, -1),
        lambda rates: {"max_send_rate": _limit(rates[0]), "max_recv_rate": _limit(rates[1])},
        lambda read: (_unlimited(read("max_send_rate")), _unlimited(read("max_recv_rate"))),
    ),
    C.USER_TIMEOUT_TCP: Row(
        {key: default for key, (_, default) in _USER_TIMEOUT.items()},
        lambda value: {_USER_TIMEOUT[TCPUserTimeout(key)][0]: setting for key, setting in value.items()},
        _old_user_timeout,
    ),
}
