"""Addresses that never answer, and racing past them (RFC 8305), in a network namespace of its own.

Functions without ``test`` in their name run inside the namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from api.loopback import PLAIN, stream
from interop.netns import Namespace
from neatpy import EstablishmentError, Preconnection, RemoteEndpoint

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_program("ip", "iptables", "ip6tables")]

STAGGER = 0.25
V6_DROPPED, V6_REFUSED, V6_UNROUTED = "fd00:f::1", "fd00:f::2", "fd00:ffff::1"
V4_DROPPED, V4_OPEN = "10.15.0.1", "10.15.0.2"
V6_OPEN = "fd00:f::3"
PORT = 7000

HOSTS = f"""
127.0.0.1 localhost
{V6_DROPPED} v6-dropped.example
{V4_OPEN} v6-dropped.example
{V6_REFUSED} v6-refused.example
{V4_OPEN} v6-refused.example
{V6_UNROUTED} v6-unrouted.example
{V4_OPEN} v6-unrouted.example
{V6_OPEN} both-open.example
{V4_OPEN} both-open.example
{V6_DROPPED} all-dropped.example
{V4_DROPPED} all-dropped.example
"""


@pytest.fixture(scope="module")
def network(alone: Namespace) -> Namespace:
    """Addresses that are open, refuse, or drop whatever comes."""
    for address in (V6_DROPPED, V6_REFUSED, V6_OPEN, V4_DROPPED, V4_OPEN):
        alone.ip("address", "add", address + ("/128" if ":" in address else "/32"), "dev", "lo")
    alone.drop(V6_DROPPED)
    alone.drop(V4_DROPPED)
    alone.configure(
        hosts=HOSTS,
        resolv_conf="nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        nsswitch_conf="hosts: files dns\n",
    )
    return alone


@contextlib.contextmanager
def open_ports() -> Iterator[None]:
    """The port is open on the addresses that are."""
    with socket.create_server((V4_OPEN, PORT)), socket.create_server((V6_OPEN, PORT), family=socket.AF_INET6):
        yield


async def initiate(hosts: list[str], timeout: float) -> dict[str, Any]:
    """What comes of it, and when."""
    preconnection = Preconnection(
        remote=[RemoteEndpoint(host, PORT) for host in hosts], properties=stream(), security=PLAIN
    )
    with open_ports():
        began = time.monotonic()
        try:
            connection = await preconnection.initiate(timeout=timeout)
        except EstablishmentError as error:
            return {
                "seconds": time.monotonic() - began,
                "reason": error.reason.name,
                "text": str(error),
                "attempts": len(error.attempts),
            }
        seconds = time.monotonic() - began
        remote = connection.remote_endpoint
        connection.abort()
        await asyncio.sleep(0)
        return {"seconds": seconds, "winner": remote and remote.address}


@pytest.mark.parametrize("host", [V4_DROPPED, V6_DROPPED])
async def test_a_blackholed_address_is_a_timeout(network: Namespace, host: str) -> None:
    result = await network.run(initiate, [host], 0.3)
    assert result["reason"] == "TIMEOUT"
    assert 0.3 <= result["seconds"] < 0.5
    assert f"{PORT} could not be reached within 0.3 s" in result["text"]
    assert "was still in progress" in result["text"]


async def test_a_name_whose_addresses_are_all_blackholed_is_a_timeout_that_tells_them_all(
    network: Namespace,
) -> None:
    result = await network.run(initiate, ["all-dropped.example"], 0.6)
    assert result["reason"] == "TIMEOUT"
    assert 0.6 <= result["seconds"] < 0.8
    assert result["attempts"] == 2
    assert V4_DROPPED in result["text"]
    assert V6_DROPPED in result["text"]


@pytest.mark.parametrize(
    "hosts", [["v6-dropped.example"], [V6_DROPPED, V4_OPEN]], ids=["one name", "two endpoints"]
)
async def test_a_blackholed_first_address_costs_one_stagger(network: Namespace, hosts: list[str]) -> None:
    result = await network.run(initiate, hosts, 5)
    assert result["winner"] == V4_OPEN
    assert STAGGER * 0.95 <= result["seconds"] < STAGGER + 0.15


@pytest.mark.parametrize(
    "hosts", [["v6-refused.example"], [V6_REFUSED, V4_OPEN]], ids=["one name", "two endpoints"]
)
async def test_a_refused_first_address_costs_nothing(network: Namespace, hosts: list[str]) -> None:
    result = await network.run(initiate, hosts, 5)
    assert result["winner"] == V4_OPEN
    assert result["seconds"] < 0.15


@pytest.mark.parametrize(
    "hosts",
    [["v6-unrouted.example"], [V6_UNROUTED, V4_OPEN]],
    ids=["one name", "two endpoints"],
)
async def test_an_unreachable_first_address_costs_nothing(network: Namespace, hosts: list[str]) -> None:
    result = await network.run(initiate, hosts, 5)
    assert result["winner"] == V4_OPEN
    assert result["seconds"] < 0.15


async def test_ipv6_wins_where_both_answer(network: Namespace) -> None:
    result = await network.run(initiate, ["both-open.example"], 5)
    assert result["winner"] == V6_OPEN
    assert result["seconds"] < 0.15


async def test_an_unreachable_address_is_an_error_at_once(network: Namespace) -> None:
    result = await network.run(initiate, [V6_UNROUTED], 5)
    assert result["reason"] == "ESTABLISHMENT_FAILED"
    assert result["seconds"] < 0.15
    assert "unreachable" in result["text"]


async def test_an_unresolvable_name_is_an_error_at_once(network: Namespace) -> None:
    result = await network.run(initiate, ["nothing.example"], 5)
    assert result["reason"] == "RESOLUTION_FAILED"
    assert result["seconds"] < 1
    assert "nothing.example" in result["text"]


async def test_an_unresolvable_name_does_not_hold_up_another_endpoint(network: Namespace) -> None:
    result = await network.run(initiate, ["nothing.example", V4_OPEN], 5)
    assert result["winner"] == V4_OPEN
    assert result["seconds"] < 0.3


async def test_a_resolver_that_never_answers_is_a_timeout(network: Namespace) -> None:
    network.configure(resolv_conf=f"nameserver {V4_DROPPED}\noptions timeout:1 attempts:1\n")
    result = await network.run(initiate, ["nothing.example"], 0.3)
    assert result["reason"] == "TIMEOUT"
    assert 0.3 <= result["seconds"] < 0.5
    assert "its name was not resolved" in result["text"]
