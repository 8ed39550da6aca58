"""Endpoints: identifiers of each kind at most once, checked at once."""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Callable
from typing import Any, assert_type

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatpy.endpoint import LocalEndpoint, RemoteEndpoint, StunServer

Endpoint = LocalEndpoint | RemoteEndpoint
both = pytest.mark.parametrize("kind", [LocalEndpoint, RemoteEndpoint])


def test_a_new_endpoint_has_no_identifiers() -> None:
    for endpoint in (LocalEndpoint(), RemoteEndpoint()):
        for name in ("port", "service", "address", "interface", "protocol", "hop_limit", "multicast_group"):
            assert getattr(endpoint, name) is None
    assert RemoteEndpoint().hostname is None
    assert LocalEndpoint().stun_server is None


def test_arguments_and_setters_say_the_same() -> None:
    by_arguments = RemoteEndpoint(
        "example.com", 8443, service="https", address="192.0.2.1", interface="eth0", protocol="quic"
    )
    by_setters = (
        RemoteEndpoint()
        .with_hostname("example.com")
        .with_port(8443)
        .with_service("https")
        .with_ip_address("192.0.2.1")
        .with_interface("eth0")
        .with_protocol("quic")
    )
    assert_type(by_setters, RemoteEndpoint)
    assert by_arguments == by_setters
    local = LocalEndpoint(0, service="http", address="::1", interface="lo", protocol="TLS/TCP")
    assert_type(LocalEndpoint().with_interface("lo").with_port(0), LocalEndpoint)
    assert (local.port, local.service, local.address, local.protocol) == (0, "http", "::1", "tls/tcp")


def test_setters_change_the_endpoint_itself() -> None:
    endpoint = RemoteEndpoint()
    assert endpoint.with_port(80) is endpoint
    assert endpoint.port == 80


# Hosts and addresses


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[::1]", "::1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
    ],
)
def test_a_host_that_is_a_literal_is_the_address(host: str, address: str) -> None:
    endpoint = RemoteEndpoint(host, 80)
    assert (endpoint.hostname, endpoint.address) == (None, address)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "[fe80::1%eth0]"])
def test_a_zone_is_the_interface(host: str) -> None:
    endpoint = RemoteEndpoint(host)
    assert (endpoint.address, endpoint.interface) == ("fe80::1", "eth0")
    assert endpoint == RemoteEndpoint(address="fe80::1", interface="eth0")


def test_a_name_and_an_address_go_together() -> None:
    endpoint = RemoteEndpoint("example.com", 443, address="192.0.2.1")
    assert (endpoint.hostname, endpoint.address) == ("example.com", "192.0.2.1")


