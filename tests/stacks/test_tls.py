"""The stack tls/tcp over real sockets: between two of ours, and against OpenSSL's command line both ways."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tls_tools import PlainStack, abort_all, connect, openssl, send, serving, tls_stack, written

from neatpy.certificate import Certificate
from neatpy.errors import ConnectionError, EstablishmentError, Reason
from neatpy.security import SecurityParameters, TrustVerification
from neatpy.stacks._tls import accepting, flow
from neatpy.stacks.features import Provision
from pki import Authority

AUTHORITY = Authority()
IDENTITY = AUTHORITY.issue("localhost", "127.0.0.1")
CLIENT = AUTHORITY.issue("client.example")
VERSIONS = ["tls_1_2", "tls_1_3"]
BULK = bytes(range(256)) * 12345


@pytest.fixture(autouse=True)
async def nothing_stays_open() -> AsyncIterator[None]:
    """Abort what a test leaves open."""
    yield
    await abort_all()


def trusting(**parameters: Any) -> SecurityParameters:
    """A client's parameters that trust the test's authority."""
    return SecurityParameters(trusted_certificates=AUTHORITY.root, **parameters)


def offering(**parameters: Any) -> SecurityParameters:
    """A Listener's parameters with the test's certificate."""
    return SecurityParameters(**{"server_certificate": IDENTITY, **parameters})


def always(trust: TrustVerification) -> bool:
    """Trust the peer; it also makes pyOpenSSL the engine."""
    return True


ENGINES: list[Callable[..., SecurityParameters]] = [
    trusting,
    lambda **parameters: trusting(trust_verification_callback=always, **parameters),
]
engines = pytest.mark.parametrize("client", ENGINES, ids=["ssl", "pyopenssl"])
versions = pytest.mark.parametrize("version", VERSIONS)


# Data


@engines
@versions
async def test_data_flows_both_ways_and_each_side_ends_its_own(client: Any, version: str) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, client(allowed_security_protocols=version))
        theirs = await server.accept()
        send(ours, b"question")
        ours.flow.finish()
        await theirs.seen.until(lambda seen: seen.is_finished)
        assert theirs.seen.data == b"question"
        assert theirs.seen.ends == []
        send(theirs, BULK)
        theirs.flow.close()
        await ours.seen.until(lambda seen: seen.is_finished)
        assert ours.seen.data == BULK
        ours.flow.close()
        await ours.seen.until(lambda seen: seen.ends)
        await theirs.seen.until(lambda seen: seen.ends)
        assert ours.seen.ends == theirs.seen.ends == [None]


@engines
async def test_data_received_while_both_directions_are_full_is_whole(client: Any) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, client())
        theirs = await server.accept()
        for peer in (ours, theirs):
            peer.flow.pause_receiving()
            assert not send(peer, bytearray(BULK), "long")
            assert not peer.flow.writable
        for peer in (ours, theirs):
            peer.flow.resume_receiving()
        for peer in (ours, theirs):
            await peer.seen.until(lambda seen: len(seen.data) == len(BULK))
            await peer.seen.until(lambda seen: seen.writables and seen.tokens)
            assert peer.seen.data == BULK
            assert peer.seen.tokens == ["long"]
            assert peer.flow.writable


async def test_sent_comes_once_for_each_message_in_order_under_backpressure() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        expected = bytearray()
        tokens: list[object] = []
        while ours.flow.writable:
            piece = bytes([len(tokens) % 251]) * 100_000
            if not send(ours, piece, len(tokens)):
                tokens.append(len(tokens))
            else:
                assert not tokens
            expected += piece
        ours.flow.finish()
        theirs.flow.resume_receiving()
        await theirs.seen.until(lambda seen: seen.is_finished)
        assert theirs.seen.data == expected
        assert len(ours.seen.tokens) == len(tokens)


async def test_a_buffer_may_be_changed_after_send_has_returned() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        buffer = bytearray(BULK)
        send(ours, buffer)
        buffer[:] = bytes(len(buffer))
        theirs.flow.resume_receiving()
        await theirs.seen.until(lambda seen: len(seen.data) == len(BULK))
        assert theirs.seen.data == BULK


async def test_small_messages_of_a_batch_share_a_record() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        lower = ours.flow.lower  # type: ignore[attr-defined]
        before = len(lower.sends)
        ours.flow.cork()
        assert [send(ours, b"abc", token) for token in range(20)] == [False] * 20
        ours.flow.uncork()
        await theirs.seen.until(lambda seen: len(seen.data) == 60)
        assert ours.seen.tokens == list(range(20))
        assert len(lower.sends) == before + 1
        assert lower.sends[-1] < 100


async def test_pausing_holds_data_back_until_resumed() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        send(ours, b"later")
        send(theirs, b"first")
        await ours.seen.until(lambda seen: seen.data == b"first")
        assert theirs.seen.data == b""
        theirs.flow.resume_receiving()
        await theirs.seen.until(lambda seen: seen.data == b"later")


async def test_closing_delivers_what_a_slow_peer_has_yet_to_read() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        send(ours, BULK)
        ours.flow.close()
        theirs.flow.resume_receiving()
        await theirs.seen.until(lambda seen: seen.is_finished)
        assert theirs.seen.data == BULK


async def test_closing_gives_up_on_a_peer_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LINGER", 0.05)
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        theirs.flow.pause_receiving()
        while ours.flow.writable:
            send(ours, BULK)
        ours.flow.close()
        await ours.seen.until(lambda seen: seen.ends)
        assert isinstance(ours.seen.ends[0], ConnectionError)
        assert ours.seen.ends[0].reason is Reason.TIMEOUT


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


# What cannot be done


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"signature_algorithm": "ed25519"}, "signature_algorithm"),
        ({"identity_challenge_callback": always}, "identity_challenge_callback"),
        ({"supported_group": ["x25519", "secp256r1"]}, "one supported_group"),
        ({"supported_group": "x25519", "trust_verification_callback": always}, "cannot be combined"),
        ({"allowed_security_protocols": ["quic", "dtls_1_2"]}, "neither tls_1_2 nor tls_1_3"),
    ],
)
async def test_a_parameter_that_no_library_can_honour_rules_the_stack_out(
    parameters: dict[str, Any], words: str
) -> None:
    obstacle = tls_stack().security_obstacle(SecurityParameters(**parameters))
    assert words in str(obstacle)
    with pytest.raises(EstablishmentError, match=words):
        await connect(9, SecurityParameters(**parameters))


def test_ordinary_parameters_meet_no_obstacle() -> None:
    stack = tls_stack()
    assert stack.security_obstacle(SecurityParameters()) is None
    assert stack.security_obstacle(SecurityParameters.opportunistic(), listening=True) is None
    assert stack.security_obstacle(trusting(trust_verification_callback=always)) is None


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neatpy.stacks._tls.plan.find_spec", lambda name: None)
    obstacle = tls_stack().security_obstacle(SecurityParameters(trust_verification_callback=always))
    assert "with its extra tls" in str(obstacle)


async def test_a_secure_listener_without_certificate_is_a_wrong_configuration() -> None:
    with pytest.raises(EstablishmentError, match="server_certificate") as caught:
        async with serving(SecurityParameters()):
            pass
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


async def test_two_server_certificates_with_one_kind_of_key_are_a_wrong_configuration() -> None:
    with pytest.raises(EstablishmentError, match="another kind of key") as caught:
        async with serving(offering(server_certificate=[IDENTITY, CLIENT])):
            pass
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.parametrize("callback", [None, always])
async def test_a_root_that_is_no_certificate_is_a_wrong_configuration(callback: Any) -> None:
    damaged = Certificate(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    security = SecurityParameters(trusted_certificates=damaged, trust_verification_callback=callback)
    with pytest.raises(EstablishmentError, match="trusted_certificates") as caught:
        await connect(9, security)
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"])
async def test_a_group_is_used_alone(suite: str) -> None:
    async with serving(offering(supported_group="secp384r1")) as server:
        await connect(server.port, trusting(supported_group="secp384r1"))
        with pytest.raises(EstablishmentError):
            await connect(server.port, trusting(supported_group="x25519"))


# Ends that are no ends


@engines
@versions
async def test_the_end_of_the_stream_without_close_notify_is_an_error(client: Any, version: str) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, client(allowed_security_protocols=version))
        theirs = await server.accept()
        send(theirs, b"half of it")
        theirs.flow.lower.finish()  # type: ignore[attr-defined]
        await ours.seen.until(lambda seen: seen.ends)
        assert ours.seen.data == b"half of it"
        assert not ours.seen.is_finished
        assert isinstance(ours.seen.ends[0], ConnectionError)
        assert ours.seen.ends[0].reason is Reason.PROTOCOL_FAILED


@engines
async def test_garbage_in_the_stream_breaks_the_connection_after_what_was_good(client: Any) -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, client())
        theirs = await server.accept()
        send(theirs, b"good")
        theirs.flow.lower.send(b"\x17\x03\x03\x00\x20" + bytes(32), None, False, None)  # type: ignore[attr-defined]
        await ours.seen.until(lambda seen: seen.ends)
        assert ours.seen.data == b"good"
        assert isinstance(ours.seen.ends[0], ConnectionError)
        assert ours.seen.ends[0].reason is Reason.PROTOCOL_FAILED
        await theirs.seen.until(lambda seen: seen.ends)
        assert "the peer refused" in str(theirs.seen.ends[0])


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70000), b""]
)
async def test_a_server_without_tls_is_an_establishment_error(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    plain = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with plain:
        with pytest.raises(EstablishmentError) as caught:
            await connect(plain.sockets[0].getsockname()[1], trusting())
        assert caught.value.reason is Reason.ESTABLISHMENT_FAILED


async def test_garbage_from_a_client_troubles_nobody_else() -> None:
    async with serving(offering()) as server:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(70000), b"\x16\x03\x01\x40\x00" + bytes(5)):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(garbage)
            writer.write_eof()
            with suppress(OSError):
                await asyncio.wait_for(reader.read(), 5)
            writer.close()
        await connect(server.port, trusting())
        await server.accept()
        assert server.peers.empty()


async def test_a_client_that_does_not_finish_its_handshake_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKE_TIME", 0.05)
    async with serving(offering()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"\x16\x03\x01")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_handshakes_in_progress_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "HANDSHAKES", 2)
    async with serving(offering()) as server:
        waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(waiting[0][0].read(), 5) == b""
        await connect(server.port, trusting())
        for _, writer in waiting:
            writer.close()


async def test_a_stopped_listener_drops_handshakes_and_keeps_connections() -> None:
    async with serving(offering()) as server:
        ours = await connect(server.port, trusting())
        theirs = await server.accept()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lower = server.stack.lower
        assert isinstance(lower, PlainStack)
        while len(lower.flows) < 2:
            await asyncio.sleep(0)
        server.listener.close()
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        send(ours, b"still here")
        await theirs.seen.until(lambda seen: seen.data == b"still here")


# Sessions


@versions
async def test_a_second_connection_resumes_the_session_of_the_first(version: str) -> None:
    stack = tls_stack()
    async with serving(offering()) as server:
        for resumed in (False, True, True):
            ours = await connect(server.port, trusting(allowed_security_protocols=version), stack=stack)
            theirs = await server.accept()
            assert ours.flow.security()["resumed"] is resumed
            assert ours.flow.security()["peer_certificate"] == IDENTITY.der()[0]
            send(theirs, b"hello")
            await ours.seen.until(lambda seen: seen.data == b"hello")
            ours.flow.close()


@pytest.mark.parametrize(
    "how", ["isolated", "none cached", "too old", "another server name", "other parameters"]
)
async def test_sessions_are_not_resumed_where_they_must_not_be(how: str) -> None:
    stack = tls_stack()
    parameters: dict[str, Any] = {}
    if how == "none cached":
        parameters["max_cached_sessions"] = 0
    if how == "too old":
        parameters["cached_session_lifetime_seconds"] = 1e-9
    async with serving(offering()) as server:
        for attempt in range(2):
            if how == "other parameters" and attempt:
                parameters["max_cached_sessions"] = 5
            ours = await connect(
                server.port,
                trusting(**parameters),
                None if how == "another server name" and attempt else "localhost",
                stack=stack,
                isolate_session=how == "isolated",
            )
            theirs = await server.accept()
            assert ours.flow.security()["resumed"] is False
            send(theirs, b"hello")
            await ours.seen.until(lambda seen: seen.data == b"hello")
            ours.flow.close()


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


# The table


def test_what_the_stack_below_does_acts_through_tls() -> None:
    stack = tls_stack()
    assert stack.available().available
    assert stack.features.secure
    assert stack.features.rank == 30
    assert stack.features.provides("reliability") is Provision.INTRINSIC
    assert {"conn_timeout", "isolate_session"} <= set(stack.features.effects)
    assert stack.features.namespace == "tcp"
    stack.lower = None
    assert not stack.available().available


# OpenSSL as the peer


@pytest.mark.needs_program("openssl")
@engines
@versions
async def test_openssls_server_is_a_peer(client: Any, version: str, tmp_path: Path, free_port: int) -> None:
    paths = written(tmp_path, server=IDENTITY, root=AUTHORITY.root)
    arguments = ["s_server", "-accept", f"127.0.0.1:{free_port}", "-cert", paths["server"], "-alpn", "echo"]
    arguments += ["-Verify", "1", "-CAfile", paths["root"], "-verify_return_error", "-rev", "-naccept", "3"]
    async with openssl(*arguments) as server:
        await server.says(b"ACCEPT")
        security = client(allowed_security_protocols=version, alpn="echo", client_certificate=CLIENT)
        ours = await connect(free_port, security)
        assert ours.flow.security()["alpn"] == "echo"
        send(ours, b"olleh\n")
        await ours.seen.until(lambda seen: seen.data == b"hello\n")
        ours.flow.finish()
        await ours.seen.until(lambda seen: seen.is_finished or seen.ends)
        assert ours.seen.ends in ([], [None])


@pytest.mark.needs_program("openssl")
@versions
async def test_a_file_of_openssls_web_server_comes_whole_after_our_half_close(
    version: str, tmp_path: Path, free_port: int
) -> None:
    paths = written(tmp_path, server=IDENTITY)
    (tmp_path / "file").write_bytes(BULK)
    process = openssl("s_server", "-accept", f"127.0.0.1:{free_port}", "-cert", paths["server"], "-HTTP")
    directory = Path.cwd()
    os.chdir(tmp_path)
    try:
        async with process as server:
            await server.says(b"ACCEPT")
            ours = await connect(free_port, trusting(allowed_security_protocols=version))
            send(ours, b"GET /file HTTP/1.0\r\n\r\n")
            await ours.seen.until(lambda seen: seen.is_finished or seen.ends)
            assert bytes(ours.seen.data).endswith(BULK[-1000:])
            ours.flow.close()
            await ours.seen.until(lambda seen: seen.ends)
            assert ours.seen.ends == [None]
    finally:
        os.chdir(directory)


@pytest.mark.needs_program("openssl")
@pytest.mark.parametrize("listening", [offering, lambda: offering(trust_verification_callback=always)])
@versions
async def test_openssls_client_is_a_peer(listening: Any, version: str, tmp_path: Path) -> None:
    paths = written(tmp_path, root=AUTHORITY.root, client=CLIENT)
    async with serving(listening()) as server:
        arguments = ["s_client", "-connect", f"127.0.0.1:{server.port}", "-servername", "localhost", "-quiet"]
        arguments += ["-verify_return_error", "-verify_hostname", "localhost", "-CAfile", paths["root"]]
        arguments += ["-cert", paths["client"], "-" + version.replace("tls_1", "tls1")]
        async with openssl(*arguments) as client:
            theirs = await server.accept()
            client.types(b"hello\n")
            await theirs.seen.until(lambda seen: seen.data == b"hello\n")
            send(theirs, b"welcome\n")
            await client.says(b"welcome\n")
            theirs.flow.finish()
            await theirs.seen.until(lambda seen: seen.is_finished or seen.ends)
            assert theirs.seen.ends in ([], [None])


@pytest.mark.needs_program("openssl")
async def test_a_key_update_is_followed(tmp_path: Path) -> None:
    paths = written(tmp_path, root=AUTHORITY.root)
    async with serving(offering()) as server:
        arguments = ["s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", paths["root"], "-tls1_3"]
        async with openssl(*arguments) as client:
            theirs = await server.accept()
            await client.says(b"Verify return code")
            client.types(b"K\n")
            await client.says(b"KEYUPDATE")
            client.types(b"after\n")
            await theirs.seen.until(lambda seen: b"after\n" in seen.data)
            send(theirs, b"with new keys\n")
            await client.says(b"with new keys\n")


@pytest.mark.needs_program("openssl")
async def test_openssls_client_is_told_that_no_alpn_is_common(tmp_path: Path) -> None:
    async with serving(offering(alpn="h2")) as server:
        arguments = ["s_client", "-connect", f"127.0.0.1:{server.port}", "-alpn", "imap"]
        async with openssl(*arguments) as client:
            await client.says(b"no application protocol")
