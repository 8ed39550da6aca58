"""Properties on established Connections (RFC 9622 section 8)."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest

from api.loopback import (
    BOTH_LOOPS,
    HOST,
    datagrams,
    going_to,
    length_framed,
    listening_on,
    pair,
    port_of,
    stream,
    to_plain_peer,
    until,
)
from neatpy import (
    CapacityProfile,
    ConnectionState,
    Direction,
    LocalEndpoint,
    Preference,
    PropertyError,
    RemoteEndpoint,
)

pytestmark = BOTH_LOOPS


async def test_get_properties_tells_state_stack_endpoints_and_paths() -> None:
    async with to_plain_peer() as (connection, peer):
        told = connection.get_properties()
        assert told["conn_state"] is ConnectionState.ESTABLISHED
        assert told["can_send"] is told["can_receive"] is True
        assert told["stack"] == "tcp"
        assert told["remote_endpoint"].port == peer.sock.getsockname()[1]
        assert told["local_endpoint"].address == HOST
        assert len(told["paths"]) == 1
        assert told["without_effect"] == ()


async def test_it_is_a_snapshot() -> None:
    async with to_plain_peer() as (connection, _):
        before = connection.get_properties()
        connection.set_property("conn_timeout", 5)
        connection.abort()
        assert before["conn_timeout"] is None
        assert before["conn_state"] is ConnectionState.ESTABLISHED
        after = connection.get_properties()
        assert after["conn_timeout"] == 5
        assert after["conn_state"] is ConnectionState.CLOSED
        assert after["can_send"] is after["can_receive"] is False


async def test_properties_can_be_read_while_establishing() -> None:
    async with listening_on().listen() as listener:
        connection = going_to(port_of(listener)).initiate()
        told = connection.get_properties()
        assert told["conn_state"] is ConnectionState.ESTABLISHING
        assert told["stack"] is None
        assert told["paths"] == ()
        await connection
        (await listener.accept()).abort()
        connection.abort()


async def test_selection_properties_read_as_what_the_stack_has() -> None:
    async with pair() as (tcp, _), pair(datagrams()) as (udp, _):
        told = tcp.get_properties()
        assert told["reliability"] is told["preserve_order"] is told["congestion_control"] is True
        assert told["preserve_msg_boundaries"] is told["keep_alive"] is told["multistreaming"] is False
        told = udp.get_properties()
        assert told["reliability"] is told["congestion_control"] is False
        assert told["preserve_msg_boundaries"] is True
        assert told["direction"] is Direction.BIDIRECTIONAL


async def test_a_framer_does_not_change_what_the_stack_has() -> None:
    async with pair(framers=length_framed()) as (client, _):
        assert client.get_properties()["preserve_msg_boundaries"] is False


async def test_an_optional_feature_reads_as_it_was_switched() -> None:
    async with to_plain_peer(stream(keep_alive=Preference.REQUIRE)) as (connection, _):
        assert connection.get_properties()["keep_alive"] is True


async def test_read_only_properties_tell_of_the_stack() -> None:
    async with pair() as (tcp, _), pair(datagrams()) as (udp, _):
        assert tcp.get_properties()["send_msg_max_len"] > 1 << 30
        assert 1000 < udp.get_properties()["send_msg_max_len"] < 65536
        assert tcp.get_properties()["singular_transmission_msg_max_len"] is None


async def test_a_property_that_was_set_and_does_nothing_here_is_kept_and_named() -> None:
    async with to_plain_peer(stream(recv_checksum_len=10, conn_timeout=3)) as (connection, _):
        told = connection.get_properties()
        assert told["recv_checksum_len"] == 10
        assert told["without_effect"] == ("recv_checksum_len",)
        connection.set_property("min_send_rate", 1e6)
        assert set(connection.get_properties()["without_effect"]) == {"recv_checksum_len", "min_send_rate"}


async def test_names_are_taken_in_either_spelling() -> None:
    async with to_plain_peer() as (connection, _):
        connection.set_property("connTimeout", 7)
        assert connection.get_properties()["conn_timeout"] == 7
        connection.set_property("CONN_TIMEOUT", 8)
        assert connection.get_properties()["conn_timeout"] == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reliability", Preference.AVOID),
        ("interface", "eth0"),
        ("conn_state", ConnectionState.CLOSED),
        ("can_send", False),
        ("send_msg_max_len", 5),
        ("no_such_property", 1),
        ("sctp.no_such_property", 1),
        ("conn_timeout", "soon"),
        ("conn_timeout", -1),
        ("conn_priority", 1.5),
        ("conn_capacity_profile", "fast"),
        ("msg_priority", -1),
        ("_neatpy.receive_limit", 0),
    ],
)
async def test_what_cannot_be_set_is_a_property_error_and_leaves_the_connection_standing(
    name: str, value: Any
) -> None:
    async with to_plain_peer() as (connection, peer):
        before = {key: str(value) for key, value in connection.get_properties().items()}
        with pytest.raises(PropertyError):
            connection.set_property(name, value)
        assert {key: str(value) for key, value in connection.get_properties().items()} == before
        await connection.send(b"x")
        assert await peer.receive(1) == b"x"


async def test_another_protocols_property_is_a_property_error() -> None:
    async with pair(datagrams()) as (udp, _):
        with pytest.raises(PropertyError, match=r"(?i)tcp.*udp"):
            udp.set_property("tcp.user_timeout_value", 5)
        assert not [name for name in udp.get_properties() if name.startswith("tcp.")]


async def test_a_protocols_own_property_acts_on_its_stack() -> None:
    async with to_plain_peer() as (connection, _):
        connection.set_property("tcp.userTimeoutValue", 5)
        connection.set_property("tcp.user_timeout_enabled", True)
        assert connection.get_properties()["tcp.user_timeout_value"] == 5
        assert _socket(connection).getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


async def test_connection_properties_act_on_the_socket() -> None:
    async with to_plain_peer(stream(conn_timeout=30)) as (connection, _):
        sock = _socket(connection)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        connection.set_property("conn_timeout", 2.5)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500
        connection.set_property("conn_timeout", None)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        connection.set_property("conn_capacity_profile", CapacityProfile.SCAVENGER)
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> 2 == CapacityProfile.SCAVENGER
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        connection.set_property("max_send_rate", math.inf)


async def test_a_property_set_while_establishing_holds_when_established() -> None:
    async with listening_on().listen() as listener:
        connection = going_to(port_of(listener)).initiate()
        connection.set_property("conn_timeout", 9)
        await connection
        assert connection.get_properties()["conn_timeout"] == 9
        assert _socket(connection).getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 9000
        (await listener.accept()).abort()
        connection.abort()


async def test_an_accepted_connection_has_the_properties_of_its_preconnection_and_its_own_from_then_on() -> (
    None
):
    async with listening_on(stream(conn_timeout=11)).listen() as listener:
        clients = [await going_to(port_of(listener)).initiate() for _ in range(2)]
        one, other = await listener.accept(), await listener.accept()
        one.set_property("conn_timeout", 12)
        assert one.get_properties()["conn_timeout"] == 12
        assert other.get_properties()["conn_timeout"] == 11
        for connection in (*clients, one, other):
            connection.abort()


async def test_a_smaller_receive_limit_acts_at_once() -> None:
    async with pair(framers=length_framed()) as (client, server):
        server.set_property("_neatpy.receive_limit", 1000)
        client.send(bytes(3000))
        await until(lambda: server.statistics["bytes_received"] >= 1000)
        part = await server.receive()
        assert len(part) <= 1000
        assert not part.end_of_message


async def test_statistics_count_both_ways_and_what_the_protocol_measures() -> None:
    async with pair(framers=length_framed()) as (client, server):
        await client.send(b"12345")
        await server.receive()
        assert client.statistics["messages_sent"] == server.statistics["messages_received"] == 1
        assert client.statistics["bytes_sent"] == server.statistics["bytes_received"] == 5
        assert client.statistics["rtt"] >= 0


async def test_a_stack_with_one_path_takes_no_other_endpoints() -> None:
    async with to_plain_peer() as (connection, _):
        for change in (connection.add_remote, connection.remove_remote):
            with pytest.raises(PropertyError):
                change(RemoteEndpoint("127.0.0.2", 9))
        for alter in (connection.add_local, connection.remove_local):
            with pytest.raises(PropertyError):
                alter(LocalEndpoint(address="127.0.0.2"))
        assert connection.state is ConnectionState.ESTABLISHED


async def test_a_known_endpoint_added_again_is_ignored() -> None:
    async with to_plain_peer() as (connection, _):
        assert connection.remote_endpoint is not None
        connection.add_remote(connection.remote_endpoint)
        assert connection.local_endpoint is not None
        connection.add_local(connection.local_endpoint)


def _socket(connection: Any) -> Any:
    return connection._path.flow.socket