@both
@pytest.mark.parametrize("address", [ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")])
def test_address_objects_are_addresses(kind: type[Endpoint], address: object) -> None:
    assert kind(address=address).address == str(address)


def test_an_address_object_with_zone_sets_the_interface() -> None:
    endpoint = LocalEndpoint().with_ip_address(ipaddress.ip_address("fe80::1%eth0"))
    assert (endpoint.address, endpoint.interface) == ("fe80::1", "eth0")


@both
@pytest.mark.parametrize(
    "address",
    [
        "",
        "example.com",
        "1.2.3",
        "256.0.0.1",
        "1:2",
        "fe80::1%",
        "192.0.2.1%eth0",
        "::1/128",
        "1.2.3.4\0",
        "\uff11.2.3.4",
    ],
)
def test_what_is_no_address_is_refused(kind: type[Endpoint], address: str) -> None:
    with pytest.raises(ValueError, match=r"IPv4 or IPv6 address"):
        kind(address=address)


@both
@pytest.mark.parametrize("address", [5, b"\x7f\0\0\1", ("192.0.2.1", 80)])
def test_an_address_of_the_wrong_type_is_refused(kind: type[Endpoint], address: object) -> None:
    with pytest.raises(TypeError, match="string or an ipaddress object"):
        kind(address=address)


@given(st.ip_addresses())
def test_every_address_is_taken_and_kept_in_its_canonical_form(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    for text in (str(address), address.exploded):
        kept = RemoteEndpoint(text).address
        assert kept is not None
        assert ipaddress.ip_address(kept) == address


@pytest.mark.parametrize(
    "name",
    ["localhost", "example.com", "example.com.", "_dmarc.example.com", "xn--bcher-kva.example", "1and1.com",
     "a" * 63 + ".example", ".".join(["a" * 49] * 5)],
)  # fmt: skip
def test_host_names_are_kept_as_they_are(name: str) -> None:
    assert RemoteEndpoint(name).hostname == name


def test_names_in_other_scripts_become_ascii() -> None:
    assert RemoteEndpoint("bücher.example").hostname == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", ".a", "-a.example", "a-.example", "a b", "a/b", "example.com:443", "[::1", "[example.com]",
     "a" * 64, ".".join(["a" * 50] * 5), "ü" * 64, "1.2.3", "256.1.1.1", "10", "0x7f000001", "127.0x1", "a\0b",
     "\uff11\uff12\uff17.\uff10.\uff10.\uff11"],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        RemoteEndpoint(name)


def test_with_hostname_leads_addresses_to_their_own_setter() -> None:
    with pytest.raises(ValueError, match="with_ip_address"):
        RemoteEndpoint().with_hostname("192.0.2.1")


@given(st.text(max_size=300))
def test_any_text_is_a_host_or_a_value_error(text: str) -> None:
    try:
        endpoint = RemoteEndpoint(text)
    except ValueError:
        return
    assert (endpoint.hostname is None) is not (endpoint.address is None)
    assert (endpoint.hostname or "").isascii()


# The other identifiers


@pytest.mark.parametrize(
    ("kind", "least"), [(RemoteEndpoint, 1), (LocalEndpoint, 0)], ids=["remote", "local"]
)
def test_ports_are_within_their_range(kind: type[Endpoint], least: int) -> None:
    assert kind(port=least).port == least
    assert kind(port=65535).port == 65535
    for wrong in (least - 1, 65536):
        with pytest.raises(ValueError, match=f"{least} to 65535"):
            kind(port=wrong)


@both
@pytest.mark.parametrize("port", ["80", 80.0, True, b"80"])
def test_a_port_is_a_whole_number(kind: type[Endpoint], port: Any) -> None:
    with pytest.raises(TypeError, match="port"):
        kind(port=port)


@both
@pytest.mark.parametrize(
    "service", ["https", "xmpp-client", "_xmpp-client._tcp", "_sip._udp", "914c-g", "kerberos_master"]
)
def test_services_are_iana_or_srv_names(kind: type[Endpoint], service: str) -> None:
    assert kind(service=service).service == service


@both
@pytest.mark.parametrize(
    "service", ["", "443", "ht tp", "-a", "a-", "_sip", "_._tcp", "sip._tcp", "_sip._", "dïenst"]
)
def test_other_services_are_refused(kind: type[Endpoint], service: str) -> None:
    with pytest.raises(ValueError, match="service"):
        kind(service=service)


@both
@pytest.mark.parametrize("interface", ["", "et h0", "eth0/1", "e\0", "x" * 65])
def test_what_is_no_interface_name_is_refused(kind: type[Endpoint], interface: str) -> None:
    with pytest.raises(ValueError, match="interface"):
        kind(interface=interface)


@both
@pytest.mark.parametrize("protocol", ["", " ", "tls/tcp "])
def test_what_is_no_stack_name_is_refused(kind: type[Endpoint], protocol: str) -> None:
    with pytest.raises(ValueError, match="protocol"):
        kind(protocol=protocol)


@both
@pytest.mark.parametrize("name", ["service", "interface", "protocol"])
def test_names_are_strings(kind: type[Endpoint], name: str) -> None:
    with pytest.raises(TypeError, match=name):
        kind(**{name: 5})  # type: ignore[arg-type]


@both
def test_hop_limits_are_bytes(kind: type[Endpoint]) -> None:
    assert kind().with_hop_limit(0).hop_limit == 0
    assert kind().with_hop_limit(255).hop_limit == 255
    for wrong in (-1, 256):
        with pytest.raises(ValueError, match="0 to 255"):
            kind().with_hop_limit(wrong)
    with pytest.raises(TypeError, match="hop limit"):
        kind().with_hop_limit(True)


# One of each kind


TWICE: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = [
    ("port", lambda e: e.with_port(1), lambda e: e.with_port(2)),
    ("service", lambda e: e.with_service("http"), lambda e: e.with_service("https")),
    ("address", lambda e: e.with_ip_address("::1"), lambda e: e.with_ip_address("::2")),
    ("interface", lambda e: e.with_interface("lo"), lambda e: e.with_interface("eth0")),
    ("protocol", lambda e: e.with_protocol("tcp"), lambda e: e.with_protocol("udp")),
    ("hop limit", lambda e: e.with_hop_limit(1), lambda e: e.with_hop_limit(2)),
]


@both
@pytest.mark.parametrize(("what", "first", "second"), TWICE, ids=[name for name, *_ in TWICE])
def test_a_second_identifier_of_one_kind_is_refused(
    kind: type[Endpoint], what: str, first: Callable[[Any], Any], second: Callable[[Any], Any]
) -> None:
    endpoint = first(kind())
    before = endpoint.copy()
    with pytest.raises(ValueError, match=what):
        second(endpoint)
    assert endpoint == before
    assert first(endpoint) == before


def test_a_second_name_group_or_server_is_refused() -> None:
    with pytest.raises(ValueError, match="hostname"):
        RemoteEndpoint("a.example").with_hostname("b.example")
    with pytest.raises(ValueError, match="address"):
        RemoteEndpoint("192.0.2.1", address="192.0.2.2")
    with pytest.raises(ValueError, match="multicast group"):
        RemoteEndpoint().with_multicast_group_ip("224.0.0.1").with_multicast_group_ip("224.0.0.2")
    with pytest.raises(ValueError, match="stun server"):
        LocalEndpoint().with_stun_server("192.0.2.1", 3478).with_stun_server("192.0.2.2", 3478)


def test_a_refused_zone_or_address_leaves_the_endpoint_as_it_was() -> None:
    endpoint = RemoteEndpoint("::1")
    with pytest.raises(ValueError, match="address"):
        endpoint.with_ip_address("fe80::1%eth0")
    assert endpoint == RemoteEndpoint("::1")
    endpoint = RemoteEndpoint(interface="eth1")
    with pytest.raises(ValueError, match="interface"):
        endpoint.with_ip_address("fe80::1%eth0")
    assert endpoint == RemoteEndpoint(interface="eth1")


# Multicast and STUN


@pytest.mark.parametrize(
    "group", ["224.0.0.251", "239.255.255.255", "ff02::fb", ipaddress.ip_address("233.252.0.0")]
)
def test_groups_are_multicast_addresses(group: object) -> None:
    assert RemoteEndpoint().with_multicast_group_ip(group).multicast_group == str(group)
    assert LocalEndpoint().with_any_source_multicast_group_ip(group).multicast_group == str(group)


@pytest.mark.parametrize("group", ["192.0.2.1", "240.0.0.1", "2001:db8::1", "", "example.com"])
def test_groups_that_are_no_multicast_addresses_are_refused(group: str) -> None:
    with pytest.raises(ValueError, match="multicast group"):
        RemoteEndpoint().with_multicast_group_ip(group)
    with pytest.raises(ValueError, match="multicast group"):
        LocalEndpoint().with_any_source_multicast_group_ip(group)
    with pytest.raises(ValueError, match="multicast group"):
        LocalEndpoint().with_single_source_multicast_group_ip(group, "192.0.2.1")


def test_the_zone_of_a_group_is_the_interface() -> None:
    endpoint = RemoteEndpoint().with_multicast_group_ip("ff02::fb%eth0")
    assert (endpoint.multicast_group, endpoint.interface) == ("ff02::fb", "eth0")


def test_a_single_source_group_has_its_source() -> None:
    endpoint = LocalEndpoint().with_single_source_multicast_group_ip("232.0.0.1", "192.0.2.1")
    assert (endpoint.multicast_group, endpoint.multicast_source) == ("232.0.0.1", "192.0.2.1")
    assert endpoint.with_single_source_multicast_group_ip("232.0.0.1", "192.0.2.1") is endpoint


@pytest.mark.parametrize(
    ("source", "error"),
    [("232.0.0.2", ValueError), ("::1", ValueError), ("x", ValueError), (None, TypeError)],
)
def test_a_source_is_a_unicast_address_of_the_same_family(source: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="source"):
        LocalEndpoint().with_single_source_multicast_group_ip("232.0.0.1", source)


def test_any_source_and_a_single_source_exclude_each_other() -> None:
    any_source = LocalEndpoint().with_any_source_multicast_group_ip("232.0.0.1")
    with pytest.raises(ValueError, match="any source"):
        any_source.with_single_source_multicast_group_ip("232.0.0.1", "192.0.2.1")
    assert any_source.multicast_source is None
    single = LocalEndpoint().with_single_source_multicast_group_ip("232.0.0.1", "192.0.2.1")
    with pytest.raises(ValueError, match=r"192\.0\.2\.1"):
        single.with_any_source_multicast_group_ip("232.0.0.1")


def test_stun_servers_may_want_credentials() -> None:
    endpoint = LocalEndpoint().with_stun_server("stun.example.com", 3478, ("me", "secret"))
    assert endpoint.stun_server == StunServer("stun.example.com", 3478, ("me", "secret"))
    assert "secret" not in repr(endpoint)
    assert "me" in repr(endpoint)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", 3478), ValueError),
        ((5, 3478), TypeError),
        (("192.0.2.1", 0), ValueError),
        (("192.0.2.1", "3478"), TypeError),
        (("192.0.2.1", 3478, "me:secret"), TypeError),
        (("192.0.2.1", 3478, ("me",)), TypeError),
    ],
)
def test_wrong_stun_servers_are_refused(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        LocalEndpoint().with_stun_server(*arguments)


# Values


@pytest.mark.parametrize("copied", [RemoteEndpoint.copy, copy.copy, copy.deepcopy])
def test_copies_are_equal_and_independent(copied: Callable[[RemoteEndpoint], RemoteEndpoint]) -> None:
    original = RemoteEndpoint("example.com")
    other = copied(original)
    assert other == original
    other.with_port(80)
    assert original.port is None
    assert other != original


def test_endpoints_are_compared_by_value_and_not_hashed() -> None:
    assert RemoteEndpoint("example.com", 80) == RemoteEndpoint("example.com", 80)
    assert RemoteEndpoint(port=80) != LocalEndpoint(80)
    assert RemoteEndpoint(port=80) != 80
    with pytest.raises(TypeError):
        hash(RemoteEndpoint())


def test_an_endpoint_shows_what_it_has() -> None:
    assert repr(LocalEndpoint(80, interface="eth0")) == "LocalEndpoint(interface='eth0', port=80)"
    assert repr(RemoteEndpoint()) == "RemoteEndpoint()"


def test_misspelt_attributes_are_refused() -> None:
    with pytest.raises(AttributeError):
        RemoteEndpoint().host_name = "example.com"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", " ", "a b", "tls//tcp", "/tcp", "tcp/", "tcp\0", "t\u00fcp"])
def test_a_protocol_that_can_be_no_name_of_a_stack_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name of a stack"):
        RemoteEndpoint().with_protocol(name)
