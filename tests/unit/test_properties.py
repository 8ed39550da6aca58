"""Transport Properties: every row of the RFC, names in any spelling, values checked at once."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any, assert_type

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatpy.enumerations import (
    CapacityProfile,
    ConnectionState,
    Direction,
    InterfaceType,
    Multipath,
    MultipathPolicy,
    Preference,
    PropertyKind,
    Scheduler,
)
from neatpy.errors import PropertyError
from neatpy.properties import PROPERTIES, TransportProperties, find_property

REQUIRE, PREFER, NO_PREFERENCE = Preference.REQUIRE, Preference.PREFER, Preference.NO_PREFERENCE
AVOID, PROHIBIT = Preference.AVOID, Preference.PROHIBIT

# RFC 9622: name, snake_case, default, section. Then those of our own.
SELECTION: list[tuple[str, str, object, str]] = [
    ("reliability", "reliability", REQUIRE, "6.2.1"),
    ("preserveMsgBoundaries", "preserve_msg_boundaries", NO_PREFERENCE, "6.2.2"),
    ("perMsgReliability", "per_msg_reliability", NO_PREFERENCE, "6.2.3"),
    ("preserveOrder", "preserve_order", REQUIRE, "6.2.4"),
    ("zeroRttMsg", "zero_rtt_msg", NO_PREFERENCE, "6.2.5"),
    ("multistreaming", "multistreaming", PREFER, "6.2.6"),
    ("fullChecksumSend", "full_checksum_send", REQUIRE, "6.2.7"),
    ("fullChecksumRecv", "full_checksum_recv", REQUIRE, "6.2.8"),
    ("congestionControl", "congestion_control", REQUIRE, "6.2.9"),
    ("keepAlive", "keep_alive", NO_PREFERENCE, "6.2.10"),
    ("interface", "interface", frozenset(), "6.2.11"),
    ("pvd", "pvd", frozenset(), "6.2.12"),
    ("useTemporaryLocalAddress", "use_temporary_local_address", None, "6.2.13"),
    ("multipath", "multipath", None, "6.2.14"),
    ("advertisesAltaddr", "advertises_altaddr", False, "6.2.15"),
    ("direction", "direction", Direction.BIDIRECTIONAL, "6.2.16"),
    ("softErrorNotify", "soft_error_notify", NO_PREFERENCE, "6.2.17"),
    ("activeReadBeforeSend", "active_read_before_send", NO_PREFERENCE, "6.2.18"),
]
CONNECTION: list[tuple[str, str, object, str]] = [
    ("recvChecksumLen", "recv_checksum_len", math.inf, "8.1.1"),
    ("connPriority", "conn_priority", 100, "8.1.2"),
    ("connTimeout", "conn_timeout", None, "8.1.3"),
    ("keepAliveTimeout", "keep_alive_timeout", None, "8.1.4"),
    ("connScheduler", "conn_scheduler", Scheduler.WEIGHTED_FAIR_QUEUEING, "8.1.5"),
    ("connCapacityProfile", "conn_capacity_profile", CapacityProfile.DEFAULT, "8.1.6"),
    ("multipathPolicy", "multipath_policy", MultipathPolicy.HANDOVER, "8.1.7"),
    ("minSendRate", "min_send_rate", math.inf, "8.1.8"),
    ("minRecvRate", "min_recv_rate", math.inf, "8.1.8"),
    ("maxSendRate", "max_send_rate", math.inf, "8.1.8"),
    ("maxRecvRate", "max_recv_rate", math.inf, "8.1.8"),
    ("groupConnLimit", "group_conn_limit", math.inf, "8.1.9"),
    ("isolateSession", "isolate_session", False, "8.1.10"),
    ("connState", "conn_state", None, "8.1.11.1"),
    ("canSend", "can_send", None, "8.1.11.2"),
    ("canReceive", "can_receive", None, "8.1.11.3"),
    ("singularTransmissionMsgMaxLen", "singular_transmission_msg_max_len", None, "8.1.11.4"),
    ("sendMsgMaxLen", "send_msg_max_len", None, "8.1.11.5"),
    ("recvMsgMaxLen", "recv_msg_max_len", None, "8.1.11.6"),
    ("tcp.userTimeoutValue", "tcp.user_timeout_value", None, "8.2.1"),
    ("tcp.userTimeoutEnabled", "tcp.user_timeout_enabled", False, "8.2.2"),
    ("tcp.userTimeoutChangeable", "tcp.user_timeout_changeable", True, "8.2.3"),
    ("_neatpy.encapsulationPort", "_neatpy.encapsulation_port", None, "4.1"),
    ("_neatpy.receiveLimit", "_neatpy.receive_limit", 4 * 1024 * 1024, "4.1"),
]
MESSAGE: list[tuple[str, str, object, str]] = [
    ("msgLifetime", "msg_lifetime", math.inf, "9.1.3.1"),
    ("msgPriority", "msg_priority", 100, "9.1.3.2"),
    ("msgOrdered", "msg_ordered", None, "9.1.3.3"),
    ("safelyReplayable", "safely_replayable", False, "9.1.3.4"),
    ("final", "final", False, "9.1.3.5"),
    ("msgChecksumLen", "msg_checksum_len", math.inf, "9.1.3.6"),
    ("msgReliable", "msg_reliable", None, "9.1.3.7"),
    ("msgCapacityProfile", "msg_capacity_profile", None, "9.1.3.8"),
    ("noFragmentation", "no_fragmentation", False, "9.1.3.9"),
    ("noSegmentation", "no_segmentation", False, "9.1.3.10"),
    ("_neatpy.payloadProtocolId", "_neatpy.payload_protocol_id", 0, "4.1"),
]
EXPECTED = [
    (kind, *row)
    for kind, rows in (
        (PropertyKind.SELECTION, SELECTION),
        (PropertyKind.CONNECTION, CONNECTION),
        (PropertyKind.MESSAGE, MESSAGE),
    )
    for row in rows
]
READ_ONLY = {
    "conn_state", "can_send", "can_receive", "singular_transmission_msg_max_len", "send_msg_max_len",
    "recv_msg_max_len",
}  # fmt: skip
PREFERENCES = [name for _, name, default, _ in SELECTION if isinstance(default, Preference)]


# The table


@pytest.mark.parametrize(("kind", "rfc_name", "name", "default", "section"), EXPECTED)
def test_each_property_of_the_rfc_is_there_with_its_default(
    kind: PropertyKind, rfc_name: str, name: str, default: object, section: str
) -> None:
    row = PROPERTIES[name]
    assert (row.kind, row.rfc_name, row.name, row.section) == (kind, rfc_name, name, section)
    assert row.default == default
    assert type(row.default) is type(default)
    assert TransportProperties().get(name) == default
    assert row.read_only is (name in READ_ONLY)
    assert row.doc.endswith(".")
    assert row.allowed


def test_there_are_no_other_properties_and_they_are_in_the_order_of_the_rfc() -> None:
    assert list(PROPERTIES) == [name for _, _, name, _, _ in EXPECTED]


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PROPERTIES["own"] = PROPERTIES["reliability"]  # type: ignore[index]


@pytest.mark.parametrize("name", PROPERTIES)
def test_each_property_is_an_attribute(name: str) -> None:
    attribute = name.removeprefix("_").replace(".", "_")
    assert getattr(TransportProperties(), attribute) == PROPERTIES[name].default
    assert getattr(TransportProperties, attribute) is PROPERTIES[name]


@pytest.mark.parametrize("name", [name for name in PROPERTIES if name not in READ_ONLY])
def test_every_default_is_an_allowed_value(name: str) -> None:
    row = PROPERTIES[name]
    assert row.check(row.default) == row.default


def test_attributes_are_typed() -> None:
    properties = TransportProperties()
    assert_type(properties.reliability, Preference)
    assert_type(properties.multipath, Multipath | None)
    assert_type(properties.use_temporary_local_address, Preference | None)
    assert_type(properties.interface, frozenset[tuple[Preference, str | InterfaceType]])
    assert_type(properties.direction, Direction)
    assert_type(properties.conn_timeout, float | None)
    assert_type(properties.conn_priority, int)
    assert_type(properties.conn_state, ConnectionState | None)
    assert_type(properties.max_send_rate, float)
    assert_type(properties.msg_ordered, bool | None)
    assert_type(properties.require("reliability").set("connPriority", 1), TransportProperties)
    properties.conn_timeout = 2


# Names


@given(
    st.sampled_from(sorted(PROPERTIES)),
    st.sampled_from(["name", "rfc_name"]),
    st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_every_name_is_found_in_both_spellings_and_any_case(
    name: str, spelling: str, upper: list[bool]
) -> None:
    spelt: str = getattr(PROPERTIES[name], spelling)
    mixed = "".join(c.upper() if up else c.lower() for c, up in zip(spelt, upper, strict=False))
    for one in (spelt, mixed, spelt.upper(), spelt.lower(), spelt.removeprefix("_").replace(".", "_")):
        assert find_property(one) is PROPERTIES[name]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("relaibility", "reliability"),
        ("connTimeOuts", "conn_timeout"),
        ("tcp.user_timeout", "tcp.user_timeout_value"),
    ],
)
def test_an_unknown_name_raises_with_what_was_perhaps_meant(name: str, meant: str) -> None:
    for use in (find_property, TransportProperties().get, lambda name: TransportProperties().set(name, 1)):
        with pytest.raises(PropertyError, match=f"{name}.*did you mean.*{meant}"):
            use(name)
    with pytest.raises(ValueError, match=name):
        TransportProperties(**{name: 1})


@pytest.mark.parametrize("name", ["", "_", ".", "zzzzzz", "quic.reliability", "reliability "])
def test_other_unknown_names_raise_too(name: str) -> None:
    with pytest.raises(PropertyError, match="no property"):
        find_property(name)


@pytest.mark.parametrize("name", [5, None, b"reliability", ["reliability"]])
def test_a_name_that_is_no_string_is_a_type_error(name: Any) -> None:
    with pytest.raises(TypeError):
        find_property(name)


def test_misspelt_attributes_are_refused() -> None:
    with pytest.raises(AttributeError):
        TransportProperties().relaibility = REQUIRE  # type: ignore[attr-defined]


# Values


def test_a_property_is_set_by_attribute_name_or_keyword() -> None:
    by_keyword = TransportProperties(conn_timeout=3, keepAlive=REQUIRE, tcp_user_timeout_value=30)
    by_name = (
        TransportProperties().set("connTimeout", 3).set("KEEP_ALIVE", REQUIRE).set("tcp.userTimeoutValue", 30)
    )
    by_attribute = TransportProperties()
    by_attribute.conn_timeout = 3
    by_attribute.keep_alive = REQUIRE
    by_attribute.tcp_user_timeout_value = 30
    assert by_keyword == by_name == by_attribute
    assert by_keyword.get("tcp.user_timeout_value") == 30
    assert list(by_keyword.explicit()) == ["conn_timeout", "keep_alive", "tcp.user_timeout_value"]


class Whole(int):
    """An int of a program's own."""


