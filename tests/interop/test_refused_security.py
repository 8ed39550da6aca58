"""Security that fails: each way gives an EstablishmentError that says what is wrong and what to do, at once."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from api.loopback import HOST, PlainServer, going_to, listening_on, plain_client, port_of
from interop.identities import NAME, Identities
from interop.meetings import VERSIONS, connected, received, refusal, securely_on, securely_to, versions
from interop.test_openssl import s_server
from neatpy import (
    Connection,
    ConnectionError,
    EstablishmentError,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
)

needs_openssl = pytest.mark.needs_program("openssl")


@needs_openssl
@versions
@pytest.mark.parametrize(
    ("identity", "told"),
    [
        ("other_name", ["peer.example", "connect by a name that the certificate has"]),
        ("expired", ["expired", "renewed"]),
        ("not_yet_valid", ["not yet valid", "clock"]),
        ("unknown_server", ["unable to get local issuer certificate", "trusted_certificates"]),
        ("self_signed", ["self-signed certificate", "trusted_certificates"]),
    ],
)
async def test_a_certificate_that_does_not_verify_is_refused(
    identities: Identities, version: str, identity: str, told: list[str]
) -> None:
    async with s_server(identities.file(identity)) as (_, port):
        security = identities.trusting(allowed_security_protocols=version)
        error = await refusal(securely_to(port, security))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        for words in told:
            assert words in str(error)
        assert f"127.0.0.1:{port}, any, tls/tcp" in str(error)
        assert len(error.attempts) == 1


@needs_openssl
async def test_an_address_that_the_certificate_lacks_is_refused(identities: Identities) -> None:
    async with s_server(identities.file("other_name")) as (_, port):
        error = await refusal(securely_to(port, identities.trusting(), name=None))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "IP address mismatch" in str(error)


@needs_openssl
@versions
async def test_another_certificate_than_the_pinned_one_is_refused(
    identities: Identities, version: str
) -> None:
    async with s_server(identities.file("server")) as (_, port):
        good = identities.trusting(
            pinned_server_certificate=identities.server, allowed_security_protocols=version
        )
        async with connected(securely_to(port, good)):
            pass
        wrong = identities.trusting(
            pinned_server_certificate=identities.rsa_server, allowed_security_protocols=version
        )
        error = await refusal(securely_to(port, wrong))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "pin" in str(error)


@needs_openssl
async def test_the_systems_trust_store_alone_does_not_know_the_tests_root(identities: Identities) -> None:
    async with s_server(identities.file("server")) as (_, port):
        error = await refusal(securely_to(port, SecurityParameters()))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "trusted_certificates" in str(error)


@needs_openssl
@pytest.mark.parametrize(("ours", "theirs"), [VERSIONS, VERSIONS[::-1]])
async def test_no_common_version_is_refused(identities: Identities, ours: str, theirs: str) -> None:
    option = {"tls_1_2": "-tls1_2", "tls_1_3": "-tls1_3"}[theirs]
    async with s_server(identities.file("server"), option) as (_, port):
        error = await refusal(securely_to(port, identities.trusting(allowed_security_protocols=ours)))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "no protocol version that both sides allow" in str(error)


@pytest.mark.parametrize(
    "greeting", [b"220 mail.example ESMTP ready\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
async def test_a_server_that_speaks_first_and_plainly_is_refused(
    identities: Identities, greeting: bytes
) -> None:
    with PlainServer() as server:
        task = asyncio.create_task(refusal(securely_to(server.port, identities.trusting())))
        peer = await server.accept()
        await peer.send(greeting)
        error = await task
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "the peer does not speak TLS" in str(error)


async def test_our_own_plain_listener_is_refused_by_a_secure_client(identities: Identities) -> None:
    async with listening_on().listen() as listener:
        task = asyncio.create_task(refusal(securely_to(port_of(listener), identities.trusting())))
        accepted = await listener.accept()
        hello = await accepted.receive(min_incomplete_length=1)
        assert hello.data[0] == 0x16  # a TLS handshake, which an application here could recognize
        accepted.send(b"what?")
        error = await task
        assert "the peer does not speak TLS" in str(error)
        accepted.abort()


async def told_until_the_end(connection: Connection) -> None:
    """Receive until that fails."""
    while True:
        await connection.receive(min_incomplete_length=1)


async def test_a_plain_client_is_dropped_by_a_secure_listener(identities: Identities) -> None:
    async with securely_on(identities.serving()).listen() as listener:
        async with connected(going_to(port_of(listener))) as connection:
            connection.send(b"GET / HTTP/1.1\r\n\r\n")
            began = time.monotonic()
            # An alert may come first; in the end there is nothing more.
            with pytest.raises(ReceiveError):
                await told_until_the_end(connection)
            assert time.monotonic() - began < 1
        async with connected(securely_to(port_of(listener), identities.trusting())):
            accepted = await listener.accept()
            assert accepted.stack == "tls/tcp"
            accepted.abort()


async def test_a_secure_preconnection_never_talks_to_a_plain_server_by_itself(
    identities: Identities,
) -> None:
    with PlainServer() as server:
        task = asyncio.create_task(refusal(securely_to(server.port, identities.trusting())))
        peer = await server.accept()
        peer.close()
        error = await task
        assert [attempt.candidate.count("tls/tcp") for attempt in error.attempts] == [1]


@pytest.mark.parametrize("ending", ["reset", "close", "finish"])
async def test_a_peer_that_leaves_during_the_handshake_is_an_error_at_once(
    identities: Identities, ending: str
) -> None:
    with PlainServer() as server:
        task = asyncio.create_task(refusal(securely_to(server.port, identities.trusting())))
        peer = await server.accept()
        await peer.receive(1)
        getattr(peer, ending)()
        error = await task
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "during the TLS handshake" in str(error)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x03\x00\x7a\x02"], ids=["nothing", "part of a ServerHello"])
async def test_a_peer_that_stops_answering_in_the_handshake_is_a_timeout(
    identities: Identities, said: bytes
) -> None:
    with PlainServer() as server:
        connection = securely_to(server.port, identities.trusting()).initiate(timeout=0.2)
        peer = await server.accept()
        await peer.receive(1)
        await peer.send(said)
        began = time.monotonic()
        with pytest.raises(EstablishmentError) as caught:
            await connection
        assert time.monotonic() - began < 0.6
        assert caught.value.reason is Reason.TIMEOUT
        assert "was still in progress" in str(caught.value)
        with pytest.raises(ConnectionResetError):  # the attempt has left nothing behind
            await peer.receive_to_end()


async def test_a_stalled_handshake_does_not_hold_up_the_next_address(
    identities: Identities, free_port: int
) -> None:
    with socket.socket() as silent:  # it completes TCP's handshake, and never reads
        silent.bind((HOST, free_port))
        silent.listen()
        async with securely_on(identities.serving(), host="127.0.0.2", port=free_port).listen() as listener:
            preconnection = securely_to(free_port, identities.trusting())
            preconnection.add_remote(RemoteEndpoint(NAME, free_port, address="127.0.0.2"))
            began = time.monotonic()
            async with connected(preconnection) as connection:
                assert 0.2 < time.monotonic() - began < 0.6
                assert connection.remote_endpoint is not None
                assert connection.remote_endpoint.address == "127.0.0.2"
                (await listener.accept()).abort()


@needs_openssl
@versions
async def test_a_stream_cut_off_without_close_notify_is_an_error(
    identities: Identities, version: str
) -> None:
    security = identities.trusting(allowed_security_protocols=version)
    async with (
        s_server(identities.file("server")) as (program, port),
        connected(securely_to(port, security)) as connection,
    ):
        connection.send(b"abc\n")
        assert await received(connection, 4) == b"cba\n"
        receiving = connection.receive()
        program.kill()
        with pytest.raises(ReceiveError) as caught:
            await receiving
        assert caught.value.reason is Reason.PROTOCOL_FAILED
        assert "close_notify" in str(caught.value)


@versions
async def test_a_truncated_message_is_never_delivered_as_whole(identities: Identities, version: str) -> None:
    """A server that ends TCP orderly, but not TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identities.file("server"))

    def serve(server: socket.socket) -> None:
        accepted, _ = server.accept()
        with context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=True) as secure:
            secure.sendall(b"half of what I wanted to s")
            secure.recv(1)
            socket.socket.shutdown(secure, socket.SHUT_WR)
            with suppress(ConnectionResetError):
                secure.recv(1)

    security = identities.trusting(allowed_security_protocols=version)
    with socket.create_server((HOST, 0)) as server:
        serving = asyncio.get_running_loop().run_in_executor(None, serve, server)
        async with connected(securely_to(server.getsockname()[1], security)) as connection:
            first = await connection.receive(min_incomplete_length=26)
            assert (first.data, first.end_of_message) == (b"half of what I wanted to s", False)
            connection.send(b"!")
            with pytest.raises(ReceiveError) as caught:
                await connection.receive()
            assert caught.value.reason is Reason.PROTOCOL_FAILED
            assert "close_notify" in str(caught.value)
            with pytest.raises(ConnectionError):
                await anext(connection)
        await serving


@pytest.mark.parametrize(
    ("wanting", "told"),
    [
        (lambda identities: SecurityParameters(), "certificate"),
        (lambda identities: identities.serving(allowed_security_protocols="quic"), ""),
    ],
    ids=["no certificate", "no stack for the protocol"],
)
async def test_a_listener_that_cannot_be_secure_does_not_listen(
    identities: Identities, wanting: Callable[[Identities], SecurityParameters], told: str
) -> None:
    listener = securely_on(wanting(identities)).listen()
    with pytest.raises(EstablishmentError) as caught:
        await listener
    assert caught.value.reason in (Reason.INVALID_CONFIGURATION, Reason.NO_CANDIDATES)
    assert told in str(caught.value)


async def test_a_client_that_says_nothing_holds_up_nobody(identities: Identities) -> None:
    async with securely_on(identities.serving()).listen() as listener:
        silent = plain_client(port_of(listener))
        async with connected(securely_to(port_of(listener), identities.trusting())):
            (await listener.accept()).abort()
        silent.close()
