"""GnuTLS's client and server as the peers of the public API: a TLS library that is not OpenSSL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.loopback import port_of
from interop.identities import NAME, Identities
from interop.meetings import connected, received, refusal, securely_on, securely_to, versions
from interop.programs import Program, running
from neatpy import Listener, Reason, ReceiveError
from neatpy.framers import DelimiterFramer

PRIORITY = {"tls_1_2": "NORMAL:-VERS-ALL:+VERS-TLS1.2", "tls_1_3": "NORMAL:-VERS-ALL:+VERS-TLS1.3"}
needs_server = pytest.mark.needs_program("gnutls-serv")
needs_client = pytest.mark.needs_program("gnutls-cli")


@asynccontextmanager
async def gnutls_serv(identities: Identities, port: int, *options: str) -> AsyncIterator[Program]:
    """``gnutls-serv`` that echoes."""
    own = identities.file("server")
    files = ("--x509certfile", own, "--x509keyfile", own, "--x509cafile", identities.file("root"))
    async with running("gnutls-serv", "--echo", "--port", str(port), *files, *options) as program:
        await program.says("IPv4 .*done")
        yield program


@asynccontextmanager
async def gnutls_cli(listener: Listener, identities: Identities, *options: str) -> AsyncIterator[Program]:
    """``gnutls-cli``, which verifies the Listener."""
    verify = ("--x509cafile", identities.file("root"), "--verify-hostname", NAME, "--sni-hostname", NAME)
    target = ("--port", str(port_of(listener)), "127.0.0.1")
    async with running("gnutls-cli", *verify, *options, *target) as program:
        yield program


@needs_server
@versions
async def test_its_server_exchanges_messages(identities: Identities, free_port: int, version: str) -> None:
    options = ("--priority", PRIORITY[version], "--disable-client-cert")
    async with gnutls_serv(identities, free_port, *options):
        preconnection = securely_to(free_port, identities.trusting(), framers=[DelimiterFramer()])
        async with connected(preconnection) as connection:
            for word in (b"first", b"second"):
                connection.send(word)
                assert (await connection.receive()).data == word
            await connection.close()


@needs_server
@versions
async def test_its_server_takes_our_client_certificate_and_alpn(
    identities: Identities, free_port: int, version: str
) -> None:
    options = (
        "--priority",
        PRIORITY[version],
        "--require-client-cert",
        "--verify-client-cert",
        "--alpn",
        "two",
    )
    async with gnutls_serv(identities, free_port, *options):
        security = identities.trusting(client_certificate=identities.client, alpn=["one", "two"])
        async with connected(securely_to(free_port, security)) as connection:
            connection.send(b"abc\n")
            assert await received(connection, 4) == b"abc\n"
            assert connection.get_properties()["security"]["alpn"] == "two"


@needs_server
@versions
async def test_its_server_refuses_another_alpn(identities: Identities, free_port: int, version: str) -> None:
    options = ("--priority", PRIORITY[version], "--disable-client-cert", "--alpn", "two", "--alpn-fatal")
    async with gnutls_serv(identities, free_port, *options):
        error = await refusal(securely_to(free_port, identities.trusting(alpn="one")))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "alpn" in str(error)


@needs_client
@versions
async def test_its_client_exchanges_messages(identities: Identities, version: str) -> None:
    preconnection = securely_on(identities.serving(alpn="two"), framers=[DelimiterFramer()])
    async with (
        preconnection.listen() as listener,
        gnutls_cli(listener, identities, "--priority", PRIORITY[version], "--alpn", "two") as client,
    ):
        connection = await listener.accept()
        await client.says("Application protocol: two")
        await client.says("Simple Client Mode")
        client.types(b"a question\n")
        assert (await connection.receive()).data == b"a question"
        connection.send(b"an answer")
        await client.says("an answer")
        await connection.close()
        await client.says("Peer has closed the GnuTLS connection")


@needs_client
@versions
async def test_its_client_proves_its_identity(identities: Identities, version: str) -> None:
    security = identities.serving(trusted_certificates=identities.root)
    own = identities.file("client")
    options = ("--priority", PRIORITY[version], "--x509certfile", own, "--x509keyfile", own)
    async with securely_on(security).listen() as listener, gnutls_cli(listener, identities, *options):
        connection = await listener.accept()
        assert b"the client" in connection.get_properties()["security"]["peer_certificate"]
        connection.abort()


@needs_client
@versions
async def test_its_client_without_a_certificate_is_refused(identities: Identities, version: str) -> None:
    security = identities.serving(trusted_certificates=identities.root)
    async with (
        securely_on(security).listen() as listener,
        gnutls_cli(listener, identities, "--priority", PRIORITY[version]) as client,
    ):
        await client.says(r"(?i)fatal alert has been received")
        await client.ends()


@needs_client
@versions
async def test_its_client_resumes_a_session_with_our_listener(identities: Identities, version: str) -> None:
    async with (
        securely_on(identities.serving()).listen() as listener,
        gnutls_cli(listener, identities, "--priority", PRIORITY[version], "--resume") as client,
    ):
        first = await listener.accept()
        with pytest.raises(ReceiveError):  # it leaves at once, to come again
            await first.receive()
        first.abort()
        second = await listener.accept()
        assert second.get_properties()["security"]["resumed"] is True
        await client.says("This is a resumed session")
        second.abort()
