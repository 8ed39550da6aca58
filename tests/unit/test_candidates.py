"""The candidate tree: paths, then protocols, then endpoints."""

from __future__ import annotations

import pytest
from establishment_toys import ToyStack, local, request
from hypothesis import given
from hypothesis import strategies as st

from neatpy.endpoint import RemoteEndpoint
from neatpy.enumerations import InterfaceType
from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.candidates import gather, leaf_key, sole_candidate
from neatpy.establishment.memory import Memory
from neatpy.establishment.paths import paths
from neatpy.establishment.request import EstablishmentRequest
from neatpy.establishment.tree import CandidateTree
from neatpy.properties import TransportProperties
from neatpy.stacks.contract import Address
from neatpy.system.interfaces import NetworkInterface

LO = NetworkInterface("lo", 1, InterfaceType.LOOPBACK, True)
ETH0 = NetworkInterface("eth0", 2, InterfaceType.WIRED, True)
WLAN0 = NetworkInterface("wlan0", 3, InterfaceType.WIFI, True)
DOWN = NetworkInterface("eth1", 4, InterfaceType.WIRED, False)

V4 = RemoteEndpoint("192.0.2.1", 80)
V6 = RemoteEndpoint("2001:db8::1", 80)


def interfaces() -> list[NetworkInterface]:
    return [LO, ETH0, WLAN0, DOWN]


def grown(asked: EstablishmentRequest, memory: Memory | None = None, now: float = 0.0) -> CandidateTree:
    asked.list_interfaces = interfaces
    gathered = gather(asked)
    return CandidateTree(gathered, gathered.targets, memory, now)


def places(tree: CandidateTree) -> list[str]:
    return [f"{leaf.remote.ip} {leaf.interface or 'any'} {leaf.stack.name}" for leaf in tree.leaves()]


def path_names(properties: TransportProperties) -> list[str]:
    return [str(path) for path in paths(properties, list_interfaces=interfaces)[0]]


def test_leaves_are_labelled_by_path_protocol_and_endpoint() -> None:
    tree = grown(request([V4, V6], ToyStack("a", rank=1), ToyStack("b", rank=2)))
    assert [leaf.label for leaf in tree.leaves()] == ["1.1.1", "1.1.2", "1.2.1", "1.2.2"]
    assert repr(tree.leaves()[0]) == "1.1.1 [192.0.2.1:80, any, a]"


def test_without_preferences_the_system_routes() -> None:
    assert path_names(TransportProperties()) == ["any"]


def test_a_required_interface_is_the_only_path() -> None:
    assert path_names(TransportProperties().require("interface", "eth0")) == ["eth0"]


def test_a_prohibited_type_is_no_path_and_loopback_comes_last() -> None:
    assert path_names(TransportProperties().prohibit("interface", InterfaceType.WIFI)) == ["eth0", "lo"]


def test_a_preferred_interface_comes_before_what_the_system_would_choose() -> None:
    assert path_names(TransportProperties().prefer("interface", InterfaceType.WIFI)) == ["wlan0", "any"]


def test_an_avoided_interface_comes_last() -> None:
    assert path_names(TransportProperties().avoid("interface", "eth0")) == ["wlan0", "lo", "eth0"]


def test_every_interface_ruled_out_has_its_reason() -> None:
    _, ruled_out = paths(TransportProperties().require("interface", "eth9"), list_interfaces=interfaces)
    assert {entry.what: entry.reasons[-1] for entry in ruled_out} == {
        "path eth9": "this host has no such interface",
        "path lo": "interface eth9 is required",
        "path eth0": "interface eth9 is required",
        "path wlan0": "interface eth9 is required",
        "path eth1": "interface eth9 is required",
    }


def test_a_required_provisioning_domain_leaves_no_path() -> None:
    eligible, ruled_out = paths(TransportProperties().require("pvd", "corporate"))
    assert eligible == []
    assert "corporate" in repr(ruled_out[0])


def test_other_preferences_for_provisioning_domains_change_nothing() -> None:
    assert path_names(TransportProperties().avoid("pvd", "corporate")) == ["any"]


def test_the_interface_of_a_local_endpoint_is_the_path() -> None:
    tree = grown(request(V4, ToyStack(), local_endpoints=[local(interface="wlan0")]))
    assert places(tree) == ["192.0.2.1 wlan0 toy"]


def test_the_interface_of_a_remote_endpoint_is_its_path_only() -> None:
    bound = RemoteEndpoint("192.0.2.9", 80, interface="eth0")
    tree = grown(request([V4, bound], ToyStack()))
    assert places(tree) == ["192.0.2.1 eth0 toy", "192.0.2.9 eth0 toy", "192.0.2.1 any toy"]


def test_a_link_local_zone_binds_no_path() -> None:
    tree = grown(request(RemoteEndpoint(port=80, address="fe80::1", interface="eth0"), ToyStack()))
    (leaf,) = tree.leaves()
    assert leaf.interface is None
    assert leaf.remote == Address("fe80::1", 80, "eth0")


