"""DTLS 1.2 with OpenSSL's and GnuTLS's programs as the peers of the public API, both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.loopback import HOST, datagrams, port_of
from interop.identities import NAME, Identities
from interop.meetings import connected, refusal
from interop.programs import Program, running
from neatpy import (
    Connection,
    ConnectionState,
    Listener,
    LocalEndpoint,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
)

needs_openssl = pytest.mark.needs_program("openssl")
needs_gnutls_server = pytest.mark.needs_program("gnutls-serv")
needs_gnutls_client = pytest.mark.needs_program("gnutls-cli")


def securely_to(port: int, security: SecurityParameters, name: str | None = NAME) -> Preconnection:
    """To a UDP port of 127.0.0.1, verifying this name (None: the address)."""
    remote = RemoteEndpoint(name, port, address=HOST) if name else RemoteEndpoint(HOST, port)
    return Preconnection(remote=remote, properties=datagrams(), security=security)


def securely_on(security: SecurityParameters) -> Preconnection:
    """A Listener's on loopback."""
    return Preconnection(local=LocalEndpoint(0, address=HOST), properties=datagrams(), security=security)


@asynccontextmanager
async def s_server(identities: Identities, port: int, *options: str) -> AsyncIterator[Program]:
    """``openssl s_server`` for DTLS, which shows what comes and sends what it is given."""
    own = identities.file("server")
    target = ("-accept", f"127.0.0.1:{port}", "-cert", own, "-key", own)
    async with running("openssl", "s_server", "-dtls1_2", "-listen", *target, *options) as program:
        await program.says("ACCEPT")
        yield program


@asynccontextmanager
async def s_client(listener: Listener, identities: Identities, *options: str) -> AsyncIterator[Program]:
    """``openssl s_client`` for DTLS, which verifies the Listener."""
    verify = ("-CAfile", identities.file("root"), "-verify_return_error", "-verify_hostname", NAME)
    target = ("-connect", f"127.0.0.1:{port_of(listener)}", "-servername", NAME)
    async with running("openssl", "s_client", "-dtls1_2", *target, *verify, *options) as program:
        yield program


@asynccontextmanager
async def gnutls_serv(identities: Identities, port: int, *options: str) -> AsyncIterator[Program]:
    """``gnutls-serv`` for DTLS, which echoes."""
    own = identities.file("server")
    files = ("--x509certfile", own, "--x509keyfile", own, "--x509cafile", identities.file("root"))
    async with running("gnutls-serv", "--udp", "--echo", "--port", str(port), *files, *options) as program:
        await program.says("IPv4 .*done")
        yield program


@asynccontextmanager
async def gnutls_cli(listener: Listener, identities: Identities, *options: str) -> AsyncIterator[Program]:
    """``gnutls-cli`` for DTLS, which verifies the Listener."""
    verify = ("--x509cafile", identities.file("root"), "--verify-hostname", NAME, "--sni-hostname", NAME)
    target = ("--udp", "--port", str(port_of(listener)), "127.0.0.1")
    async with running("gnutls-cli", *verify, *options, *target) as program:
        yield program


async def ends_well(connection: Connection) -> None:
    """The peer says that it has finished."""
    with pytest.raises(ReceiveError) as caught:
        await connection.receive()
    assert caught.value.reason is Reason.CONNECTION_CLOSED


@needs_openssl
async def test_openssls_server_exchanges_messages(identities: Identities, free_port: int) -> None:
    async with (
        s_server(identities, free_port, "-alpn", "one,two", "-mtu", "1400") as server,
        connected(securely_to(free_port, identities.trusting(alpn=["three", "two"]))) as connection,
    ):
        assert connection.stack == "dtls/udp"
        security = connection.get_properties()["security"]
        assert (security["protocol"], security["alpn"]) == ("DTLSv1.2", "two")
        connection.send(b"a question\n")
        await server.says("a question")
        server.types(b"an answer\n")
        assert (await connection.receive()).data == b"an answer\n"
        await connection.close()
        await server.says("DONE")


@needs_openssl
async def test_openssls_server_is_verified_by_address_too(identities: Identities, free_port: int) -> None:
    async with (
        s_server(identities, free_port),
        connected(securely_to(free_port, identities.trusting(), None)) as connection,
    ):
        assert connection.get_properties()["security"]["peer_certificate"] == identities.server.der()[0]


@needs_openssl
async def test_openssls_server_under_another_name_is_refused(identities: Identities, free_port: int) -> None:
    async with s_server(identities, free_port) as server:
        error = await refusal(securely_to(free_port, identities.trusting(), "other.example"))
        assert "not valid for 'other.example'" in str(error)
        await server.says("alert certificate unknown")


