"""The stack dtls/udp through the public API: Messages, ends, identities and what is refused."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import pytest
from dtls_tools import (
    AUTHORITY,
    CLIENT,
    IDENTITY,
    TIME,
    connected,
    datagrams,
    dtls_of,
    going_to,
    listening,
    offering,
    pair,
    refusal,
    trusting,
)

from api.loopback import HOST, port_of, turns, until
from neatpy import (
    Connection,
    ConnectionState,
    EstablishmentError,
    LocalEndpoint,
    MessageContext,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
    SendError,
    TrustVerification,
)
from neatpy.stacks.dtls import DtlsStack
from neatpy.stacks.features import Provision
from neatpy.stacks.registry import stacks
from pki import Authority

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


# Messages


async def test_messages_keep_their_boundaries_both_ways() -> None:
    async with pair() as (client, server):
        assert client.stack == server.stack == "dtls/udp"
        for message in (b"one", b"two", bytes(1000)):
            client.send(message)
        for message in (b"one", b"two", bytes(1000)):
            assert (await server.receive()).data == message
        await server.send(b"answer")
        assert (await client.receive()).data == b"answer"


async def test_a_batch_of_messages_arrives_one_by_one() -> None:
    async with pair() as (client, server):
        with client.batch():
            for number in range(50):
                client.send(b"%d" % number)
        assert [(await server.receive()).data for _ in range(50)] == [b"%d" % number for number in range(50)]


async def test_the_largest_message_is_one_record_and_a_larger_one_is_refused() -> None:
    async with pair() as (client, server):
        for connection, peer in ((client, server), (server, client)):
            largest = connection.get_properties()["send_msg_max_len"]
            assert largest == connection.get_properties()["singular_transmission_msg_max_len"] == 16384
            await connection.send(b"x" * largest)
            assert len((await peer.receive()).data) == largest
            with pytest.raises(SendError) as caught:
                await connection.send(b"x" * (largest + 1))
            assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
            await connection.send(b"still there")
            assert (await peer.receive()).data == b"still there"


async def test_an_empty_message_is_refused_and_nothing_else_is() -> None:
    async with pair() as (client, server):
        with pytest.raises(SendError, match="no empty Messages"):
            await client.send(b"")
        await client.send(b"something")
        assert (await server.receive()).data == b"something"


async def test_a_message_sent_in_parts_is_one_record() -> None:
    async with pair() as (client, server):
        context = MessageContext()
        client.send(b"in ", context=context, end_of_message=False)
        client.send(bytearray(b"three "), context=context, end_of_message=False)
        client.send(b"parts", context=context)
        assert (await server.receive()).data == b"in three parts"
        context = MessageContext()
        client.send(bytes(10000), context=context, end_of_message=False)
        with pytest.raises(SendError) as caught:
            await client.send(bytes(10000), context=context)
        assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
        client.send(b"next")
        assert (await server.receive()).data == b"next"


async def test_what_a_paused_peer_does_not_read_waits_or_is_lost_but_nothing_breaks() -> None:
    async with pair(properties=datagrams(**{"_neatpy.receive_limit": 4096})) as (client, server):
        for _ in range(200):
            await client.send(bytes(1000))
        await until(lambda: server._path._paused)
        for _ in range(8):
            assert (await server.receive()).data == bytes(1000)
        await server.send(b"alive")
        assert (await client.receive()).data == b"alive"


@pytest.mark.parametrize("host", [HOST, "::1"])
async def test_a_listener_on_every_address_answers_from_the_one_that_was_spoken_to(host: str) -> None:
    security = offering(server_certificate=AUTHORITY.issue(HOST, "::1"))
    async with Preconnection(
        local=LocalEndpoint(0), properties=datagrams(), security=security
    ).listen() as listener:
        remote = RemoteEndpoint(host, port_of(listener))
        preconnection = Preconnection(remote=remote, properties=datagrams(), security=trusting())
        async with connected(preconnection, listener) as (client, server):
            assert server.local_endpoint is not None
            assert server.local_endpoint.address == host
            client.send(b"question")
            assert (await server.receive()).data == b"question"
            server.send(b"answer")
            assert (await client.receive()).data == b"answer"


async def test_only_whom_the_remote_endpoints_admit_is_answered() -> None:
    preconnection = Preconnection(
        local=LocalEndpoint(0, address=HOST),
        remote=RemoteEndpoint(address="192.0.2.1"),
        properties=datagrams(),
        security=offering(),
    )
    async with preconnection.listen() as listener:
        connection = going_to(port_of(listener)).initiate(timeout=0.2)
        with pytest.raises(EstablishmentError):
            await connection
        assert len(dtls_of(listener)._port) == 0
        await turns()


# Ends


async def test_final_is_told_to_the_peer_who_can_still_send() -> None:
    async with pair() as (client, server):
        client.send(b"the last", final=True)
        assert (await server.receive()).data == b"the last"
        with pytest.raises(ReceiveError) as caught:
            await server.receive()
        assert caught.value.reason is Reason.CONNECTION_CLOSED
        await server.send(b"after it")
        assert (await client.receive()).data == b"after it"


async def test_an_empty_final_message_is_the_close_notify_alone() -> None:
    async with pair() as (client, server):
        await client.send(b"", final=True)
        with pytest.raises(ReceiveError) as caught:
            await server.receive()
        assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_a_connection_that_both_have_finished_is_closed() -> None:
    async with pair() as (client, server):
        client.send(b"", final=True)
        server.send(b"", final=True)
        await until(lambda: client.state is server.state is ConnectionState.CLOSED)


async def test_closing_is_told_to_the_peer_and_frees_the_port() -> None:
    async with listening() as listener:
        port = dtls_of(listener)._port
        async with connected(going_to(port_of(listener)), listener) as (client, server):
            assert len(port) == 1
            client.send(b"before the end")
            await client.close()
            assert client.state is ConnectionState.CLOSED
            assert [message.data async for message in server] == [b"before the end"]
            await server.close()
            assert len(port) == 0


async def test_an_abort_is_told_to_the_peer_as_an_end() -> None:
    async with pair() as (client, server):
        client.abort()
        with pytest.raises(ReceiveError) as caught:
            await server.receive()
        assert caught.value.reason is Reason.CONNECTION_CLOSED


async def test_connections_live_on_when_their_listener_stops() -> None:
    async with listening() as listener, connected(going_to(port_of(listener)), listener) as (client, server):
        await listener.stop()
        await client.send(b"question")
        assert (await server.receive()).data == b"question"
        await server.send(b"answer")
        assert (await client.receive()).data == b"answer"


async def test_many_clients_share_the_listeners_port() -> None:
    async with listening() as listener:

        async def echo(connection: Connection) -> None:
            async for message in connection:
                await connection.send(message.data)

        async def ask(number: int) -> bytes:
            connection = going_to(port_of(listener)).initiate(timeout=TIME)
            await connection
            connection.send(b"%d" % number)
            answer = (await connection.receive()).data
            await connection.close()
            return answer

        serving = asyncio.ensure_future(listener.serve(echo))
        assert await asyncio.gather(*map(ask, range(20))) == [b"%d" % number for number in range(20)]
        await listener.stop()
        await serving


# Identities


async def test_both_sides_prove_their_identities_and_agree_on_alpn() -> None:
    security = trusting(client_certificate=CLIENT, alpn=["three", "two"])
    serving = offering(trusted_certificates=AUTHORITY.root, alpn=["one", "two"])
    async with pair(security, serving) as (client, server):
        seen, shown = (connection.get_properties()["security"] for connection in (client, server))
        assert seen["protocol"] == shown["protocol"] == "DTLSv1.2"
        assert seen["alpn"] == shown["alpn"] == "two"
        assert seen["peer_certificate"] == IDENTITY.der()[0]
        assert shown["peer_certificate"] == CLIENT.der()[0]
        assert seen["ciphersuite"].startswith("TLS_ECDHE")
        assert not seen["resumed"]


async def test_the_ciphersuite_asked_for_is_used() -> None:
    wanted = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
    async with pair(trusting(ciphersuite=wanted, allowed_security_protocols="dtls_1_2")) as (client, _):
        assert client.get_properties()["security"]["ciphersuite"] == wanted


async def test_a_pinned_certificate_that_the_server_has_is_taken() -> None:
    security = SecurityParameters(pinned_server_certificate=IDENTITY)
    async with pair(security) as (client, server):
        assert client.state is server.state is ConnectionState.ESTABLISHED


async def test_an_address_is_verified_as_one() -> None:
    async with listening() as listener:
        preconnection = Preconnection(
            remote=RemoteEndpoint(HOST, port_of(listener)), properties=datagrams(), security=trusting()
        )
        async with connected(preconnection, listener) as (client, _):
            assert client.stack == "dtls/udp"


STRANGER = Authority("somebody else's root")
REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "wrong name": ({}, {}, "other.example", "not valid for 'other.example'"),
    "unknown root": ({"trusted_certificates": STRANGER.root}, {}, "localhost", "not trusted"),
    "expired": (
        {},
        {"server_certificate": AUTHORITY.issue("localhost", expired=True)},
        "localhost",
        "expired",
    ),
    "wrong pin": ({"pinned_server_certificate": CLIENT}, {}, "localhost", "not the pinned one"),
    "no client certificate": ({}, {"trusted_certificates": AUTHORITY.root}, "localhost", "the peer refused"),
    "unknown client": (
        {"client_certificate": STRANGER.issue("client.example")},
        {"trusted_certificates": AUTHORITY.root},
        "localhost",
        "the peer refused: unknown ca",
    ),
    "no common alpn": ({"alpn": "one"}, {"alpn": "two"}, "localhost", "no alpn that both sides have"),
    "alpn that the server ignores": ({"alpn": "one"}, {}, "localhost", "alpn"),
    "no common ciphersuite": (
        {"ciphersuite": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
        {"ciphersuite": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"},
        "localhost",
        "the peer refused",
    ),
    "a callback that says no": (
        {"trust_verification_callback": lambda trust: False},
        {},
        "localhost",
        "does not trust the peer",
    ),
    "a callback of the server that says no": (
        {"client_certificate": CLIENT},
        {"trust_verification_callback": lambda trust: False},
        "localhost",
        "the peer refused",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_cannot_be_trusted_is_refused_at_once_on_both_sides(case: str) -> None:
    client, server, name, text = REFUSALS[case]
    async with listening(offering(**server)) as listener:
        waiting = dtls_of(listener)._waiting
        loop = asyncio.get_running_loop()
        began = loop.time()
        error = await refusal(going_to(port_of(listener), trusting(**client), name=name))
        assert text in str(error)
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        await until(lambda: not len(waiting), 0.9)
        assert loop.time() - began < 0.9  # nobody had to send anything again


async def test_an_async_callback_decides_with_all_it_needs_to_know() -> None:
    judged: list[TrustVerification] = []

    async def decide(trust: TrustVerification) -> bool:
        judged.append(trust)
        await turns()
        return True

    security = trusting(
        client_certificate=CLIENT, trust_verification_callback=decide, trusted_certificates=STRANGER.root
    )
    serving = offering(trust_verification_callback=decide)
    async with pair(security, serving) as (client, server):
        await client.send(b"held, and then let go")
        assert (await server.receive()).data == b"held, and then let go"
    of_server, of_client = judged
    assert (of_server.server_name, of_server.verified) == ("localhost", False)
    assert of_server.certificate_chain[0] == IDENTITY.der()[0]
    assert of_client.server_name is None
    assert of_client.certificate_chain[0] == CLIENT.der()[0]


async def test_a_callback_that_raises_refuses_the_peer_with_its_error() -> None:
    def decide(trust: TrustVerification) -> bool:
        raise LookupError("no such peer")

    async with listening() as listener:
        error = await refusal(going_to(port_of(listener), trusting(trust_verification_callback=decide)))
        assert "LookupError: no such peer" in str(error)


# What it cannot do


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (
            {"allowed_security_protocols": ["tls_1_3", "quic"]},
            "allowed_security_protocols leaves no dtls_1_2",
        ),
        ({"ciphersuite": "TLS_AES_128_GCM_SHA256"}, "ciphersuite leaves no dtls_1_2"),
        ({"pre_shared_key": (b"key", b"me")}, "pre_shared_key"),
        ({"supported_group": "x25519"}, "supported_group"),
        ({"signature_algorithm": "ed25519"}, "signature_algorithm"),
        ({"identity_challenge_callback": print}, "identity_challenge_callback"),
    ],
)
async def test_parameters_that_pyopenssl_cannot_honour_rule_it_out(parameters: Any, text: str) -> None:
    error = await refusal(going_to(9, SecurityParameters(**parameters)))
    assert error.reason is Reason.NO_CANDIDATES
    assert re.search(f"dtls/udp: .*{text}", str(error))


async def test_dtls_1_2_can_be_the_only_protocol_allowed() -> None:
    async with pair(trusting(allowed_security_protocols="DTLSv1.2")) as (client, _):
        assert client.get_properties()["security"]["protocol"] == "DTLSv1.2"


async def test_a_secure_listener_needs_a_certificate() -> None:
    local = LocalEndpoint(0, address=HOST)
    listener = Preconnection(local=local, properties=datagrams(), security=SecurityParameters()).listen()
    with pytest.raises(EstablishmentError, match="server_certificate") as caught:
        await listener
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


async def test_its_features_are_those_of_udp_made_secure() -> None:
    features = stacks()["dtls/udp"].features
    assert features.secure
    assert features.handshake
    assert features.preserves_boundaries
    assert not features.may_duplicate
    assert features.provides("preserve_msg_boundaries") is Provision.INTRINSIC
    assert features.provides("reliability") is Provision.NOT_PROVIDED
    assert features.rank < stacks()["udp"].features.rank
    assert "isolate_session" in features.effects


async def test_without_pyopenssl_it_is_unavailable_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    available = DtlsStack().available()
    assert not available.available
    assert "with its extra dtls" in available.reason


async def test_properties_of_the_datagrams_act(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(properties=datagrams(conn_capacity_profile="low_latency_interactive")) as (client, _):
        assert "conn_capacity_profile" not in client.get_properties()["without_effect"]
        flow: Any = client._path.flow
        sock = flow.lower._socket.socket
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> 2 != 0


async def test_a_rate_limit_spaces_messages_and_does_not_hinder_the_handshake() -> None:
    async with pair(properties=datagrams(max_send_rate=1_000_000)) as (client, server):
        for _ in range(20):
            client.send(bytes(1000))
        for _ in range(20):
            assert (await server.receive()).data == bytes(1000)
        await client.close()


# Opportunistic security


async def test_a_listener_that_is_opportunistic_takes_both_on_one_port() -> None:
    properties = datagrams(safely_replayable=True)
    opportunistic = SecurityParameters.opportunistic()
    async with listening(opportunistic, properties) as listener:
        secure = going_to(port_of(listener), opportunistic, properties)
        async with connected(secure, listener) as (client, server):
            assert client.stack == server.stack == "dtls/udp"
            client.send(b"secret")
            assert (await server.receive()).data == b"secret"
        plain = going_to(port_of(listener), SecurityParameters.disabled(), properties).initiate(timeout=TIME)
        await plain
        plain.send(b"public")
        server = await asyncio.wait_for(listener.accept(), TIME)
        assert server.stack == "udp"
        assert (await server.receive()).data == b"public"
        plain.abort()
        server.abort()
        await turns()


async def test_an_opportunistic_listener_takes_no_plain_udp_where_messages_must_not_be_replayed() -> None:
    opportunistic = SecurityParameters.opportunistic()
    properties = datagrams(safely_replayable=False)
    async with listening(opportunistic, properties) as listener:
        assert listener.stacks == ("dtls/udp",)
        assert listener._binding is not None
        below: Any = listener._binding.places[0].listener
        assert below.plain is None


async def test_an_opportunistic_client_falls_back_when_nobody_speaks_dtls() -> None:
    properties = datagrams(safely_replayable=True)
    async with listening(SecurityParameters.disabled(), properties) as listener:
        client = going_to(port_of(listener), SecurityParameters.opportunistic(), properties).initiate(
            timeout=TIME
        )
        await client
        assert client.stack == "udp"
        client.abort()
        await turns()
