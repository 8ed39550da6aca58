"""From endpoints to addresses, with a resolver of our own."""

from __future__ import annotations

import asyncio

import pytest
from establishment_toys import V4, V6, Names, until

from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
from neatpy.errors import EstablishmentError, Reason
from neatpy.establishment.answers import RESOLUTION_DELAY, interleaved
from neatpy.establishment.resolution import (
    Resolution,
    addresses_of,
    resolve_endpoints,
)
from neatpy.establishment.targets import check_remote, literal, port_of, port_of_service
from neatpy.stacks.contract import Address

HOST = RemoteEndpoint("example.com", 443)


def started(names: Names, *endpoints: RemoteEndpoint) -> Resolution:
    resolution = Resolution(endpoints, lambda: None, names)
    resolution.start()
    return resolution


def test_a_literal_needs_no_look_up() -> None:
    target = literal(RemoteEndpoint("192.0.2.1", 80))
    assert target is not None
    assert target.address == Address("192.0.2.1", 80)
    assert target.server_name is None


def test_a_name_with_an_address_is_dialled_there_and_verified_by_name() -> None:
    target = literal(RemoteEndpoint("example.com", 443, address="192.0.2.1"))
    assert target is not None
    assert (target.address.ip, target.server_name) == ("192.0.2.1", "example.com")


def test_the_zone_of_a_link_local_address_is_kept() -> None:
    target = literal(RemoteEndpoint(port=80, address="fe80::1", interface="eth0"))
    assert target is not None
    assert target.address.scope == "eth0"
    assert str(target.address) == "[fe80::1%eth0]:80"


def test_an_interface_is_no_zone_of_a_global_address() -> None:
    target = literal(RemoteEndpoint(port=80, address="2001:db8::1", interface="eth0"))
    assert target is not None
    assert target.address.scope == ""


@pytest.mark.parametrize("endpoint", [RemoteEndpoint("example.com"), RemoteEndpoint(port=80)])
def test_an_incomplete_remote_endpoint_is_an_invalid_configuration(endpoint: RemoteEndpoint) -> None:
    with pytest.raises(EstablishmentError) as caught:
        check_remote(endpoint)
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


def test_services_give_ports() -> None:
    assert port_of_service("https") == 443
    assert port_of(LocalEndpoint(service="https")) == 443
    assert port_of(LocalEndpoint()) == 0


def test_an_unknown_service_fails_at_once_and_says_so() -> None:
    with pytest.raises(EstablishmentError, match="no-such-service") as caught:
        port_of_service("no-such-service")
    assert caught.value.reason is Reason.RESOLUTION_FAILED


def test_families_take_turns() -> None:
    v6 = [Address(f"2001:db8::{n}", 1) for n in range(3)]
    v4 = [Address("192.0.2.1", 1)]
    assert interleaved(v6, v4) == [v6[0], v4[0], v6[1], v6[2]]


async def test_both_families_are_asked_at_the_same_time() -> None:
    names = Names()
    resolution = started(names, HOST)
    assert set(names.asked) == {("example.com", V6), ("example.com", V4)}
    resolution.cancel()


async def test_ipv6_answered_first_may_be_used_at_once() -> None:
    names = Names()
    resolution = started(names, HOST)
    assert resolution.ready_at() is None
    names.answer("example.com", V6, ["2001:db8::1"])
    await until(lambda: resolution.ready_at() is not None)
    assert [target.address.ip for target in resolution.take()] == ["2001:db8::1"]
    names.answer("example.com", V4, ["192.0.2.1"])
    await until(lambda: not resolution.pending)
    assert [target.address.ip for target in resolution.take()] == ["192.0.2.1"]
    assert resolution.take() == []


async def test_ipv4_answered_first_waits_a_little_for_ipv6() -> None:
    names = Names()
    resolution = started(names, HOST)
    before = asyncio.get_running_loop().time()
    names.answer("example.com", V4, ["192.0.2.1"])
    await until(lambda: resolution.ready_at() is not None)
    ready_at = resolution.ready_at()
    assert ready_at is not None
    assert ready_at >= before + RESOLUTION_DELAY
    names.answer("example.com", V6, OSError("none"))
    await until(lambda: not resolution.pending)
    earlier = resolution.ready_at()
    assert earlier is not None
    assert earlier < ready_at


async def test_one_family_is_enough() -> None:
    resolution = started(Names({("example.com", V4): ["192.0.2.1"]}), HOST)
    await until(lambda: not resolution.pending)
    assert [target.address.ip for target in resolution.take()] == ["192.0.2.1"]
    assert resolution.failures == []


async def test_a_name_without_addresses_is_a_failure() -> None:
    resolution = started(Names({}), HOST)
    await until(lambda: not resolution.pending)
    ((name, error),) = resolution.failures
    assert name == "example.com"
    assert isinstance(error, OSError)


async def test_resolved_endpoints_keep_the_name_to_verify() -> None:
    names = Names({("example.com", V6): ["2001:db8::1"], ("example.com", V4): ["192.0.2.1"]})
    local_endpoints, remotes = await resolve_endpoints([LocalEndpoint(service="https")], [HOST], names)
    assert [one.port for one in local_endpoints] == [443]
    assert [(one.hostname, one.address, one.port) for one in remotes] == [
        ("example.com", "2001:db8::1", 443),
        ("example.com", "192.0.2.1", 443),
    ]
    assert await addresses_of(HOST, names) == ["2001:db8::1", "192.0.2.1"]


async def test_resolve_raises_when_nothing_is_found() -> None:
    with pytest.raises(EstablishmentError) as caught:
        await resolve_endpoints([], [HOST], Names({}))
    assert caught.value.reason is Reason.RESOLUTION_FAILED


async def test_a_host_name_without_port_can_be_resolved() -> None:
    names = Names({("example.com", V4): ["192.0.2.1"]})
    _, remotes = await resolve_endpoints([], [RemoteEndpoint("example.com")], names)
    assert [(one.address, one.port) for one in remotes] == [("192.0.2.1", None)]
