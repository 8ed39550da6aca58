"""The stack sctp/dtls/udp through the public API: Messages and streams, ends, identities, and who shares its port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from dtls_tools import (
    AUTHORITY,
    CLIENT,
    IDENTITY,
    TIME,
    Relay,
    connected,
    going_to,
    listening,
    offering,
    pair,
    refusal,
    trusting,
)

from api.loopback import HOST, MIB, available, datagrams, messages, port_of, turns, until, until_still
from neatpy import (
    Connection,
    ConnectionError,
    ConnectionState,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    MessageContext,
    Preconnection,
    Preference,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
    TrustVerification,
)
from neatpy.establishment import contest
from neatpy.stacks._datagram import UdpFlow
from neatpy.stacks.registry import stacks
from pki import Authority

NAME = "sctp/dtls/udp"
pytestmark = [
    pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"]),
    pytest.mark.skipif(not available(NAME), reason=stacks()[NAME].available().reason),
]


@pytest.fixture(autouse=True)
async def _everything_is_given_back() -> AsyncIterator[None]:
    from neatpy.stacks._sctp.engine import ENGINE

    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    yield
    await until(lambda: (ENGINE.counts(), ENGINE._users) == ((0, 0), 0))
    assert found == []


def both(**arguments: Any) -> contextlib.AbstractAsyncContextManager[tuple[Connection, Connection]]:
    return pair(properties=messages(), **arguments)


def to(port: int, security: SecurityParameters | None = None, name: str = "localhost") -> Preconnection:
    return going_to(port, security, messages(), name)


def through(relay: Relay, listener: Listener) -> Preconnection:
    """To the Listener's SCTP port by the relay's UDP port."""
    return going_to(port_of(listener), properties=messages(**{"_neatpy.encapsulation_port": relay.port}))


def to_dtls_alone(port: int) -> Preconnection:
    there = RemoteEndpoint("localhost", port, address=HOST, protocol="dtls/udp")
    return Preconnection(remote=there, properties=datagrams(), security=trusting())


def anything() -> TransportProperties:
    """What stream and datagram stacks alike can be."""
    wanted = TransportProperties()
    for name in ("reliability", "preserve_order", "congestion_control"):
        wanted.set(name, Preference.NO_PREFERENCE)
    return wanted


@contextlib.asynccontextmanager
async def listening_for_dtls_alone() -> AsyncIterator[Listener]:
    here = LocalEndpoint(0, address=HOST, protocol="dtls/udp")
    async with Preconnection(local=here, properties=datagrams(), security=offering()).listen() as listener:
        yield listener


async def receive(connection: Connection) -> bytes:
    return bytes((await asyncio.wait_for(connection.receive(), TIME)).data)


# Messages and streams


async def test_messages_of_any_size_keep_their_boundaries_both_ways() -> None:
    async with both() as (client, server):
        assert client.stack == server.stack == NAME
        sizes = (1, 1400, 16384, 100_000, MIB)
        for size in sizes:
            client.send(bytes([size % 251]) * size)
            server.send(bytes([size % 241]) * size)
        for size in sizes:
            assert await receive(server) == bytes([size % 251]) * size
            assert await receive(client) == bytes([size % 241]) * size


async def test_many_messages_arrive_in_order() -> None:
    async with both() as (client, server):
        for number in range(2000):
            client.send(b"%d" % number)
        assert [await receive(server) for _ in range(2000)] == [b"%d" % number for number in range(2000)]


async def test_what_is_known_of_a_message_goes_along() -> None:
    async with both() as (client, server):
        context = MessageContext()
        context.set("_neatpy.payload_protocol_id", 51)
        client.send(b"x", context, msg_ordered=False)
        message = await server.receive()
        assert message.context.msg_ordered is False
        assert message.context.get("_neatpy.payload_protocol_id") == 51


async def test_a_message_with_a_lifetime_is_sent_once_and_told_once() -> None:
    async with pair(properties=messages(per_msg_reliability=Preference.REQUIRE)) as (client, server):
        await asyncio.wait_for(client.send(b"quick", msg_lifetime=5), TIME)
        assert await receive(server) == b"quick"
        await asyncio.wait_for(client.send(b"once", msg_reliable=False), TIME)
        assert await receive(server) == b"once"


async def test_clones_are_streams_that_the_listener_gets() -> None:
    async with (
        listening(properties=messages()) as listener,
        connected(to(port_of(listener)), listener) as (client, server),
    ):
        clones = [client.clone() for _ in range(20)]
        for number, clone in enumerate(clones):
            clone.send(b"%d" % number)
        peers = [await asyncio.wait_for(listener.accept(), TIME) for _ in clones]
        assert {await receive(peer) for peer in peers} == {b"%d" % number for number in range(20)}
        assert client.statistics["streams"] == 21
        assert server.grouped_connections == {server, *peers}
        security = clones[0].get_properties()["security"]
        assert security["peer_certificate"] == IDENTITY.der()[0]
        await asyncio.wait_for(client.close_group(), TIME)
        await until(lambda: server.state is ConnectionState.CLOSED)


async def test_a_peer_that_does_not_receive_slows_the_sender_down() -> None:
    async with both() as (client, server):
        sent = [client.send(b"x" * 64 * 1024) for _ in range(500)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(sent[-1]), 0.5)
        assert sum(future.done() for future in sent) < 200
        for _ in sent:
            assert len(await receive(server)) == 64 * 1024
        await asyncio.wait_for(sent[-1], TIME)


async def test_what_the_network_loses_and_repeats_arrives_once_and_in_order() -> None:
    def unreliably(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        lost = index > 10 and index % 9 == 0
        return () if lost else (datagram, datagram) if index % 5 == 0 else (datagram,)

    async with (
        listening(properties=messages()) as listener,
        Relay.to(port_of(listener), unreliably) as relay,
        connected(through(relay, listener), listener) as (client, server),
    ):
        for number in range(300):
            client.send(b"%d" % number * 100)
        for number in range(300):
            assert await receive(server) == b"%d" % number * 100
        await asyncio.wait_for(client.close(), TIME)
        with pytest.raises(ReceiveError) as caught:
            await receive(server)
        assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_forged_and_replayed_datagrams_change_nothing() -> None:
    async with (
        listening(properties=messages()) as listener,
        Relay.to(port_of(listener)) as relay,
        connected(through(relay, listener), listener) as (client, server),
    ):
        client.send(b"one")
        assert await receive(server) == b"one"
        for datagram in tuple(relay.seen[True][-3:]):
            relay.inject(datagram, True)
            relay.inject(datagram[:-1], True)
            relay.inject(datagram[:20] + b"forged" + datagram[26:], True)
        client.send(b"two")
        assert await receive(server) == b"two"


async def test_the_capacity_profile_may_change_and_the_limit_of_one_packet_is_known() -> None:
    async with both() as (client, server):
        client.set_property("conn_capacity_profile", "scavenger")
        server.set_property("conn_capacity_profile", "scavenger")
        properties = client.get_properties()
        assert properties["without_effect"] == ()
        assert 1000 < properties["singular_transmission_msg_max_len"] < 9000
        client.send(b"marked")
        assert await receive(server) == b"marked"


async def test_packets_become_smaller_when_the_paths_mtu_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    unfragmented = 1472
    read = UdpFlow.read

    def told(flow: UdpFlow, name: str) -> object:
        return unfragmented if name == "singular_transmission_msg_max_len" else read(flow, name)

    monkeypatch.setattr(UdpFlow, "read", told)
    async with (
        listening(properties=messages()) as listener,
        Relay.to(port_of(listener)) as relay,
        connected(through(relay, listener), listener) as (client, server),
    ):
        client.send(bytes(MIB))
        assert await receive(server) == bytes(MIB)
        assert 1400 < max(map(len, relay.seen[True])) <= 1472
        await until_still(lambda: len(relay.seen[True]))  # everything is acknowledged
        unfragmented = 1000
        flow: Any = client._path.flow
        too_large = ConnectionError("too large", Reason.PROTOCOL_FAILED)
        too_large.__cause__ = OSError(errno.EMSGSIZE, "Message too long")
        flow._streams.carrier._below.lower.observer.soft_error(too_large)
        relay.seen[True].clear()
        client.send(bytes(MIB))
        assert await receive(server) == bytes(MIB)
        assert 900 < max(map(len, relay.seen[True])) <= 1000


# Ends


async def test_close_delivers_everything_and_both_sides_are_closed_without_an_error() -> None:
    async with both() as (client, server):
        ended: list[Any] = []
        server.on_closed = lambda connection: ended.append(connection)
        server.on_connection_error = lambda _, error: ended.append(error)
        for _ in range(50):
            client.send(b"x" * 20_000)
        await asyncio.wait_for(client.close(), TIME)
        assert [bytes(message.data) async for message in server] == [b"x" * 20_000] * 50
        await until(lambda: ended)
        assert ended == [server]


async def test_dtls_is_closed_after_the_last_packet_of_the_association() -> None:
    def lose_the_end(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        if from_client and index == at_the_end:
            lost.append(datagram)
            return ()
        return (datagram,)

    at_the_end = -1
    lost: list[bytes] = []
    async with (
        listening(properties=messages()) as listener,
        Relay.to(port_of(listener), lose_the_end) as relay,
        connected(through(relay, listener), listener) as (client, server),
    ):
        client.send(b"the last")
        assert await receive(server) == b"the last"
        await until_still(lambda: len(relay.seen[True]))
        errors: list[Any] = []
        server.on_connection_error = lambda _, error: errors.append(error)
        at_the_end = len(relay.seen[True]) + 1  # after SHUTDOWN: SHUTDOWN-COMPLETE
        await asyncio.wait_for(client.close(), TIME)
        await until(lambda: server.state is ConnectionState.CLOSED)
        assert len(lost) == 1
        assert errors == []


@pytest.mark.parametrize("who", ["client", "server"])
async def test_an_abort_is_seen_as_an_abort(who: str) -> None:
    async with both() as ends:
        one, other = ends if who == "client" else reversed(ends)
        waiting = other.receive()
        one.abort()
        with pytest.raises(ReceiveError) as caught:
            await asyncio.wait_for(waiting, TIME)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_dtls_that_ends_below_the_association_ends_it_as_an_abort() -> None:
    async with both() as (client, server):
        waiting = server.receive()
        flow: Any = client._path.flow
        flow._streams.carrier._below.close()
        with pytest.raises(ReceiveError, match="ended DTLS") as caught:
            await asyncio.wait_for(waiting, TIME)
        assert caught.value.reason is Reason.CONNECTION_ABORTED


async def test_connections_live_on_when_their_listener_stops() -> None:
    async with (
        listening(properties=messages()) as listener,
        connected(to(port_of(listener)), listener) as (client, server),
    ):
        await listener.stop()
        client.send(b"question")
        assert await receive(server) == b"question"
        server.send(b"answer")
        assert await receive(client) == b"answer"


# Identities


async def test_both_sides_prove_their_identities_and_agree_on_alpn() -> None:
    security = trusting(client_certificate=CLIENT, alpn=["three", "two"])
    serving = offering(trusted_certificates=AUTHORITY.root, alpn=["one", "two"])
    async with both(client_security=security, server_security=serving) as (client, server):
        seen, shown = (connection.get_properties()["security"] for connection in (client, server))
        assert seen["protocol"] == shown["protocol"] == "DTLSv1.2"
        assert seen["alpn"] == shown["alpn"] == "two"
        assert seen["peer_certificate"] == IDENTITY.der()[0]
        assert shown["peer_certificate"] == CLIENT.der()[0]


async def test_pins_and_callbacks_decide_as_they_do_for_other_stacks() -> None:
    judged: list[TrustVerification] = []

    async def decide(trust: TrustVerification) -> bool:
        judged.append(trust)
        await turns()
        return True

    async with both(client_security=SecurityParameters(pinned_server_certificate=IDENTITY)) as (client, _):
        assert client.stack == NAME
    security = SecurityParameters(trust_verification_callback=decide)
    async with both(client_security=security) as (client, _):
        assert client.stack == NAME
        assert [trust.server_name for trust in judged] == ["localhost"]


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "wrong name": ({}, {}, "other.example", "not valid for 'other.example'"),
    "unknown root": ({"trusted_certificates": Authority().root}, {}, "localhost", "not trusted"),
    "no client certificate": ({}, {"trusted_certificates": AUTHORITY.root}, "localhost", "the peer refused"),
    "no common alpn": ({"alpn": "one"}, {"alpn": "two"}, "localhost", "no alpn that both sides have"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_cannot_be_trusted_is_refused_with_the_reason(case: str) -> None:
    client, server, name, text = REFUSALS[case]
    async with listening(offering(**server), messages()) as listener:
        error = await refusal(to(port_of(listener), trusting(**client), name=name))
        assert text in str(error)
        assert error.reason is Reason.ESTABLISHMENT_FAILED


async def test_what_dtls_cannot_honour_rules_the_stack_out_with_that_reason() -> None:
    wanted = SecurityParameters(allowed_security_protocols="tls_1_3")
    there = RemoteEndpoint("localhost", 1, address=HOST)
    explained = await Preconnection(remote=there, properties=messages(), security=wanted).explain()
    reasons = {entry.what: entry.reasons for entry in explained.ruled_out}
    assert reasons[NAME] == ("allowed_security_protocols leaves no dtls_1_2",)


# Who shares the port, and who is at the other end


async def test_one_port_serves_sctp_dtls_and_tls_at_once() -> None:
    async with listening(properties=anything()) as listener:
        assert set(listener.stacks) >= {NAME, "dtls/udp", "tls/tcp"}
        port = port_of(listener)
        for stack in (NAME, "tls/tcp", "dtls/udp"):
            there = RemoteEndpoint("localhost", port, address=HOST, protocol=stack)
            client = Preconnection(remote=there, properties=anything(), security=trusting()).initiate(
                timeout=TIME
            )
            async with client:
                client.send(b"hello", final=True)
                server = await asyncio.wait_for(listener.accept(), TIME)
                assert client.stack == server.stack == stack
                assert await receive(server) == b"hello"
                await server.close()


async def test_a_client_of_dtls_alone_is_none_of_ours_where_only_sctp_is_listened_for() -> None:
    async with (
        listening(properties=messages()) as listener,
        to_dtls_alone(port_of(listener)).initiate(timeout=TIME) as client,
    ):
        client.send(b"no SCTP")
        with pytest.raises(ReceiveError):
            await receive(client)


async def test_a_server_without_sctp_is_reached_by_tls_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contest, "PROTOCOL_DELAY", 2 * TIME)  # which the closed UDP port cuts short
    here = LocalEndpoint(0, address=HOST, protocol="tls/tcp")
    reliable = TransportProperties.reliable_inorder_stream()
    async with Preconnection(local=here, properties=reliable, security=offering()).listen() as listener:
        async with going_to(port_of(listener), properties=reliable).initiate(timeout=TIME) as client:
            assert client.stack == "tls/tcp"
        (await listener.accept()).abort()


async def test_a_silent_udp_port_costs_the_stagger_and_no_more() -> None:
    here = LocalEndpoint(0, address=HOST, protocol="tls/tcp")
    reliable = TransportProperties.reliable_inorder_stream()
    async with Preconnection(local=here, properties=reliable, security=offering()).listen() as listener:
        with socket.socket(type=socket.SOCK_DGRAM) as silent:
            silent.bind((HOST, port_of(listener)))
            async with going_to(port_of(listener), properties=reliable).initiate(timeout=TIME) as client:
                assert client.stack == "tls/tcp"
        (await listener.accept()).abort()


async def test_a_dtls_server_that_does_not_answer_sctp_is_given_up_when_the_attempt_is() -> None:
    async with listening_for_dtls_alone() as listener:
        connection = to(port_of(listener)).initiate(timeout=0.3)
        with pytest.raises(EstablishmentError):
            await connection
        server = await asyncio.wait_for(listener.accept(), TIME)
        assert len(await receive(server)) > 20  # the INIT
        with contextlib.suppress(ReceiveError):
            while await receive(server):  # the same again
                pass
        assert not server.can_receive
        server.abort()


async def test_an_attempt_that_is_cancelled_frees_all_it_took() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind((HOST, 0))
        connection = to(silent.getsockname()[1]).initiate()
        await turns(20)
        connection.abort()
    async with listening_for_dtls_alone() as listener:
        connection = to(port_of(listener)).initiate()
        server = await asyncio.wait_for(listener.accept(), TIME)
        connection.abort()
        server.abort()


async def test_the_encapsulation_port_is_that_of_udp() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind((HOST, 0))
        udp_port = holder.getsockname()[1]
    wanted = messages(**{"_neatpy.encapsulation_port": udp_port})
    here = LocalEndpoint(5000, address=HOST)
    async with Preconnection(local=here, properties=wanted, security=offering()).listen() as listener:
        assert port_of(listener) == udp_port
        async with connected(going_to(5000, properties=wanted), listener) as (client, server):
            client.send(b"by another port")
            assert await receive(server) == b"by another port"


def an_init(port: int) -> bytes:
    """A packet that asks for an association, as RFC 9260 section 3.3.2 has it."""
    from neatpy.stacks._sctp.packets import crc32c

    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 4711, 100_000, 10, 10, 1)
    header = struct.pack("!HHI", 5000, port, 0)
    return header + struct.pack("<I", crc32c(header + bytes(4) + chunk)) + chunk


async def test_an_association_that_is_asked_for_and_never_made_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from neatpy.stacks._sctp import secure_meeting
    from neatpy.stacks._sctp.engine import ENGINE

    monkeypatch.setattr(secure_meeting, "ASSOCIATION_TIME", 0.2)
    async with listening(properties=messages()) as listener:
        port = port_of(listener)
        async with to_dtls_alone(port).initiate(timeout=TIME) as client:
            client.send(an_init(port))
            assert await receive(client)  # INIT-ACK
            assert ENGINE.counts() == (1, 1)
            await until(lambda: ENGINE.counts() == (0, 1))
            with pytest.raises(ReceiveError):
                await receive(client)