RATES = ("min_send_rate", "min_recv_rate", "max_send_rate", "max_recv_rate")
BOOLEANS = (
    "advertises_altaddr", "isolate_session", "tcp.user_timeout_enabled", "tcp.user_timeout_changeable",
    "safely_replayable", "final", "no_fragmentation", "no_segmentation",
)  # fmt: skip
INHERITED = ("msg_ordered", "msg_reliable")
GOOD: list[tuple[str, list[Any]]] = [
    *((name, [*Preference]) for name in PREFERENCES),
    ("use_temporary_local_address", [*Preference, None]),
    ("multipath", [*Multipath, None]),
    ("direction", [*Direction]),
    ("conn_scheduler", [*Scheduler]),
    ("conn_capacity_profile", [*CapacityProfile]),
    ("multipath_policy", [*MultipathPolicy]),
    ("msg_capacity_profile", [*CapacityProfile, None]),
    *((name, [True, False]) for name in BOOLEANS),
    *((name, [True, False, None]) for name in INHERITED),
    *((name, [1, 0.5, 1e12, math.inf]) for name in (*RATES, "msg_lifetime")),
    *((name, [1, 0.001, 3600.0, None]) for name in ("conn_timeout", "keep_alive_timeout")),
    *((name, [0, 1, 2**40, Whole(7)]) for name in ("conn_priority", "msg_priority")),
    *((name, [0, 1, 65536, math.inf]) for name in ("recv_checksum_len", "msg_checksum_len")),
    ("group_conn_limit", [1, 1000, math.inf]),
    ("tcp.user_timeout_value", [1, 32767, None]),
    ("_neatpy.encapsulation_port", [1, 9899, 65535, None]),
    ("_neatpy.receive_limit", [1, 2**30]),
    ("_neatpy.payload_protocol_id", [0, 2**32 - 1]),
    ("interface", [set(), [(REQUIRE, "eth0"), (AVOID, InterfaceType.CELLULAR)]]),
    ("pvd", [frozenset(), {(PREFER, "corporate")}]),
]
WRONG_TYPE: list[tuple[str, list[Any]]] = [
    *((name, [None, True, 1, b"require", Multipath.ACTIVE]) for name in PREFERENCES),
    ("multipath", [True, 1, REQUIRE]),
    ("direction", [None, 0]),
    ("conn_scheduler", [None, 3, CapacityProfile.DEFAULT]),
    ("conn_capacity_profile", [None, 36, Scheduler.PRIORITY]),
    *((name, [0, 1, None, "yes"]) for name in BOOLEANS),
    *((name, [0, 1, "no"]) for name in INHERITED),
    *((name, [True, None, "1", 1j]) for name in (*RATES, "msg_lifetime")),
    *((name, [True, "1"]) for name in ("conn_timeout", "keep_alive_timeout")),
    *((name, [True, 1.0, None, "1"]) for name in ("conn_priority", "msg_priority", "_neatpy.receive_limit")),
    *((name, [True, 1.5, None]) for name in ("recv_checksum_len", "msg_checksum_len", "group_conn_limit")),
    ("tcp.user_timeout_value", [True, 1.5]),
    ("_neatpy.encapsulation_port", [True, "9899"]),
    *((name, [None, 5, "eth0", b"eth0", {"eth0"}, {REQUIRE}, {(REQUIRE,)}, {("require", "eth0")}, {(REQUIRE, 2)}])
      for name in ("interface", "pvd")),
    ("interface", [{(REQUIRE, Multipath.ACTIVE)}, [[REQUIRE, "eth0"]]]),
]  # fmt: skip
OUT_OF_RANGE: list[tuple[str, list[Any]]] = [
    *((name, ["", "must", "required"]) for name in PREFERENCES),
    *((name, [0, -1, 0.0, math.nan, -math.inf]) for name in (*RATES, "msg_lifetime")),
    *((name, [0, -1, math.nan, math.inf, 10**400]) for name in ("conn_timeout", "keep_alive_timeout")),
    *((name, [-1]) for name in ("conn_priority", "msg_priority", "recv_checksum_len", "msg_checksum_len")),
    *((name, [0, -1]) for name in ("group_conn_limit", "tcp.user_timeout_value", "_neatpy.receive_limit")),
    ("_neatpy.encapsulation_port", [0, 65536]),
    ("_neatpy.payload_protocol_id", [-1, 2**32]),
    *((name, [{(REQUIRE, "x"), (PROHIBIT, "x")}, {(REQUIRE, "")}]) for name in ("interface", "pvd")),
]


