"""The properties of 2020 in terms of RFC 9622, both ways: one table, with the defaults of then."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import neatpy
from neatpy.classic.enumerations import AddressPreference, CapacityProfiles, TCPUserTimeout
from neatpy.classic.enumerations import CommunicationDirections as Ways
from neatpy.classic.enumerations import ConnectionProperties as C
from neatpy.classic.enumerations import MessageProperties as M
from neatpy.classic.enumerations import PreferenceLevel as Level
from neatpy.classic.enumerations import SelectionProperties as S
from neatpy.classic.utils import log

OldProperty = S | M | C
Convert = Callable[[Any], Any]
Read = Callable[[str], Any]
"""Gives the value of one of today's properties, None if there is none."""


class Row(NamedTuple):
    """The default of 2020, today's properties for an old value, and the old value back. Of a property that RFC 9622 has
    dropped, today's are none and there is nothing to give back."""

    default: Any
    to: Callable[[Any], dict[str, Any]]
    back: Callable[[Read], Any]


def apply(prop: Any, value: object, set_one: Callable[[str, Any], object], kind: Any, called: str) -> bool:
    """Set today's properties for an old one, and say whether that was done. What is no ``kind`` of property, is
    read-only or has a value that is not allowed is logged and ignored."""
    if not isinstance(prop, kind):
        log.warning("%r is no %s and was ignored", prop, called)
        return False
    try:
        for name, now in TABLE[prop].to(value).items():
            set_one(name, now)
    except (TypeError, ValueError, AttributeError) as error:
        log.warning("%s was not set: %s", prop.name, error)
        return False
    return True


def _same(value: Any) -> Any:
    return value


def _read_only(value: Any) -> Any:
    raise TypeError("it is read-only")


def _row(default: Any, name: str, to: Convert = _same, back: Convert = _same) -> Row:
    return Row(default, lambda value: {name: to(value)}, lambda read: back(read(name)))


def _dropped(default: Any) -> Row:
    return Row(default, lambda _: {}, lambda _: None)


def _one_of(choices: Mapping[Any, str | None]) -> Convert:
    def converted(value: Any) -> str | None:
        if value not in choices:
            raise TypeError(f"it takes one of {', '.join(map(str, choices))}, not {value!r}")
        return choices[value]

    return converted


_preference = _one_of({**{level: level.name for level in Level}, Level.IGNORE: "NO_PREFERENCE"})


def _levels(*meanings: str | None) -> Convert:
    return _one_of(dict(zip(Level, meanings, strict=True)))


def _pairs(value: Any) -> set[tuple[neatpy.Preference, str]]:
    return {(neatpy.Preference[_preference(level)], name) for level, name in value}


def _limit(value: Any) -> Any:
    return math.inf if value == -1 else value


def _unlimited(value: Any) -> Any:
    return -1 if value in (None, math.inf) else value


def _unless_false(value: Any) -> bool:
    return value is not False


def _profile_row(name: str) -> Row:
    names = {profile: profile.name for profile in CapacityProfiles}
    return _row(
        CapacityProfiles.DEFAULT,
        name,
        _one_of(names),
        lambda now: CapacityProfiles[now.name if now else "DEFAULT"],
    )


_USER_TIMEOUT = {
    TCPUserTimeout.ADVERTISED_USER_TIMEOUT: ("tcp.user_timeout_value", 300),
    TCPUserTimeout.USER_TIMEOUT_ENABLED: ("tcp.user_timeout_enabled", False),
    TCPUserTimeout.CHANGEABLE: ("tcp.user_timeout_changeable", True),
}


def _old_user_timeout(read: Read) -> dict[TCPUserTimeout, Any]:
    found = {key: (read(name), default) for key, (name, default) in _USER_TIMEOUT.items()}
    return {key: default if value is None else value for key, (value, default) in found.items()}


_SAME_NAMES = {
    Level.REQUIRE: (S.RELIABILITY, S.PRESERVE_ORDER, S.CONGESTION_CONTROL),
    Level.PREFER: (S.PRESERVE_MSG_BOUNDARIES, S.MULTISTREAMING),
    Level.IGNORE: (S.PER_MSG_RELIABILITY, S.ZERO_RTT_MSG, S.SOFT_ERROR_NOTIFY),
}
# Who wants to do without full checksums wants the opposite of full ones; who does not care gets them.
_opposite = _levels("PROHIBIT", "AVOID", "REQUIRE", "PREFER", "REQUIRE")

TABLE: Mapping[OldProperty, Row] = {
    **{
        one: _row(level, one.name.lower(), _preference)
        for level, names in _SAME_NAMES.items()
        for one in names
    },
    S.PER_MSG_CHECKSUM_LEN_SEND: _row(Level.IGNORE, "full_checksum_send", _opposite),
    S.PER_MSG_CHECKSUM_LEN_RECV: _row(Level.IGNORE, "full_checksum_recv", _opposite),
    S.INTERFACE: _row(None, "interface", _pairs),
    S.PVD: _row(None, "pvd", _pairs),
    S.LOCAL_ADDRESS_PREFERENCE: _row(
        None,
        "use_temporary_local_address",
        _one_of({AddressPreference.TEMPORARY: "PREFER", AddressPreference.STABLE: "AVOID"}),
    ),
    S.MULTIPATH: _row(Level.PREFER, "multipath", _levels("ACTIVE", "ACTIVE", None, "DISABLED", "DISABLED")),
    S.DIRECTION: _row(Ways.BIDIRECTIONAL, "direction", _one_of({way: way.name for way in Ways})),
    S.RETRANSMIT_NOTIFY: _dropped(Level.IGNORE),
    M.LIFETIME: _row(math.inf, "msg_lifetime"),
    M.PRIORITY: _row(100, "msg_priority"),
    M.ORDERED: _row(True, "msg_ordered", back=_unless_false),
    M.IDEMPOTENT: _row(False, "safely_replayable"),
    M.FINAL: _row(False, "final"),
    M.CORRUPTION_PROTECTION_LENGTH: _row(-1, "msg_checksum_len", _limit, _unlimited),
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
    C.REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING: _row(
        -1, "recv_checksum_len", _limit, _unlimited
    ),
    C.PRIORITY: _row(100, "conn_priority"),
    C.TIMEOUT_FOR_ABORTING_CONNECTION: _row(
        -1, "conn_timeout", lambda value: None if value == -1 else value, _unlimited
    ),
    C.CONNECTION_GROUP_TRANSMISSION_SCHEDULER: _row(
        "Weighted fair queueing", "conn_scheduler", back=lambda now: now.name.replace("_", " ").capitalize()
    ),
    C.MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT: _row(
        -1, "zero_rtt", _read_only, _unlimited
    ),
    C.MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION: _row(
        -1, "singular_transmission_msg_max_len", _read_only, _unlimited
    ),
    C.MAXIMUM_MESSAGE_SIZE_ON_SEND: _row(-1, "send_msg_max_len", _read_only, _unlimited),
    C.MAXIMUM_MESSAGE_SIZE_ON_RECEIVE: _row(-1, "recv_msg_max_len", _read_only, _unlimited),
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
UNSET = (S.INTERFACE, S.PVD, S.LOCAL_ADDRESS_PREFERENCE)
"""What had no value by default."""
