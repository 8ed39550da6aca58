"""The properties of 2020 in terms of RFC 9622, both ways: one table, with the defaults of then."""

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import neatpy
from neatpy.classic.enumerations import AddressPreference, CapacityProfiles, CommunicationDirections
from neatpy.classic.enumerations import ConnectionProperties as C
from neatpy.classic.enumerations import MessageProperties as M
from neatpy.classic.enumerations import PreferenceLevel as Level
from neatpy.classic.enumerations import SelectionProperties as S
from neatpy.classic.enumerations import TCPUserTimeout as Timeout
from neatpy.classic.enumerations import TransportPropertyProfiles as Profiles
from neatpy.classic.utils import log

OldProperty = S | M | C
Convert = Callable[[Any], Any]
Read = Callable[[str], Any]
"""Gives the value of one of today's properties, None if there is none."""


class Row(NamedTuple):
    """The default of 2020, today's properties for an old value, and the old value back. Of a property that RFC 9622 has
    dropped, today's are none and there is nothing to give back."""

    default: Any
    to: Callable[[Any], dict[str, Any]] = lambda _: {}
    back: Callable[[Read], Any] = lambda _: None


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


def _row(default: Any, names: str, to: Convert = _same, back: Convert = _same) -> Row:
    """A property that is called so now; or that was divided, and its parts take one value. What is unset or unlimited
    now had the default."""
    divided = names.split()

    def old(read: Read) -> Any:
        now = read(divided[0])
        return default if now in (None, math.inf) else back(now)

    return Row(default, lambda value: dict.fromkeys(divided, to(value)), old)


def _told(name: str, default: Any = -1) -> Row:
    def refuse(value: Any) -> Any:
        raise TypeError("it is read-only")

    return _row(default, name, refuse)


def _member(kind: type[Enum], *meanings: Any) -> Convert:
    """Takes a member of this enumeration; in order, what each of them is now."""
    now = dict(zip(kind, meanings, strict=True))
    return lambda value: now[kind(value)]


def _pairs(value: Any) -> set[tuple[neatpy.Preference, str]]:
    return {(_preference(level), name) for level, name in value}


def _limit(value: Any) -> Any:
    return math.inf if value == -1 else value


_preference = _member(Level, *neatpy.Preference)
# Who wants to do without full checksums wants the opposite of full ones; who does not care gets them.
_opposite = _member(Level, "PROHIBIT", "AVOID", "REQUIRE", "PREFER", "REQUIRE")
_multipath = _member(Level, "ACTIVE", "ACTIVE", None, "DISABLED", "DISABLED")
_temporary = _member(AddressPreference, "AVOID", "PREFER")
_TIMEOUTS = {
    Timeout.ADVERTISED_USER_TIMEOUT: _row(300, "tcp.user_timeout_value"),
    Timeout.USER_TIMEOUT_ENABLED: _row(False, "tcp.user_timeout_enabled"),
    Timeout.CHANGEABLE: _row(True, "tcp.user_timeout_changeable"),
}
_RATES = _row(-1, "max_send_rate", _limit), _row(-1, "max_recv_rate", _limit)

