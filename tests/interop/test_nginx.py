"""nginx as the peer: HTTP over TLS, raw and through a framer for lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from interop.identities import NAME, Identities
from interop.meetings import connected, refusal, securely_to, versions
from interop.programs import running
from neatpy import Reason
from neatpy.framers import DelimiterFramer

pytestmark = pytest.mark.needs_program("nginx")

CONFIGURATION = """
daemon off; master_process off; pid {directory}/pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate}; ssl_certificate_key {certificate};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:sessions:1m;
        ssl_client_certificate {root}; ssl_verify_client optional;
        default_type text/plain;
        location / {{ return 200 "first line\\r\\nsecond line\\r\\n"; }}
        location /who {{ return 200 "$ssl_client_verify $ssl_client_s_dn $ssl_protocol $ssl_session_reused\\r\\n"; }}
        # Else it resets clients whose close_notify came before the end of its response, and that loses the rest.
        location /large {{ lingering_close always; alias {directory}/large; }}
    }}
}}
"""
LARGE = bytes(range(256)) * 4096


@asynccontextmanager
async def nginx(directory: Path, port: int, identities: Identities) -> AsyncIterator[int]:
    """nginx with its own configuration; gives the port."""
    directory.joinpath("large").write_bytes(LARGE)
    configuration = directory / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            directory=directory,
            port=port,
            certificate=identities.file("server"),
            root=identities.file("root"),
        )
    )
    command = ("nginx", "-e", "stderr", "-p", str(directory), "-c", str(configuration))
    async with running(*command) as program:
        await program.listens(port)
        yield port


@pytest.fixture
async def port(tmp_path: Path, free_port: int, identities: Identities) -> AsyncIterator[int]:
    """The port of an nginx of this test's own."""
    async with nginx(tmp_path, free_port, identities) as port:
        yield port


def request(path: str) -> bytes:
    """A request after which the server closes."""
    return f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()


@versions
async def test_a_response_is_one_message_of_an_unframed_stream(
    port: int, identities: Identities, version: str
) -> None:
    security = identities.trusting(allowed_security_protocols=version)
    async with connected(securely_to(port, security)) as connection:
        await connection.send(request("/who"))
        message = await connection.receive()
        assert message.end_of_message
        head, _, body = message.data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == f"NONE  {version.replace('_', '').replace('tls1', 'TLSv1.')} .\r\n".encode()
        assert connection.stack == "tls/tcp"
        await connection.close()


async def test_lines_of_a_response_are_messages_of_a_delimiter_framer(
    port: int, identities: Identities
) -> None:
    preconnection = securely_to(port, identities.trusting(), framers=[DelimiterFramer(b"\r\n")])
    async with connected(preconnection) as connection:
        with connection.batch():
            for line in (b"GET / HTTP/1.1", b"Host: " + NAME.encode(), b"Connection: close", b""):
                connection.send(line)
        lines = [message.data async for message in connection]
        assert lines[0] == b"HTTP/1.1 200 OK"
        assert b"Content-Length: 25" in lines
        assert lines[-3:] == [b"", b"first line", b"second line"]
        await connection.close()


async def test_several_exchanges_share_a_connection(port: int, identities: Identities) -> None:
    preconnection = securely_to(port, identities.trusting(), framers=[DelimiterFramer(b"\r\n")])
    async with connected(preconnection) as connection:
        for _ in range(3):
            for line in (b"GET / HTTP/1.1", b"Host: " + NAME.encode(), b""):
                connection.send(line)
            lines = []
            while b"second line" not in lines:
                lines.append((await connection.receive()).data)
            assert lines[0] == b"HTTP/1.1 200 OK"
        await connection.close()


@versions
async def test_a_large_response_comes_whole(port: int, identities: Identities, version: str) -> None:
    # Not after a Final of ours: nginx may take a client that says close_notify for one that has gone.
    security = identities.trusting(allowed_security_protocols=version)
    async with connected(securely_to(port, security)) as connection:
        await connection.send(request("/large"))
        _, _, body = (await connection.receive()).data.partition(b"\r\n\r\n")
        assert body == LARGE


async def test_a_client_certificate_is_presented(port: int, identities: Identities) -> None:
    security = identities.trusting(client_certificate=identities.client)
    async with connected(securely_to(port, security)) as connection:
        await connection.send(request("/who"))
        assert b"SUCCESS CN=the client" in (await connection.receive()).data


@versions
async def test_a_second_connection_resumes_the_session(
    port: int, identities: Identities, version: str
) -> None:
    preconnection = securely_to(port, identities.trusting(allowed_security_protocols=version))
    for resumed, told in ((False, b" .\r\n"), (True, b" r\r\n")):
        async with connected(preconnection) as connection:
            await connection.send(request("/who"))
            assert (await connection.receive()).data.endswith(told)
            assert connection.get_properties()["security"]["resumed"] is resumed
            await connection.close()


async def test_no_common_alpn_is_refused(port: int, identities: Identities) -> None:
    error = await refusal(securely_to(port, identities.trusting(alpn="no-http")))
    assert error.reason is Reason.ESTABLISHMENT_FAILED
    assert "alpn" in str(error)


async def test_alpn_chooses_what_both_have(port: int, identities: Identities) -> None:
    security = identities.trusting(alpn=["no-http", "http/1.1"])
    async with connected(securely_to(port, security)) as connection:
        assert connection.get_properties()["security"]["alpn"] == "http/1.1"
