"""The interfaces of the host that runs the tests."""

from __future__ import annotations

import pytest

from neatpy.system.interfaces import addresses, interfaces, routed_by, scope_index


def test_the_loopback_interface_is_listed_as_such() -> None:
    loopback = next(interface for interface in interfaces() if interface.is_loopback)
    assert loopback.up
    assert scope_index(loopback.name) == scope_index(str(loopback.index)) == loopback.index


def test_interfaces_come_in_the_order_of_their_indexes() -> None:
    indexes = [interface.index for interface in interfaces()]
    assert indexes == sorted(indexes)


def test_the_loopback_address_belongs_to_the_loopback_interface() -> None:
    loopback = next(interface for interface in interfaces() if interface.is_loopback)
    assert "127.0.0.1" in addresses()[loopback.name]
    assert routed_by("127.0.0.1") == loopback.name


def test_what_cannot_be_routed_has_no_interface() -> None:
    assert routed_by("not an address") is None


def test_no_zone_is_index_zero_and_an_unknown_one_an_error() -> None:
    assert scope_index("") == 0
    with pytest.raises(OSError, match=r"interface|device"):
        scope_index("no-such-if")