TABLE: Mapping[OldProperty, Row] = {
    S.RELIABILITY: _row(Level.REQUIRE, "reliability", _preference),
    S.PRESERVE_MSG_BOUNDARIES: _row(Level.PREFER, "preserve_msg_boundaries", _preference),
    S.PER_MSG_RELIABILITY: _row(Level.IGNORE, "per_msg_reliability", _preference),
    S.PRESERVE_ORDER: _row(Level.REQUIRE, "preserve_order", _preference),
    S.ZERO_RTT_MSG: _row(Level.IGNORE, "zero_rtt_msg", _preference),
    S.MULTISTREAMING: _row(Level.PREFER, "multistreaming", _preference),
    S.PER_MSG_CHECKSUM_LEN_SEND: _row(Level.IGNORE, "full_checksum_send", _opposite),
    S.PER_MSG_CHECKSUM_LEN_RECV: _row(Level.IGNORE, "full_checksum_recv", _opposite),
    S.CONGESTION_CONTROL: _row(Level.REQUIRE, "congestion_control", _preference),
    S.INTERFACE: _row((), "interface", _pairs),
    S.PVD: _row((), "pvd", _pairs),
    S.LOCAL_ADDRESS_PREFERENCE: _row(None, "use_temporary_local_address", _temporary),
    S.MULTIPATH: _row(Level.PREFER, "multipath", _multipath),
    S.DIRECTION: _row(CommunicationDirections.BIDIRECTIONAL, "direction"),
    S.RETRANSMIT_NOTIFY: Row(Level.IGNORE),
    S.SOFT_ERROR_NOTIFY: _row(Level.IGNORE, "soft_error_notify", _preference),
    M.LIFETIME: _row(math.inf, "msg_lifetime"),
    M.PRIORITY: _row(100, "msg_priority"),
    M.ORDERED: _row(True, "msg_ordered"),
    M.IDEMPOTENT: _row(False, "safely_replayable"),
    M.FINAL: _row(False, "final"),
    M.CORRUPTION_PROTECTION_LENGTH: _row(-1, "msg_checksum_len", _limit),
    M.RELIABLE_DATA_TRANSFER: _row(True, "msg_reliable"),
    M.MESSAGE_CAPACITY_PROFILE_OVERRIDE: _row(CapacityProfiles.DEFAULT, "msg_capacity_profile"),
    M.SINGULAR_TRANSMISSION: _row(False, "no_segmentation no_fragmentation"),
    M.ECN: _told("ecn", None),
    M.EARLY_DATA: _told("early_data", None),
    M.RECEIVING_FINAL_MESSAGE: _told("final", None),
    C.RETRANSMISSION_THRESHOLD_BEFORE_EXCESSIVE_RETRANSMISSION_NOTIFICATION: Row(-1),
    C.REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING: _row(-1, "recv_checksum_len", _limit),
    C.PRIORITY: _row(100, "conn_priority"),
    C.TIMEOUT_FOR_ABORTING_CONNECTION: _row(-1, "conn_timeout", lambda old: None if old == -1 else old),
    C.CONNECTION_GROUP_TRANSMISSION_SCHEDULER: _row(
        "Weighted fair queueing", "conn_scheduler", back=lambda now: now.name.replace("_", " ").capitalize()
    ),
    C.MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT: _told("zero_rtt"),
    C.MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION: _told("singular_transmission_msg_max_len"),
    C.MAXIMUM_MESSAGE_SIZE_ON_SEND: _told("send_msg_max_len"),
    C.MAXIMUM_MESSAGE_SIZE_ON_RECEIVE: _told("recv_msg_max_len"),
    C.CAPACITY_PROFILE: _row(CapacityProfiles.DEFAULT, "conn_capacity_profile"),
    C.BOUNDS_ON_SEND_OR_RECEIVE_RATE: Row(
        (-1, -1),
        lambda rates: {**_RATES[0].to(rates[0]), **_RATES[1].to(rates[1])},
        lambda read: tuple(row.back(read) for row in _RATES),
    ),
    C.USER_TIMEOUT_TCP: Row(
        {key: row.default for key, row in _TIMEOUTS.items()},
        lambda value: {name: one for key, one in value.items() for name in _TIMEOUTS[Timeout(key)].to(one)},
        lambda read: {key: row.back(read) for key, row in _TIMEOUTS.items()},
    ),
}

PROFILES: Mapping[Profiles | None, Mapping[OldProperty, Any]] = {
    None: {},
    Profiles.RELIABLE_INORDER_STREAM: {S.PRESERVE_MSG_BOUNDARIES: Level.PROHIBIT},
    Profiles.RELIABLE_MESSAGE: {S.PRESERVE_MSG_BOUNDARIES: Level.REQUIRE},
    Profiles.UNRELIABLE_DATAGRAM: {
        S.RELIABILITY: Level.PROHIBIT,
        S.PRESERVE_ORDER: Level.IGNORE,
        S.CONGESTION_CONTROL: Level.IGNORE,
        S.PRESERVE_MSG_BOUNDARIES: Level.REQUIRE,
        M.IDEMPOTENT: True,
    },
}
"""Where they differ from the defaults."""
