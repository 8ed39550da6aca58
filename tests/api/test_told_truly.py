"""What a Connection, an error and ``explain()`` tell is what holds."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from api.loopback import HOST, PLAIN, datagrams, pair, stream
from neatpy import (
    Connection,
    Direction,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Multipath,
    Preconnection,
    Preference,
    PropertyError,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)

_KEEP_ALIVE = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    either = TransportProperties(
        reliability="no preference", preserve_order="no preference", congestion_control="no preference"
    ).set("safely_replayable", True)
    local = LocalEndpoint(address=HOST)
    async with Preconnection(local, properties=either, security=PLAIN).listen() as listening:
        yield listening


async def connect(
    listener: Listener, properties: TransportProperties | None = None, *, protocol: str | None = None
) -> Connection:
    remote = RemoteEndpoint(HOST, listener.local_endpoints[0].port, protocol=protocol)
    return await Preconnection(remote=remote, properties=properties, security=PLAIN).initiate(5)


async def test_a_connection_that_only_sends_answers_a_receive_with_an_error(listener: Listener) -> None:
    connection = await connect(listener, TransportProperties(direction=Direction.UNIDIRECTIONAL_SEND))
    with pytest.raises(ReceiveError, match="only sends") as caught:
        await connection.receive()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION
    connection.abort()


async def test_a_clone_takes_no_property_of_another_protocol(listener: Listener) -> None:
    connection = await connect(listener, TransportProperties.unreliable_datagram())
    assert connection.stack == "udp"
    with pytest.raises(PropertyError, match="property of tcp"):
        connection.clone(tcp_user_timeout_value=3)
    connection.abort()


async def test_defaults_that_depend_on_the_action_are_told_once_it_is_decided(listener: Listener) -> None:
    properties = TransportProperties()
    assert (properties.multipath, properties.use_temporary_local_address) == (None, None)
    establishing = Preconnection(
        remote=RemoteEndpoint(HOST, listener.local_endpoints[0].port), security=PLAIN
    ).initiate()
    told = establishing.get_properties()
    assert told["multipath"] is Multipath.DISABLED
    assert told["use_temporary_local_address"] is Preference.PREFER
    connection = await establishing
    assert connection.get_properties()["use_temporary_local_address"] is False  # IPv4 has none
    connection.abort()


async def test_multipath_reads_as_disabled_where_the_stack_has_none(listener: Listener) -> None:
    wished = TransportProperties(multipath=Multipath.ACTIVE, advertises_altaddr=True)
    connection = await connect(listener, wished)
    told = connection.get_properties()
    assert (told["multipath"], told["advertises_altaddr"]) == (Multipath.DISABLED, False)
    connection.abort()


@pytest.mark.parametrize(("wish", "probing"), [(None, 1), ("avoid", 0), ("prohibit", 0), ("prefer", 1)])
async def test_a_keep_alive_timeout_makes_the_connection_probe_unless_keep_alive_says_no(
    listener: Listener, wish: str | None, probing: int
) -> None:
    properties = TransportProperties(keep_alive_timeout=33)
    if wish is not None:
        properties.set("keep_alive", wish)
    connection = await connect(listener, properties, protocol="tcp")
    assert tcp_socket(connection).getsockopt(*_KEEP_ALIVE) == probing
    assert tcp_socket(connection).getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
    connection.abort()


async def test_a_keep_alive_timeout_can_be_taken_back(listener: Listener) -> None:
    connection = await connect(listener, protocol="tcp")
    usual = tcp_socket(connection).getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    connection.set_property("keepAliveTimeout", 33)
    assert tcp_socket(connection).getsockopt(*_KEEP_ALIVE) == 1
    connection.set_property("keepAliveTimeout", None)
    assert tcp_socket(connection).getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == usual
    assert tcp_socket(connection).getsockopt(*_KEEP_ALIVE) == 0
    connection.abort()


def tcp_socket(connection: Connection) -> socket.socket:
    found: socket.socket = connection._path.flow.socket  # type: ignore[union-attr]
    return found


async def test_a_security_parameter_that_nothing_can_honour_is_no_advice_to_give_up_security() -> None:
    impossible = SecurityParameters(signature_algorithm="mldsa44")
    with pytest.raises(EstablishmentError) as caught:
        await Preconnection(remote=RemoteEndpoint(HOST, 9), security=impossible).initiate()
    assert caught.value.reason is Reason.NO_CANDIDATES
    assert "signature_algorithm" in str(caught.value)
    assert "disabled()" not in str(caught.value)


async def test_an_endpoint_for_a_stack_that_is_no_candidate_is_told_of(refused_port: int) -> None:
    remotes = RemoteEndpoint(HOST, refused_port, protocol="quic"), RemoteEndpoint(HOST, 9)
    selection = await Preconnection(remote=remotes, security=PLAIN).explain()
    assert f"{HOST}:{refused_port} with tcp\n      its endpoint is for quic only" in str(selection)
    with pytest.raises(EstablishmentError, match="its endpoint is for quic only"):
        await Preconnection(remote=remotes[0], security=PLAIN).initiate()


@pytest.mark.parametrize(("stack", "properties"), [("udp", datagrams()), ("tcp", stream())])
async def test_an_endpoint_for_a_stack_without_security_says_how_to_allow_that(
    stack: str, properties: TransportProperties
) -> None:
    secure = Preconnection(remote=RemoteEndpoint(HOST, 9, protocol=stack), properties=properties)
    with pytest.raises(EstablishmentError, match=r"SecurityParameters\.disabled\(\)") as caught:
        await secure.initiate()
    assert caught.value.reason is Reason.NO_CANDIDATES


async def test_an_endpoint_for_a_stack_that_does_not_exist_is_told_of() -> None:
    misspelt = Preconnection(remote=RemoteEndpoint(HOST, 9, protocol="tpc"), security=PLAIN)
    with pytest.raises(
        EstablishmentError, match="its endpoint is for tpc only, and there is no stack of that name"
    ):
        await misspelt.initiate()
    named = Preconnection(remote=RemoteEndpoint(HOST, 9, protocol="udp"), security=PLAIN)
    assert "no stack of that name" not in str(await named.explain())


async def test_a_listener_for_stacks_that_cannot_be_used_names_them_with_the_reasons() -> None:
    locals_ = LocalEndpoint(0, address=HOST, protocol="tpc"), LocalEndpoint(0, address=HOST, protocol="udp")
    with pytest.raises(EstablishmentError) as caught:
        await Preconnection(local=locals_, security=PLAIN).listen()
    assert caught.value.reason is Reason.NO_CANDIDATES
    sentence, first, second = str(caught.value).splitlines()
    assert sentence.startswith("there is nothing to listen on")
    assert first == "  tpc: there is no stack of that name"
    assert second.startswith("  udp: it does not provide reliability, which is required")


async def test_a_listener_that_answers_with_and_without_security_names_both_stacks() -> None:
    anyone = SecurityParameters.opportunistic()
    async with Preconnection(LocalEndpoint(0), security=anyone).listen() as listener:
        tls = listener.stacks.index("tls/tcp")
        assert listener.stacks[tls + 1] == "tcp"
        assert len(listener.local_endpoints) == 2


async def test_whoever_wants_boundaries_is_told_that_a_framer_would_do() -> None:
    wished = TransportProperties.reliable_message().prohibit("multistreaming")
    with pytest.raises(
        EstablishmentError, match=r"preserve_msg_boundaries, which is required \(a framer would do\)"
    ):
        await Preconnection(remote=RemoteEndpoint(HOST, 9), properties=wished).initiate()


async def test_an_endpoint_that_a_scoped_one_replaces_is_told_of() -> None:
    remotes = RemoteEndpoint(HOST, 10, protocol="tcp"), RemoteEndpoint(HOST, 9)
    selection = await Preconnection(remote=remotes, properties=stream(), security=PLAIN).explain()
    assert [str(leaf.remote) for leaf in selection.candidates] == [f"{HOST}:10"]
    assert f"{HOST}:9 with tcp\n      another endpoint is for tcp only" in str(selection)


async def test_an_address_that_failed_lately_is_told_to_come_later(refused_port: int) -> None:
    failing = RemoteEndpoint(HOST, refused_port)
    with pytest.raises(EstablishmentError):
        await Preconnection(remote=failing, security=PLAIN).initiate()
    selection = await Preconnection(remote=[failing, RemoteEndpoint(HOST, 9)], security=PLAIN).explain()
    first, second = selection.tree[0].children[0].children
    assert (first.endpoint, first.reasons) == (f"{HOST}:9", ())
    assert second.reasons == ("it failed lately, so it comes behind its equals",)


async def test_a_multicast_group_is_not_taken_for_unicast() -> None:
    datagrams = TransportProperties.unreliable_datagram()
    to = RemoteEndpoint(port=9).with_multicast_group_ip("239.1.2.3")
    with pytest.raises(EstablishmentError, match="multicast") as caught:
        await Preconnection(remote=to, properties=datagrams, security=PLAIN).initiate()
    assert caught.value.reason is Reason.NO_CANDIDATES
    at = LocalEndpoint(0).with_any_source_multicast_group_ip("239.1.2.3")
    with pytest.raises(EstablishmentError, match="multicast") as caught:
        await Preconnection(at, properties=datagrams, security=PLAIN).listen()
    assert caught.value.reason is Reason.NO_CANDIDATES


async def test_a_closed_connection_takes_no_properties() -> None:
    async with pair() as (client, _):
        await client.close()
        with pytest.raises(PropertyError) as caught:
            client.set_property("conn_timeout", 5)
        assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_endpoints_of_the_wrong_kind_are_a_type_error() -> None:
    async with pair() as (client, _):
        with pytest.raises(TypeError, match="RemoteEndpoint"):
            client.add_remote(LocalEndpoint(1))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="LocalEndpoint"):
            client.remove_local(RemoteEndpoint(HOST, 1))  # type: ignore[arg-type]
