"""OpenSSL's s_server and s_client as the peers of the public API."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.loopback import port_of
from interop.identities import NAME, Identities
from interop.meetings import OPENSSL_VERSION, connected, received, refusal, securely_on, securely_to, versions
from interop.programs import Program, running
from neatpy import ConnectionError, Listener, Reason
from neatpy.framers import DelimiterFramer

pytestmark = pytest.mark.needs_program("openssl")


@asynccontextmanager
async def s_server(identity: str, *options: str) -> AsyncIterator[tuple[Program, int]]:
    """``openssl s_server`` that sends every line back reversed, and its port."""
    files = ("-cert", identity, "-key", identity)
    command = ("openssl", "s_server", "-accept", "127.0.0.1:0", "-rev", *files, *options)
    async with running(*command) as program:
        port = (await program.says(r"ACCEPT .*:(\d+)"))[1]
        yield program, int(port)


@asynccontextmanager
async def s_client(listener: Listener, identities: Identities, *options: str) -> AsyncIterator[Program]:
    """``openssl s_client``, which verifies the Listener."""
    verify = ("-CAfile", identities.file("root"), "-verify_return_error", "-verify_hostname", NAME)
    target = ("-connect", f"127.0.0.1:{port_of(listener)}", "-servername", NAME)
    async with running("openssl", "s_client", *target, *verify, *options) as program:
        yield program


@versions
async def test_its_server_exchanges_messages(identities: Identities, version: str) -> None:
    async with s_server(identities.file("server"), OPENSSL_VERSION[version]) as (_, port):
        preconnection = securely_to(port, identities.trusting(), framers=[DelimiterFramer()])
        async with connected(preconnection) as connection:
            for word in (b"stressed", b"drawer"):
                connection.send(word)
                assert (await connection.receive()).data == word[::-1]
            assert connection.get_properties()["security"]["protocol"] in ("TLSv1.2", "TLSv1.3")
            await connection.close()


@versions
async def test_its_server_is_verified_by_address_too(identities: Identities, version: str) -> None:
    async with (
        s_server(identities.file("rsa_server"), OPENSSL_VERSION[version]) as (_, port),
        connected(securely_to(port, identities.trusting(), name=None)) as connection,
    ):
        connection.send(b"abc\n")
        assert await received(connection, 4) == b"cba\n"


@versions
async def test_its_server_takes_our_client_certificate(identities: Identities, version: str) -> None:
    options = ("-Verify", "1", "-verify_return_error", "-CAfile", identities.file("root"))
    async with s_server(identities.file("server"), OPENSSL_VERSION[version], *options) as (program, port):
        security = identities.trusting(client_certificate=identities.client)
        async with connected(securely_to(port, security)) as connection:
            connection.send(b"abc\n")
            assert await received(connection, 4) == b"cba\n"
        await program.says("depth=0 CN = the client")


@pytest.mark.parametrize("presented", ["nothing", "unknown_client"])
@versions
async def test_its_server_refuses_a_wrong_client(
    identities: Identities, version: str, presented: str
) -> None:
    options = ("-Verify", "1", "-verify_return_error", "-CAfile", identities.file("root"))
    async with s_server(identities.file("server"), OPENSSL_VERSION[version], *options) as (_, port):
        security = identities.trusting()
        if presented != "nothing":
            security.set("client_certificate", getattr(identities, presented))
        if version == "tls_1_2":
            error: Exception = await refusal(securely_to(port, security))
        else:  # a server of TLS 1.3 judges the client when the handshake is over for the client
            async with connected(securely_to(port, security)) as connection:
                with pytest.raises(ConnectionError) as caught:
                    await anext(connection)
                error = caught.value
                assert caught.value.reason is Reason.PROTOCOL_FAILED
    assert "the peer refused" in str(error)
    assert "certificate" in str(error)


@versions
async def test_its_server_agrees_on_alpn(identities: Identities, version: str) -> None:
    options = (OPENSSL_VERSION[version], "-alpn", "one,two")
    async with s_server(identities.file("server"), *options) as (_, port):
        async with connected(securely_to(port, identities.trusting(alpn=["three", "two"]))) as connection:
            assert connection.get_properties()["security"]["alpn"] == "two"
        error = await refusal(securely_to(port, identities.trusting(alpn="three")))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "no alpn that both sides have" in str(error)


async def test_a_server_that_ignores_alpn_is_refused(identities: Identities) -> None:
    async with s_server(identities.file("server")) as (_, port):
        error = await refusal(securely_to(port, identities.trusting(alpn="three")))
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "three" in str(error)


@versions
async def test_its_server_resumes_our_session(identities: Identities, version: str) -> None:
    async with s_server(identities.file("server"), OPENSSL_VERSION[version]) as (_, port):
        preconnection = securely_to(port, identities.trusting())
        for resumed in (False, True):
            async with connected(preconnection) as connection:
                connection.send(b"abc\n")
                assert await received(connection, 4) == b"cba\n"
                assert connection.get_properties()["security"]["resumed"] is resumed
                await connection.close()


@versions
async def test_its_client_exchanges_messages(identities: Identities, version: str) -> None:
    preconnection = securely_on(identities.serving(), framers=[DelimiterFramer()])
    async with (
        preconnection.listen() as listener,
        s_client(listener, identities, OPENSSL_VERSION[version], "-quiet") as client,
    ):
        connection = await listener.accept()
        client.types(b"a question\n")
        assert (await connection.receive()).data == b"a question"
        connection.send(b"an answer")
        await client.says("an answer")
        client.types(b"the end\n")
        assert (await connection.receive()).data == b"the end"
        await connection.close()
        assert await client.ends() == 0


@versions
async def test_its_client_proves_its_identity(identities: Identities, version: str) -> None:
    security = identities.serving(trusted_certificates=identities.root)
    file = identities.file("client")
    async with (
        securely_on(security).listen() as listener,
        s_client(listener, identities, OPENSSL_VERSION[version], "-cert", file, "-key", file),
    ):
        connection = await listener.accept()
        certificate = connection.get_properties()["security"]["peer_certificate"]
        assert b"the client" in certificate
        connection.abort()


@pytest.mark.parametrize(
    ("presented", "told"),
    [("nothing", r"alert (certificate required|handshake failure)"), ("unknown_client", "alert unknown ca")],
)
@versions
async def test_its_client_is_told_why_it_is_refused(
    identities: Identities, version: str, presented: str, told: str
) -> None:
    security = identities.serving(trusted_certificates=identities.root)
    options = [OPENSSL_VERSION[version]]
    if presented != "nothing":
        file = identities.file(presented)
        options += ["-cert", file, "-key", file]
    async with (
        securely_on(security).listen() as listener,
        s_client(listener, identities, *options) as client,
    ):
        await client.says(told)
        # The Listener goes on, and nothing of the refused client is delivered.
        file = identities.file("client")
        async with s_client(listener, identities, "-cert", file, "-key", file):
            connection = await listener.accept()
            assert b"the client" in connection.get_properties()["security"]["peer_certificate"]
            connection.abort()


@versions
async def test_its_client_agrees_on_alpn(identities: Identities, version: str) -> None:
    async with securely_on(identities.serving(alpn=["two", "three"])).listen() as listener:
        async with s_client(listener, identities, OPENSSL_VERSION[version], "-alpn", "one,two") as client:
            await client.says("ALPN protocol: two")
            connection = await listener.accept()
            assert connection.get_properties()["security"]["alpn"] == "two"
            connection.abort()
        async with s_client(listener, identities, OPENSSL_VERSION[version], "-alpn", "one") as client:
            await client.says("alert no application protocol")


async def test_its_client_finds_no_common_version(identities: Identities) -> None:
    security = identities.serving(allowed_security_protocols="tls_1_3")
    async with (
        securely_on(security).listen() as listener,
        s_client(listener, identities, "-tls1_2") as client,
    ):
        await client.says("alert protocol version")


@versions
async def test_its_client_resumes_a_session_with_our_listener(
    identities: Identities, version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    session = str(tmp_path_factory.mktemp("session") / "session.pem")
    async with securely_on(identities.serving()).listen() as listener:
        for option, told in (("-sess_out", "New, "), ("-sess_in", "Reused, ")):
            options = (OPENSSL_VERSION[version], option, session)
            async with s_client(listener, identities, *options) as client:
                connection = await listener.accept()
                assert connection.get_properties()["security"]["resumed"] is (option == "-sess_in")
                connection.send(b"something, so that tickets of TLS 1.3 are read first\n")
                await client.says("are read first")
                await connection.close()
                await client.ends()
                assert re.search(f"^{told}", client.output, re.MULTILINE)