def one_by_one(cases: list[tuple[str, list[Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("name", "value"), [(name, value) for name, values in cases for value in values]
    )


@one_by_one(GOOD)
def test_allowed_values_read_back(name: str, value: Any) -> None:
    properties = TransportProperties().set(name, value)
    expected = frozenset(value) if name in ("interface", "pvd") else value
    assert properties.get(name) == expected
    assert properties.explicit() == {name: expected}


@one_by_one(WRONG_TYPE)
def test_values_of_the_wrong_type_raise_and_change_nothing(name: str, value: Any) -> None:
    properties = TransportProperties()
    with pytest.raises(TypeError, match=f"{name} takes .*not "):
        properties.set(name, value)
    assert properties.explicit() == {}


@one_by_one(OUT_OF_RANGE)
def test_values_out_of_range_raise_and_change_nothing(name: str, value: Any) -> None:
    properties = TransportProperties()
    with pytest.raises(ValueError, match=f"{name} takes .*not "):
        properties.set(name, value)
    assert properties.explicit() == {}


def test_every_property_that_can_be_set_has_good_values_here() -> None:
    assert {name for name, _ in GOOD} == set(PROPERTIES) - READ_ONLY


def test_an_error_names_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="REQUIRE, PREFER, NO_PREFERENCE, AVOID or PROHIBIT"):
        TransportProperties().set("reliability", "must")
    with pytest.raises(ValueError, match=r"seconds above 0, or None for disabled, not -1"):
        TransportProperties(conn_timeout=-1)


@pytest.mark.parametrize("name", sorted(READ_ONLY))
def test_what_only_tells_about_a_connection_cannot_be_set(name: str) -> None:
    with pytest.raises(PropertyError, match=f"{name} is read-only"):
        TransportProperties().set(name, None)
    with pytest.raises(PropertyError, match="read-only"):
        setattr(TransportProperties(), name, None)


def test_members_of_enumerations_may_be_spelled_as_in_the_rfc() -> None:
    for spelling in ("low-latency/interactive", "Low Latency/Interactive", "LOW_LATENCY / INTERACTIVE"):
        properties = TransportProperties(conn_capacity_profile=spelling)
        assert properties.conn_capacity_profile is CapacityProfile.LOW_LATENCY_INTERACTIVE
    with pytest.raises(ValueError, match="LOW_LATENCY_INTERACTIVE"):
        TransportProperties(conn_capacity_profile="low latency")


@given(
    st.sampled_from([("reliability", Preference), ("conn_capacity_profile", CapacityProfile), ("direction", Direction),
                     ("multipath", Multipath), ("conn_scheduler", Scheduler), ("multipath_policy", MultipathPolicy)]),
    st.data(),
)  # fmt: skip
def test_members_of_enumerations_may_be_named(row: tuple[str, Any], data: st.DataObject) -> None:
    name, enumeration = row
    member = data.draw(st.sampled_from(list(enumeration)))
    for spelt in (
        member.name,
        member.name.lower(),
        member.name.replace("_", "-"),
        member.name.replace("_", " "),
    ):
        assert TransportProperties().set(name, spelt).get(name) is member


# Preferences


@pytest.mark.parametrize(
    ("action", "preference"),
    [
        (TransportProperties.require, REQUIRE),
        (TransportProperties.prefer, PREFER),
        (TransportProperties.no_preference, NO_PREFERENCE),
        (TransportProperties.avoid, AVOID),
        (TransportProperties.prohibit, PROHIBIT),
    ],
)
def test_the_five_preferences(action: Callable[..., TransportProperties], preference: Preference) -> None:
    for name in (*PREFERENCES, "use_temporary_local_address"):
        properties = TransportProperties()
        assert action(properties, PROPERTIES[name].rfc_name) is properties
        assert properties.get(name) is preference
        with pytest.raises(TypeError, match=name):
            action(properties, name, "eth0")
    for name in ("multipath", "direction", "conn_timeout", "msgPriority", "canSend"):
        with pytest.raises(PropertyError, match="not a preference"):
            action(TransportProperties(), name)
    for value in ("eth0", InterfaceType.CELLULAR):
        assert action(TransportProperties(), "interface", value).interface == {(preference, value)}
    assert action(TransportProperties(), "pvd", "corporate").pvd == {(preference, "corporate")}
    for name in ("interface", "pvd"):
        with pytest.raises(TypeError, match=f"{preference.name.lower()}\\('{name}', ...\\)"):
            action(TransportProperties(), name)
    with pytest.raises(TypeError, match="interface takes"):
        action(TransportProperties(), "interface", ["eth0"])


def test_interfaces_add_up_and_the_last_word_on_one_counts() -> None:
    properties = TransportProperties().prefer("interface", "eth0").avoid("interface", InterfaceType.CELLULAR)
    properties.require("interface", "eth0")
    assert properties.interface == {(REQUIRE, "eth0"), (AVOID, InterfaceType.CELLULAR)}


def test_one_interface_cannot_be_required_and_prohibited() -> None:
    properties = TransportProperties().require("interface", "eth0")
    with pytest.raises(ValueError, match="both required and prohibited"):
        properties.prohibit("interface", "eth0")
    assert properties.interface == {(REQUIRE, "eth0")}
    with pytest.raises(ValueError, match="both required and prohibited"):
        TransportProperties().prohibit("pvd", "corporate").require("pvd", "corporate")
    assert properties.prohibit("interface", "eth1").interface == {(REQUIRE, "eth0"), (PROHIBIT, "eth1")}


# Profiles


def test_the_profiles_are_those_of_the_rfc() -> None:
    reliable = {"reliability": REQUIRE, "preserve_order": REQUIRE, "congestion_control": REQUIRE}
    assert TransportProperties.reliable_inorder_stream().explicit() == {
        **reliable,
        "preserve_msg_boundaries": NO_PREFERENCE,
    }
    assert TransportProperties.reliable_message().explicit() == {
        **reliable,
        "preserve_msg_boundaries": REQUIRE,
    }
    assert TransportProperties.unreliable_datagram().explicit() == {
        "reliability": AVOID,
        "preserve_order": AVOID,
        "congestion_control": NO_PREFERENCE,
        "preserve_msg_boundaries": REQUIRE,
        "safely_replayable": True,
    }


def test_a_profile_is_made_anew_each_time() -> None:
    TransportProperties.unreliable_datagram().require("reliability")
    assert TransportProperties.unreliable_datagram().reliability is AVOID


# Objects


def pickled(properties: TransportProperties) -> TransportProperties:
    again = pickle.loads(pickle.dumps(properties))
    assert isinstance(again, TransportProperties)
    return again


settings = st.dictionaries(st.sampled_from([name for name, _ in GOOD]), st.integers(0, 2), max_size=8).map(
    lambda chosen: {name: dict(GOOD)[name][index % len(dict(GOOD)[name])] for name, index in chosen.items()}
)


@given(settings, settings, st.sampled_from([TransportProperties.snapshot, copy.copy, copy.deepcopy, pickled]))
def test_copies_are_equal_and_independent(
    first: dict[str, Any], later: dict[str, Any], copied: Callable[[TransportProperties], TransportProperties]
) -> None:
    original = TransportProperties(**first)
    before = dict(original.explicit())
    other = copied(original)
    assert other == original
    assert other.explicit() == before
    for name, value in later.items():
        other.set(name, value)
    assert original.explicit() == before
    for name, value in later.items():
        original.set(name, value)
    assert original == other


def test_nothing_is_explicit_until_it_is_set() -> None:
    properties = TransportProperties()
    assert properties.explicit() == {}
    assert properties.set("reliability", REQUIRE).explicit() == {"reliability": REQUIRE}


def test_equal_are_those_that_say_the_same() -> None:
    assert TransportProperties(reliability=REQUIRE) == TransportProperties()
    assert TransportProperties(reliability=AVOID) != TransportProperties()
    assert TransportProperties() != {}
    with pytest.raises(TypeError):
        hash(TransportProperties())


def test_the_representation_shows_what_was_set() -> None:
    assert repr(TransportProperties()) == "TransportProperties()"
    shown = repr(TransportProperties(reliability=AVOID, conn_timeout=2.5, multipath=None))
    assert shown == "TransportProperties(reliability=AVOID, conn_timeout=2.5, multipath=None)"
