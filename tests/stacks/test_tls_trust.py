"""The stack tls/tcp over real sockets: whom it trusts, and what both sides agree on."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tls_parties import (
    AUTHORITY,
    CLIENT,
    ENGINES,
    IDENTITY,
    engines,
    offering,
    trusting,
    versions,
)
from tls_tools import connect, nothing_stays_open, send, serving

from neatpy.certificate import Certificate
from neatpy.errors import ConnectionError, EstablishmentError, Reason
from neatpy.security import SecurityParameters, TrustVerification
from neatpy.stacks._tls import accepting
from pki import Authority

__all__ = ["nothing_stays_open"]
pytestmark = pytest.mark.usefixtures("nothing_stays_open")


# Trust


@pytest.mark.parametrize("verified", [trusting, ENGINES[1]], ids=["ssl", "callback"])
async def test_an_endpoint_that_is_an_address_is_verified_as_one(verified: Any) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, verified(), name=None)
        assert ours.flow.security()["peer_certificate"] == IDENTITY.der()[0]


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
    ids=[
        "other name",
        "no address",
        "only a common name",
        "expired",
        "not yet",
        "unknown issuer",
        "self-signed",
    ],
)
@versions
@pytest.mark.parametrize("engine", ["ssl", "pyopenssl"])
async def test_what_is_wrong_with_a_certificate_is_told(
    issued: Any, name: str | None, words: str, version: str, engine: str
) -> None:
    security = trusting(allowed_security_protocols=version)
    if engine == "pyopenssl":
        security.trust_verification_callback = lambda trust: refuse_with(trust)
    found: list[str] = []

    def refuse_with(trust: TrustVerification) -> bool:
        found.append(f"{trust.error}")
        return trust.verified

    async with serving(offering(server_certificate=issued())) as server:
        with pytest.raises(EstablishmentError) as caught:
            await connect(server.port, security, name)
        assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
        text = found[0] if engine == "pyopenssl" else str(caught.value)
        assert "the certificate of" in text
        assert re.search(words, text), text
        assert server.peers.empty()


async def test_the_right_pin_is_accepted_even_if_it_is_self_signed() -> None:
    own = Certificate.self_signed("localhost")
    async with serving(offering(server_certificate=own)) as server:
        await connect(server.port, SecurityParameters(pinned_server_certificate=[AUTHORITY.root, own]))


@engines
@versions
async def test_the_wrong_pin_is_refused(client: Any, version: str) -> None:
    other = AUTHORITY.issue("localhost")
    security = client(pinned_server_certificate=other, allowed_security_protocols=version)
    if security.trust_verification_callback:
        security.trust_verification_callback = lambda trust: trust.verified
    async with serving(offering()) as server:
        with pytest.raises(EstablishmentError, match=r"not the pinned one|does not trust"):
            await connect(server.port, security)


async def test_a_pin_does_not_excuse_the_wrong_name() -> None:
    own = Certificate.self_signed("other.example")
    async with serving(offering(server_certificate=own)) as server:
        with pytest.raises(EstablishmentError, match="not valid for 'localhost'"):
            await connect(server.port, SecurityParameters(pinned_server_certificate=own))


async def test_a_trust_callback_sees_the_chain_and_the_systems_verdict() -> None:
    seen: list[TrustVerification] = []

    def callback(trust: TrustVerification) -> bool:
        seen.append(trust)
        return True

    own = Certificate.self_signed("other.example")
    async with serving(offering(server_certificate=own)) as server:
        await connect(server.port, SecurityParameters(trust_verification_callback=callback))
    (trust,) = seen
    assert trust.server_name == "localhost"
    assert trust.certificate_chain == own.der()
    assert not trust.verified
    assert "self-signed" in str(trust.error)


@versions
async def test_an_async_trust_callback_holds_the_handshake(version: str) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def callback(trust: TrustVerification) -> bool:
        asked.set()
        await answer.wait()
        return trust.verified

    security = trusting(trust_verification_callback=callback, allowed_security_protocols=version)
    async with serving(offering()) as server:
        connecting = asyncio.ensure_future(connect(server.port, security))
        await asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not connecting.done()
        answer.set()
        ours = await connecting
        theirs = await server.accept()
        send(theirs, b"hello")
        await ours.seen.until(lambda seen: seen.data == b"hello")


async def _refusing(trust: TrustVerification) -> bool:
    return False


async def _raising(trust: TrustVerification) -> bool:
    raise LookupError("no such pin")


def _raising_at_once(trust: TrustVerification) -> bool:
    raise LookupError("no such pin")


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
async def test_a_trust_callback_that_refuses_or_raises_ends_the_attempt(callback: Any, cause: Any) -> None:
    async with serving(offering()) as server:
        with pytest.raises(EstablishmentError, match="callback") as caught:
            await connect(server.port, trusting(trust_verification_callback=callback))
        assert (
            (caught.value.__cause__ is None) if cause is None else isinstance(caught.value.__cause__, cause)
        )
        assert server.peers.empty()


async def test_cancelling_an_attempt_cancels_the_callback_and_frees_the_connection() -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def callback(trust: TrustVerification) -> bool:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return True

    async with serving(offering()) as server:
        connecting = asyncio.ensure_future(
            connect(server.port, trusting(trust_verification_callback=callback))
        )
        await asked.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.wait_for(cancelled.wait(), 5)


# Client certificates


@versions
async def test_a_listener_that_trusts_roots_requires_a_client_certificate(version: str) -> None:
    listening = offering(trusted_certificates=AUTHORITY.root)
    async with serving(listening) as server:
        await connect(server.port, trusting(client_certificate=CLIENT, allowed_security_protocols=version))
        theirs = await server.accept()
        assert theirs.flow.security()["peer_certificate"] == CLIENT.der()[0]


@pytest.mark.parametrize(
    "presented", [None, Authority().issue("client.example")], ids=["none", "unknown issuer"]
)
@versions
async def test_a_refused_client_is_told_why(version: str, presented: Certificate | None) -> None:
    security = trusting(allowed_security_protocols=version)
    if presented is not None:
        security.client_certificate = presented
    async with serving(offering(trusted_certificates=AUTHORITY.root)) as server:
        if version == "tls_1_2":
            with pytest.raises(EstablishmentError, match=r"the peer refused: .*certificate"):
                await connect(server.port, security)
        else:  # TLS 1.3 lets the client believe in its connection before the server has seen the certificate
            ours = await connect(server.port, security)
            await ours.seen.until(lambda seen: seen.ends)
            assert isinstance(ours.seen.ends[0], ConnectionError)
            assert ours.seen.ends[0].reason is Reason.PROTOCOL_FAILED
            assert "the peer refused: " in str(ours.seen.ends[0])
        assert server.peers.empty()


@pytest.mark.parametrize(("known", "accepted"), [(True, True), (False, False)])
async def test_a_listeners_trust_callback_decides_on_clients(known: bool, accepted: bool) -> None:
    seen: list[TrustVerification] = []

    async def callback(trust: TrustVerification) -> bool:
        seen.append(trust)
        return trust.verified

    listening = offering(trust_verification_callback=callback, trusted_certificates=AUTHORITY.root)
    certificate = CLIENT if known else Authority().issue("client.example")
    async with serving(listening) as server:
        ours = await connect(server.port, trusting(client_certificate=certificate))
        if accepted:
            await server.accept()
        else:
            await ours.seen.until(lambda seen: seen.ends)
        assert server.peers.empty()
    assert seen[0].server_name is None
    assert seen[0].verified is accepted
    assert seen[0].certificate_chain[0] == certificate.der()[0]


# What was negotiated


@engines
@versions
async def test_the_flow_says_what_was_negotiated(client: Any, version: str) -> None:
    async with serving(offering(alpn=["h2", "http/1.1"])) as server:
        ours = await connect(server.port, client(allowed_security_protocols=version, alpn="http/1.1"))
        theirs = await server.accept()
        for facts in (ours.flow.security(), theirs.flow.security()):
            assert facts["protocol"] == {"tls_1_2": "TLSv1.2", "tls_1_3": "TLSv1.3"}[version]
            assert facts["alpn"] == "http/1.1"
            assert str(facts["ciphersuite"]).startswith("TLS_")
            assert facts["resumed"] is False


@pytest.mark.parametrize("listening", [["h2"], None])
@engines
@versions
async def test_no_common_alpn_is_an_establishment_error(
    client: Any, version: str, listening: list[str] | None
) -> None:
    async with serving(offering(alpn=listening)) as server:
        with pytest.raises(EstablishmentError, match=r"alpn|application protocol"):
            await connect(server.port, client(alpn="imap", allowed_security_protocols=version))
        assert listening is None or server.peers.empty()


async def test_versions_that_do_not_overlap_fail_with_that_reason() -> None:
    async with serving(offering(allowed_security_protocols="tls_1_2")) as server:
        with pytest.raises(EstablishmentError, match="version"):
            await connect(server.port, trusting(allowed_security_protocols="tls_1_3"))


@pytest.mark.parametrize(
    ("name", "certificate"),
    [
        ("TLS_AES_128_GCM_SHA256", IDENTITY),
        ("TLS_CHACHA20_POLY1305_SHA256", IDENTITY),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", IDENTITY),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", AUTHORITY.issue("localhost", rsa_key=True)),
    ],
)
@pytest.mark.parametrize("side", ["client", "server"])
async def test_only_the_ciphersuite_asked_for_is_used(name: str, certificate: Certificate, side: str) -> None:
    restricted = {"ciphersuite": name}
    listening = offering(server_certificate=certificate, **(restricted if side == "server" else {}))
    async with serving(listening) as server:
        ours = await connect(server.port, trusting(**(restricted if side == "client" else {})))
        assert ours.flow.security()["ciphersuite"] == name


async def test_ciphersuites_that_do_not_overlap_fail() -> None:
    async with serving(offering(ciphersuite="TLS_AES_128_GCM_SHA256")) as server:
        with pytest.raises(EstablishmentError, match="the peer refused"):
            await connect(server.port, trusting(ciphersuite="TLS_AES_256_GCM_SHA384"))


async def test_several_server_certificates_serve_clients_with_different_needs() -> None:
    rsa = AUTHORITY.issue("localhost", rsa_key=True)
    async with serving(offering(server_certificate=[IDENTITY, rsa])) as server:
        for name, certificate in (
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", rsa),
            ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", IDENTITY),
        ):
            ours = await connect(server.port, trusting(ciphersuite=name))
            assert ours.flow.security()["peer_certificate"] == certificate.der()[0]


# Opportunistic


async def test_an_opportunistic_client_encrypts_without_verifying() -> None:
    async with serving(SecurityParameters.opportunistic()) as server:
        ours = await connect(server.port, SecurityParameters.opportunistic(), "whatever.example")
        assert ours.flow.security()["protocol"] == "TLSv1.3"


async def test_an_opportunistic_listener_tells_plain_clients_by_their_first_byte() -> None:
    async with serving(SecurityParameters.opportunistic(), plain_allowed=True) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"hello in the clear")
        theirs = await server.accept()
        assert theirs.flow.stack.name == "tcp"
        await theirs.seen.until(lambda seen: seen.data == b"hello in the clear")
        writer.close()
        ours = await connect(server.port, SecurityParameters.opportunistic())
        theirs = await server.accept()
        assert theirs.flow.stack.name == "tls/tcp"
        send(ours, b"hello")
        await theirs.seen.until(lambda seen: seen.data == b"hello")
        del reader


async def test_an_opportunistic_listener_takes_a_silent_client_for_plain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "SILENCE", 0.02)
    async with serving(SecurityParameters.opportunistic(), plain_allowed=True) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        theirs = await server.accept()
        send(theirs, b"220 ready")
        assert await asyncio.wait_for(reader.read(9), 5) == b"220 ready"
        writer.close()