def test_local_and_remote_addresses_are_of_one_family() -> None:
    own = local(address="192.0.2.254", port=5000)
    tree = grown(request([V4, V6], ToyStack(), local_endpoints=[own]))
    (leaf,) = tree.leaves()
    assert (leaf.remote.ip, leaf.local) == ("192.0.2.1", Address("192.0.2.254", 5000))
    assert "family" in repr(tree.ruled_out_addresses[0])


def test_a_local_port_alone_is_bound_in_the_family_of_the_peer() -> None:
    tree = grown(request([V4, V6], ToyStack(), local_endpoints=[local(5000)]))
    assert [leaf.local for leaf in tree.leaves()] == [Address("0.0.0.0", 5000), Address("::", 5000)]


def test_a_scoped_endpoint_replaces_the_others_on_its_stack_and_is_used_nowhere_else() -> None:
    scoped = RemoteEndpoint("192.0.2.1", 8443, protocol="quic")
    tree = grown(request([V4, scoped], ToyStack("quic", rank=1), ToyStack("tcp", rank=2)))
    assert [(leaf.stack.name, leaf.remote.port) for leaf in tree.leaves()] == [("quic", 8443), ("tcp", 80)]


def test_required_temporary_addresses_rule_out_ipv4() -> None:
    from establishment_toys import RELIABLE

    from neatpy.stacks.features import Provision

    toy = ToyStack(selection={**RELIABLE, "use_temporary_local_address": Provision.OPTIONAL})
    properties = TransportProperties().require("use_temporary_local_address")
    tree = grown(request([V4, V6], toy, properties=properties))
    assert places(tree) == ["2001:db8::1 any toy"]


def test_loopback_is_not_sought_on_other_interfaces() -> None:
    properties = TransportProperties().prohibit("interface", InterfaceType.WIFI)
    tree = grown(request(RemoteEndpoint("127.0.0.1", 80), ToyStack(), properties=properties))
    assert places(tree) == ["127.0.0.1 lo toy"]


def test_no_remote_endpoint_is_an_invalid_configuration() -> None:
    with pytest.raises(EstablishmentError) as caught:
        gather(request([], ToyStack()))
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


def test_a_stack_that_failed_lately_comes_behind_its_equals() -> None:
    memory = Memory()
    memory.failed(("192.0.2.1", 80, "first", None), 0.0)
    asked = request(V4, ToyStack("first", rank=1), ToyStack("second", rank=2))
    assert places(grown(asked, memory, 1.0)) == ["192.0.2.1 any second", "192.0.2.1 any first"]
    assert places(grown(asked, memory, 10000.0)) == ["192.0.2.1 any first", "192.0.2.1 any second"]


def test_an_address_that_failed_lately_comes_behind_the_others() -> None:
    memory = Memory()
    tree = grown(request([V4, V6], ToyStack()))
    memory.failed(leaf_key(tree.leaves()[0]), 0.0)
    assert [leaf.remote.ip for leaf in grown(request([V4, V6], ToyStack()), memory, 1.0).leaves()] == [
        "2001:db8::1",
        "192.0.2.1",
    ]


def test_the_short_way_to_a_sole_candidate_agrees_with_the_tree() -> None:
    for endpoint in (V4, V6, RemoteEndpoint("example.com", 443, address="192.0.2.1")):
        asked = request(endpoint, ToyStack())
        short = sole_candidate(gather(asked))
        (long,) = grown(asked).leaves()
        assert short is not None
        for name in (
            "hop_limit",
            "interface",
            "label",
            "local",
            "properties",
            "remote",
            "security",
            "server_name",
        ):
            assert getattr(short, name) == getattr(long, name)


endpoints = st.lists(
    st.builds(
        RemoteEndpoint,
        st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "127.0.0.1"]),
        st.integers(1, 3),
        interface=st.sampled_from([None, "eth0", "wlan0"]),
        protocol=st.sampled_from([None, "a", "b"]),
    ),
    min_size=1,
    max_size=4,
)


@given(endpoints)
def test_the_same_inputs_give_the_same_order(remotes: list[RemoteEndpoint]) -> None:
    trees = [
        grown(request([remote.copy() for remote in remotes], ToyStack("a", rank=2), ToyStack("b", rank=1)))
        for _ in range(2)
    ]
    assert [repr(leaf) for leaf in trees[0].leaves()] == [repr(leaf) for leaf in trees[1].leaves()]


@given(endpoints, st.sampled_from(["lo", "eth0", "wlan0", InterfaceType.WIFI, InterfaceType.WIRED]))
def test_a_prohibited_path_never_appears(
    remotes: list[RemoteEndpoint], unwanted: str | InterfaceType
) -> None:
    properties = TransportProperties().prohibit("interface", unwanted)
    tree = grown(request(remotes, ToyStack("a"), ToyStack("b"), properties=properties))
    known = {interface.name: interface for interface in interfaces()}
    for leaf in tree.leaves():
        assert leaf.interface is not None
        assert unwanted not in (leaf.interface, known[leaf.interface].kind)
