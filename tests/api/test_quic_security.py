"""Who is trusted over QUIC, and what the security parameters make of its handshake, on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest

from api.loopback import BOTH_LOOPS, HOST, port_of, turns, until
from api.quic_loopback import (
    AUTHORITY,
    CLIENT,
    IDENTITY,
    TIME,
    connected,
    everything_is_given_back,
    exactly,
    going_to,
    listening,
    offering,
    pair,
    refusal,
    streams,
    told,
    trusting,
)
from api.relay import Relay
from neatpy import (
    Certificate,
    Connection,
    EstablishmentError,
    LocalEndpoint,
    Preconnection,
    Reason,
    SecurityParameters,
    TransportServicesError,
    TrustVerification,
)
from pki import Authority

pytest.importorskip("aioquic")
__all__ = ["everything_is_given_back", "told"]
pytestmark = [BOTH_LOOPS, pytest.mark.usefixtures("everything_is_given_back")]


def always(trust: TrustVerification) -> bool:
    return True


async def talk(client: Connection, server: Connection) -> None:
    client.send(b"question")
    assert await exactly(server, 8) == b"question"
    server.send(b"answer")
    assert await exactly(client, 6) == b"answer"


# Certificates of servers


@pytest.mark.parametrize("name", ["localhost", None], ids=["name", "address"])
async def test_names_and_addresses_are_verified(name: str | None) -> None:
    async with (
        listening() as listener,
        connected(going_to(port_of(listener), name=name), listener) as (client, server),
    ):
        await talk(client, server)
        security = client.get_properties()["security"]
        assert security["peer_certificate"] == IDENTITY.der()[0]
        assert (security["protocol"], security["alpn"]) == ("QUIC", "neatpy")


@pytest.mark.parametrize(
    ("issued", "name", "words"),
    [
        (lambda: AUTHORITY.issue("other.example"), "localhost", r"not valid for 'localhost'.*a name that"),
        (lambda: AUTHORITY.issue("localhost"), None, r"not valid for '127\.0\.0\.1'"),
        (lambda: AUTHORITY.issue(common_name="localhost"), "localhost", "localhost"),
        (lambda: AUTHORITY.issue("localhost", expired=True), "localhost", "expired.*renewed"),
        (lambda: AUTHORITY.issue("localhost", not_yet=True), "localhost", "not yet valid"),
        (lambda: Authority().issue("localhost"), "localhost", "issuer.*trusted_certificates"),
        (lambda: Certificate.self_signed("localhost"), "localhost", "self-signed.*trusted_certificates"),
    ],
    ids=["name", "no address", "only a common name", "expired", "not yet", "unknown issuer", "self-signed"],
)
async def test_what_is_wrong_with_a_certificate_is_told(
    issued: Any, name: str | None, words: str, told: list[BaseException]
) -> None:
    async with listening(offering(server_certificate=issued())) as listener:
        error = await refusal(going_to(port_of(listener), name=name))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "the certificate of" in str(error)
        assert re.search(words, str(error)), str(error)
        await until(lambda: told)
        assert "does not accept our certificate" in str(told[0])


@pytest.mark.parametrize("rsa_key", [False, True], ids=["ecdsa", "rsa"])
async def test_certificates_of_both_kinds_serve(rsa_key: bool) -> None:
    certificate = AUTHORITY.issue("localhost", rsa_key=rsa_key)
    async with pair(server_security=offering(server_certificate=certificate)) as (client, server):
        await talk(client, server)


async def test_without_trusted_certificates_the_systems_are_asked() -> None:
    async with listening() as listener:
        error = await refusal(going_to(port_of(listener), SecurityParameters()))
        assert "issuer" in str(error)


async def test_the_right_pin_is_accepted_even_if_it_is_self_signed() -> None:
    own = Certificate.self_signed("localhost")
    pinned = SecurityParameters(pinned_server_certificate=[AUTHORITY.root, own])
    async with pair(client_security=pinned, server_security=offering(server_certificate=own)) as both:
        await talk(*both)


async def test_the_wrong_pin_is_refused() -> None:
    async with listening() as listener:
        pinned = trusting(pinned_server_certificate=AUTHORITY.issue("localhost"))
        error = await refusal(going_to(port_of(listener), pinned))
        assert "not the pinned one" in str(error)


async def test_a_pin_does_not_excuse_the_wrong_name() -> None:
    own = Certificate.self_signed("other.example")
    async with listening(offering(server_certificate=own)) as listener:
        error = await refusal(going_to(port_of(listener), SecurityParameters(pinned_server_certificate=own)))
        assert "not valid for 'localhost'" in str(error)


async def test_a_listener_without_a_certificate_cannot_listen() -> None:
    preconnection = Preconnection(
        local=LocalEndpoint(0, address=HOST), properties=streams(), security=SecurityParameters()
    )
    with pytest.raises(EstablishmentError) as caught:
        await preconnection.listen()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


async def test_opportunistic_security_takes_whatever_certificate_there_is() -> None:
    own = Certificate.self_signed("other.example")
    async with (
        listening(offering(server_certificate=own)) as listener,
        connected(going_to(port_of(listener), SecurityParameters.opportunistic()), listener) as both,
    ):
        await talk(*both)


# Application protocols


async def test_the_application_protocol_is_one_that_both_have() -> None:
    async with pair(
        client_security=trusting(alpn=["three", "two"]), server_security=offering(alpn=["one", "two"])
    ) as (client, server):
        assert client.get_properties()["security"]["alpn"] == "two"
        assert server.get_properties()["security"]["alpn"] == "two"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [({"alpn": "one"}, {"alpn": "two"}), ({}, {"alpn": "two"}), ({"alpn": "one"}, {})],
    ids=["different", "client has the default", "server has the default"],
)
async def test_no_common_application_protocol_is_an_error_on_both_sides(
    ours: dict[str, Any], theirs: dict[str, Any], told: list[BaseException]
) -> None:
    async with listening(offering(**theirs)) as listener:
        error = await refusal(going_to(port_of(listener), trusting(**ours)))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "no application protocol (alpn) that both sides have" in str(error)
        await until(lambda: told)
        assert "no application protocol (alpn)" in str(told[0])


# Trust callbacks of clients


async def test_a_trust_callback_sees_the_chain_and_the_systems_verdict() -> None:
    seen: list[TrustVerification] = []

    def callback(trust: TrustVerification) -> bool:
        seen.append(trust)
        return True

    own = Certificate.self_signed("other.example")
    deciding = SecurityParameters(trust_verification_callback=callback)
    async with pair(client_security=deciding, server_security=offering(server_certificate=own)) as both:
        await talk(*both)
    (trust,) = seen
    assert trust.server_name == "localhost"
    assert trust.certificate_chain == own.der()
    assert not trust.verified
    assert "self-signed" in str(trust.error)


async def _accepting(trust: TrustVerification) -> bool:
    await turns()
    return trust.verified


async def _refusing(trust: TrustVerification) -> bool:
    await turns()
    return False


async def _raising(trust: TrustVerification) -> bool:
    await turns()
    raise LookupError("no such pin")


def _raising_at_once(trust: TrustVerification) -> bool:
    raise LookupError("no such pin")


async def test_an_async_trust_callback_may_accept() -> None:
    async with pair(client_security=trusting(trust_verification_callback=_accepting)) as both:
        await talk(*both)


@pytest.mark.parametrize(
    ("callback", "cause"),
    [
        (lambda trust: False, None),
        (lambda trust: "yes", None),
        (_refusing, None),
        (_raising, LookupError),
        (_raising_at_once, LookupError),
    ],
    ids=["no", "not True", "async no", "async raises", "raises"],
)
async def test_a_clients_callback_that_refuses_or_raises_ends_the_attempt(
    callback: Any, cause: Any, told: list[BaseException]
) -> None:
    async with listening() as listener:
        error = await refusal(going_to(port_of(listener), trusting(trust_verification_callback=callback)))
        assert "callback" in str(error)
        assert _has_cause(error, cause)
        await until(lambda: told)
        assert "does not accept our certificate" in str(told[0])


def _has_cause(error: EstablishmentError, cause: type[BaseException] | None) -> bool:
    (attempt,) = error.attempts
    found = attempt.error.__cause__
    return found is None if cause is None else isinstance(found, cause)


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_slow_callback_holds_the_handshake_and_the_peer_is_patient(who: str) -> None:
    asked, decided = asyncio.Event(), asyncio.Event()

    async def decide(trust: TrustVerification) -> bool:
        asked.set()
        await decided.wait()
        return True

    ours = trusting(client_certificate=CLIENT)
    theirs = offering(trusted_certificates=AUTHORITY.root)
    (ours if who == "client" else theirs).set("trust_verification_callback", decide)
    async with listening(theirs) as listener, Relay.to(port_of(listener)) as relay:
        client = going_to(relay.port, ours).initiate(timeout=TIME)
        accepting = asyncio.ensure_future(listener.accept())
        await asyncio.wait_for(asked.wait(), TIME)
        patient = relay.seen[who == "server"]
        sent = len(patient)
        await until(lambda: len(patient) > sent)  # the other side has asked what is the matter
        assert not accepting.done()
        decided.set()
        await client
        server = await asyncio.wait_for(accepting, TIME)
        await talk(client, server)
        client.abort()
        server.abort()


async def test_cancelling_an_attempt_cancels_its_callback() -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def callback(trust: TrustVerification) -> bool:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return True

    async with listening() as listener:
        client = going_to(port_of(listener), trusting(trust_verification_callback=callback)).initiate()
        await asyncio.wait_for(asked.wait(), TIME)
        client.abort()
        await asyncio.wait_for(cancelled.wait(), TIME)


# Certificates of clients


async def test_a_listener_that_trusts_roots_requires_a_client_certificate() -> None:
    async with pair(
        client_security=trusting(client_certificate=CLIENT),
        server_security=offering(trusted_certificates=AUTHORITY.root),
    ) as (client, server):
        await talk(client, server)
        assert server.get_properties()["security"]["peer_certificate"] == CLIENT.der()[0]


@pytest.mark.parametrize(
    "presented",
    [None, Authority().issue("client.example"), AUTHORITY.issue("client.example", expired=True)],
    ids=["none", "unknown issuer", "expired"],
)
async def test_a_client_that_is_not_trusted_is_refused_and_told(
    presented: Certificate | None, told: list[BaseException]
) -> None:
    security = trusting()
    if presented is not None:
        security.client_certificate = presented
    async with listening(offering(trusted_certificates=AUTHORITY.root)) as listener:
        client = going_to(port_of(listener), security).initiate(timeout=TIME)
        # As with TLS 1.3, the client may believe in its connection before the server has judged it.
        with pytest.raises(TransportServicesError) as caught:
            await asyncio.wait_for((await client).receive(), TIME)
        assert caught.value.reason in (Reason.PROTOCOL_FAILED, Reason.ESTABLISHMENT_FAILED)
        assert "certificate" in str(caught.value)
        await until(lambda: told)
        assert re.search("client", str(told[0]))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.accept(), 0.05)


@pytest.mark.parametrize("known", [True, False])
async def test_a_listeners_callback_decides_on_clients(known: bool, told: list[BaseException]) -> None:
    seen: list[TrustVerification] = []

    async def callback(trust: TrustVerification) -> bool:
        seen.append(trust)
        await turns()
        return trust.verified

    certificate = CLIENT if known else Authority().issue("client.example")
    theirs = offering(trust_verification_callback=callback, trusted_certificates=AUTHORITY.root)
    async with listening(theirs) as listener:
        client = going_to(port_of(listener), trusting(client_certificate=certificate)).initiate(timeout=TIME)
        if known:
            server = await asyncio.wait_for(listener.accept(), TIME)
            await client
            await talk(client, server)
            server.abort()
        else:
            await until(lambda: told)
        client.abort()
    assert seen[0].server_name is None
    assert seen[0].verified is known
    assert seen[0].certificate_chain[0] == certificate.der()[0]


@pytest.mark.parametrize("callback", [_refusing, _raising, _raising_at_once, lambda trust: False])
async def test_a_listeners_callback_that_refuses_or_raises_refuses_the_client(
    callback: Any, complaints: list[dict[str, Any]], told: list[BaseException]
) -> None:
    theirs = offering(trust_verification_callback=callback, trusted_certificates=AUTHORITY.root)
    async with listening(theirs) as listener:
        client = going_to(port_of(listener), trusting(client_certificate=CLIENT)).initiate(timeout=TIME)
        await until(lambda: told)
        assert "callback" in str(told[0])
        client.abort()
    raised = callback in (_raising, _raising_at_once)
    assert [type(each.get("exception")) for each in complaints] == [LookupError] * raised
    complaints.clear()


# What is negotiated


@pytest.mark.parametrize(
    "name", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
)
@pytest.mark.parametrize("side", ["client", "server"])
async def test_only_the_ciphersuite_asked_for_is_used(name: str, side: str) -> None:
    asked = {"ciphersuite": name}
    async with pair(
        client_security=trusting(**(asked if side == "client" else {})),
        server_security=offering(**(asked if side == "server" else {})),
    ) as (client, server):
        await talk(client, server)
        for connection in (client, server):
            assert connection.get_properties()["security"]["ciphersuite"] == name


@pytest.mark.parametrize(
    ("parameter", "ours", "theirs"),
    [
        ("ciphersuite", "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"),
        ("supported_group", "secp384r1", "x25519"),
    ],
)
async def test_parameters_that_do_not_overlap_fail(parameter: str, ours: str, theirs: str) -> None:
    async with listening(offering(**{parameter: theirs})) as listener:
        error = await refusal(going_to(port_of(listener), trusting(**{parameter: ours})))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "nothing that both sides support" in str(error)


@pytest.mark.parametrize("group", ["x25519", "secp256r1", "secp384r1"])
async def test_a_group_may_be_chosen(group: str) -> None:
    async with pair(
        client_security=trusting(supported_group=group), server_security=offering(supported_group=group)
    ) as both:
        await talk(*both)


async def test_a_signature_algorithm_that_the_key_is_not_for_fails() -> None:
    async with listening() as listener:
        security = trusting(signature_algorithm="rsa_pss_rsae_sha256")
        error = await refusal(going_to(port_of(listener), security))
        assert "nothing that both sides support" in str(error)
    async with pair(client_security=trusting(signature_algorithm="ecdsa_secp256r1_sha256")) as both:
        await talk(*both)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"ciphersuite": "TLS_AES_128_CCM_SHA256"}, "aioquic knows of ciphersuites only"),
        ({"supported_group": "ffdhe2048"}, "supported_group: ffdhe2048"),
        ({"signature_algorithm": "ecdsa_secp521r1_sha512"}, "signature_algorithm: ecdsa_secp521r1_sha512"),
        ({"allowed_security_protocols": "tls_1_3"}, "allowed_security_protocols leaves no quic"),
    ],
)
async def test_what_the_engine_does_not_know_rules_quic_out_with_the_reason(
    parameters: dict[str, Any], words: str
) -> None:
    async with listening() as listener:
        error = await refusal(going_to(port_of(listener), trusting(**parameters)))
        assert error.reason is Reason.NO_CANDIDATES
        assert words in str(error)


async def test_a_client_without_a_certificate_is_refused_whatever_a_callback_would_say(
    told: list[BaseException],
) -> None:
    demanding = offering(trusted_certificates=AUTHORITY.root, trust_verification_callback=lambda _: True)
    async with listening(demanding) as listener:
        client = going_to(port_of(listener)).initiate(timeout=TIME)
        with contextlib.suppress(EstablishmentError):  # it is told only after it has spoken
            await client
        await until(lambda: told)
        assert "presented no certificate" in str(told[0])
        client.abort()
        await turns()