@needs_openssl
async def test_openssls_server_takes_our_client_certificate(identities: Identities, free_port: int) -> None:
    options = ("-Verify", "1", "-verify_return_error", "-CAfile", identities.file("root"))
    async with s_server(identities, free_port, *options) as server:
        security = identities.trusting(client_certificate=identities.client)
        async with connected(securely_to(free_port, security)) as connection:
            connection.send(b"abc\n")
            await server.says("abc")
            await server.says("depth=0 CN = the client")


@needs_openssl
async def test_openssls_server_refuses_a_client_without_a_certificate(
    identities: Identities, free_port: int
) -> None:
    options = ("-Verify", "1", "-verify_return_error", "-CAfile", identities.file("root"))
    async with s_server(identities, free_port, *options):
        error = await refusal(securely_to(free_port, identities.trusting()))
        assert "the peer refused" in str(error)


@needs_openssl
async def test_openssls_client_exchanges_messages(identities: Identities) -> None:
    async with (
        securely_on(identities.serving(alpn="two")).listen() as listener,
        s_client(listener, identities, "-alpn", "one,two") as client,
    ):
        connection = await listener.accept()
        await client.says("Verify return code: 0")
        assert "ALPN protocol: two" in client.output
        client.types(b"a question\n")
        assert (await connection.receive()).data == b"a question\n"
        connection.send(b"an answer\n")
        await client.says("an answer")
        client.types(b"Q\n")
        await ends_well(connection)
        await connection.close()


@needs_openssl
async def test_openssls_client_learns_that_we_close(identities: Identities) -> None:
    async with (
        securely_on(identities.serving()).listen() as listener,
        s_client(listener, identities) as client,
    ):
        connection = await listener.accept()
        await client.says("Verify return code: 0")
        await connection.close()
        await client.ends()


@needs_openssl
async def test_a_fatal_alert_of_openssls_client_is_an_abort(identities: Identities) -> None:
    async with (
        securely_on(identities.serving()).listen() as listener,
        s_client(listener, identities) as client,
    ):
        connection = await listener.accept()
        await client.says("Verify return code: 0")
        client.types(b"R\n")  # it wants to renegotiate, is told that we do not, and gives up
        with pytest.raises(ReceiveError) as caught:
            await connection.receive()
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        assert connection.state is ConnectionState.CLOSED


@needs_openssl
async def test_openssls_client_proves_its_identity(identities: Identities) -> None:
    own = identities.file("client")
    security = identities.serving(trusted_certificates=identities.root)
    async with (
        securely_on(security).listen() as listener,
        s_client(listener, identities, "-cert", own, "-key", own),
    ):
        connection = await listener.accept()
        assert b"the client" in connection.get_properties()["security"]["peer_certificate"]
        connection.abort()


@needs_openssl
async def test_openssls_client_without_a_certificate_is_refused(identities: Identities) -> None:
    security = identities.serving(trusted_certificates=identities.root)
    async with (
        securely_on(security).listen() as listener,
        s_client(listener, identities) as client,
    ):
        await client.says("alert handshake failure")


@needs_gnutls_server
async def test_gnutlss_server_exchanges_messages(identities: Identities, free_port: int) -> None:
    async with (
        gnutls_serv(identities, free_port, "--disable-client-cert", "--alpn", "two"),
        connected(securely_to(free_port, identities.trusting(alpn=["one", "two"]))) as connection,
    ):
        assert connection.get_properties()["security"]["alpn"] == "two"
        for word in (b"first", b"second" * 20):
            connection.send(word)
            assert (await connection.receive()).data == word
        await connection.close()


@needs_gnutls_server
async def test_gnutlss_server_takes_our_client_certificate(identities: Identities, free_port: int) -> None:
    options = ("--require-client-cert", "--verify-client-cert")
    security = identities.trusting(client_certificate=identities.client)
    async with (
        gnutls_serv(identities, free_port, *options),
        connected(securely_to(free_port, security)) as connection,
    ):
        connection.send(b"abc")
        assert (await connection.receive()).data == b"abc"


@needs_gnutls_client
async def test_gnutlss_client_exchanges_messages(identities: Identities) -> None:
    async with (
        securely_on(identities.serving(alpn="two")).listen() as listener,
        gnutls_cli(listener, identities, "--alpn", "two") as client,
    ):
        connection = await listener.accept()
        await client.says("Application protocol: two")
        await client.says("Simple Client Mode")
        client.types(b"a question\n")
        assert (await connection.receive()).data == b"a question\n"
        connection.send(b"an answer\n")
        await client.says("an answer")
        await connection.close()
        await client.says("Peer has closed the GnuTLS connection")


@needs_gnutls_client
async def test_gnutlss_client_without_a_certificate_is_refused(identities: Identities) -> None:
    security = identities.serving(trusted_certificates=identities.root)
    async with (
        securely_on(security).listen() as listener,
        gnutls_cli(listener, identities) as client,
    ):
        await client.says(r"(?i)fatal alert has been received")
        await client.ends()
