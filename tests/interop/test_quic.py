"""QUIC with foreign implementations as the peers of the public API, both ways: aioquic's own asyncio layer, qh3 (Rust),
ngtcp2 (C, by Debian's programs, which speak HTTP/3) and picoquic (C, by aiopquic)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api.loopback import HOST, MIB, port_of, turns, until
from api.quic_loopback import (
    TIME,
    everything_is_given_back,
    exactly,
    streams,
    to_the_end,
    transport_of,
)
from api.relay import Relay, forward
from interop.identities import NAME, Identities
from interop.programs import Program, running
from neatpy import (
    Connection,
    EstablishmentError,
    Listener,
    LocalEndpoint,
    Preconnection,
    Preference,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    SecurityParameters,
    SendError,
    TransportServicesError,
)

pytest.importorskip("aioquic")
from neatpy.stacks._quic.port import ServedTransport

__all__ = ["everything_is_given_back"]
pytestmark = pytest.mark.usefixtures("everything_is_given_back")

BULK = 5 * MIB
PEER = str(Path(__file__).with_name("quic_peer.py"))


CLOSING_CODES = [
    pytest.param("echo", 0, True, id="code 0"),
    pytest.param("h3", 0x100, True, id="H3_NO_ERROR"),
    pytest.param("h3-29", 0x100, True, id="H3_NO_ERROR of a draft"),
    pytest.param("h3", 0x102, False, id="H3_INTERNAL_ERROR"),
    pytest.param("echo", 0x100, False, id="another protocol's 0x100"),
]


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def same(one: bytes, other: bytes) -> bool:
    return hashlib.sha256(one).digest() == hashlib.sha256(other).digest()


def securely_to(port: int, security: SecurityParameters) -> Preconnection:
    remote = RemoteEndpoint(NAME, port, address=HOST, protocol="quic")
    return Preconnection(remote=remote, properties=streams(), security=security)


@asynccontextmanager
async def connected(port: int, security: SecurityParameters) -> AsyncIterator[Connection]:
    connection = securely_to(port, security).initiate(timeout=TIME)
    try:
        yield await connection
    finally:
        connection.abort_group()
        await turns()


async def echo(connection: Connection) -> None:
    """Send back what comes, to its end."""
    try:
        while True:
            message = await connection.receive(min_incomplete_length=1)
            await connection.send(message.data)
    except ReceiveError:
        if connection.can_send:
            connection.send(b"", final=True)


@asynccontextmanager
async def echoing(security: SecurityParameters) -> AsyncIterator[Listener]:
    local = LocalEndpoint(0, address=HOST, protocol="quic")
    async with Preconnection(local=local, properties=streams(), security=security).listen() as listener:
        serving = asyncio.ensure_future(listener.serve(echo, grace=0))
        try:
            yield listener
        finally:
            listener.stop()
            await serving


# aioquic's own asyncio layer, and qh3's, which has the same interface


@pytest.fixture(params=["aioquic", "qh3"])
def package(request: pytest.FixtureRequest) -> str:
    """The name of an installed implementation."""
    name: str = request.param
    pytest.importorskip(name)
    return name


def part(package: str, name: str) -> Any:
    return importlib.import_module(f"{package}.{name}")


@asynccontextmanager
async def foreign_client(package: str, port: int, identities: Identities, **more: Any) -> AsyncIterator[Any]:
    """A client of theirs that verifies us."""
    configuration = part(package, "quic.configuration").QuicConfiguration(
        is_client=True, alpn_protocols=["echo"], server_name=NAME
    )
    configuration.load_verify_locations(identities.file("root"))
    for name, value in more.items():
        setattr(configuration, name, value)
    async with part(package, "asyncio").connect(HOST, port, configuration=configuration) as client:
        yield client
    await turns()


async def asked(client: Any, data: bytes) -> bytes:
    """What comes back on a stream of its own."""
    reader, writer = await client.create_stream()
    writer.write(data)
    writer.write_eof()
    back: bytes = await asyncio.wait_for(reader.read(), TIME)
    return back


async def test_their_client_exchanges_streams(package: str, identities: Identities) -> None:
    async with (
        echoing(identities.serving(alpn="echo")) as listener,
        foreign_client(package, port_of(listener), identities) as client,
    ):
        for number in range(10):
            assert await asked(client, b"number %d" % number) == b"number %d" % number
        many = await asyncio.gather(*(asked(client, payload(size)) for size in range(1, 10_000, 500)))
        assert [len(each) for each in many] == list(range(1, 10_000, 500))


async def test_a_client_without_streams_is_let_go_after_a_while(
    identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neatpy.stacks._quic.port.SPARE_TIME", 0.1)
    async with (
        echoing(identities.serving(alpn="echo")) as listener,
        foreign_client("aioquic", port_of(listener), identities) as client,
    ):
        assert await asked(client, b"the only one") == b"the only one"
        await asyncio.wait_for(client.wait_closed(), TIME)


async def test_a_client_without_streams_is_let_go_when_the_listener_stops(identities: Identities) -> None:
    async with (
        echoing(identities.serving(alpn="echo")) as listener,
        foreign_client("aioquic", port_of(listener), identities) as client,
    ):
        assert await asked(client, b"the only one") == b"the only one"
        await turns(20)
        await listener.stop()
        await asyncio.wait_for(client.wait_closed(), TIME)


async def test_their_client_is_refused_while_only_what_was_accepted_lives_on(
    package: str, identities: Identities
) -> None:
    local = LocalEndpoint(0, address=HOST, protocol="quic")
    here = Preconnection(local=local, properties=streams(), security=identities.serving(alpn="echo"))
    async with here.listen() as listener, foreign_client(package, port_of(listener), identities) as client:
        reader, writer = await client.create_stream()
        writer.write(b"ping")
        accepted = await asyncio.wait_for(listener.accept(), TIME)
        await listener.stop()
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(TIME), foreign_client(package, port_of(listener), identities):
                pass
        writer.write_eof()
        await accepted.send(b"pong", final=True)
        assert await asyncio.wait_for(reader.read(), TIME) == b"pong"
        await asyncio.wait_for(accepted.close(), TIME)


async def test_their_client_exchanges_bulk(package: str, identities: Identities) -> None:
    async with (
        echoing(identities.serving(alpn="echo")) as listener,
        foreign_client(package, port_of(listener), identities) as client,
    ):
        assert same(await asked(client, payload(BULK)), payload(BULK))


async def test_their_client_sends_unidirectional_streams(package: str, identities: Identities) -> None:
    local = LocalEndpoint(0, address=HOST, protocol="quic")
    preconnection = Preconnection(local=local, properties=streams(), security=identities.serving(alpn="echo"))
    async with (
        preconnection.listen() as listener,
        foreign_client(package, port_of(listener), identities) as client,
    ):
        _, writer = await client.create_stream(is_unidirectional=True)
        writer.write(payload(100_000))
        writer.write_eof()
        one_way = await asyncio.wait_for(listener.accept(), TIME)
        with pytest.raises(SendError):
            await one_way.send(b"x")
        assert await to_the_end(one_way) == payload(100_000)
        await asyncio.wait_for(one_way.close(), TIME)


async def test_their_client_exchanges_datagrams_beside_a_stream(package: str, identities: Identities) -> None:
    local = LocalEndpoint(0, address=HOST, protocol="quic")
    properties = streams(per_msg_reliability=Preference.REQUIRE)
    preconnection = Preconnection(
        local=local, properties=properties, security=identities.serving(alpn="echo")
    )
    async with (
        preconnection.listen() as listener,
        foreign_client(package, port_of(listener), identities, max_datagram_frame_size=65535) as client,
    ):
        received: asyncio.Queue[bytes] = asyncio.Queue()
        told = client.quic_event_received

        def note(event: Any) -> None:
            told(event)
            if type(event).__name__ == "DatagramFrameReceived":
                received.put_nowait(bytes(event.data))

        client.quic_event_received = note
        reader, writer = await client.create_stream()
        writer.write(b"surely")
        server = await asyncio.wait_for(listener.accept(), TIME)
        assert await exactly(server, 6) == b"surely"
        client._quic.send_datagram_frame(b"perhaps")
        client.transmit()
        message = await asyncio.wait_for(server.receive(), TIME)
        assert (bytes(message), message.context.msg_reliable) == (b"perhaps", False)
        server.send(b"perhaps too", msg_reliable=False)
        server.send(b"surely too", final=True)
        assert await asyncio.wait_for(received.get(), TIME) == b"perhaps too"
        assert await asyncio.wait_for(reader.read(), TIME) == b"surely too"
        writer.write_eof()


@pytest.mark.parametrize(("alpn", "code", "well"), CLOSING_CODES)
async def test_a_client_that_has_all_and_closes_without_acknowledging_it(
    identities: Identities, alpn: str, code: int, well: bool
) -> None:
    """As some do. Whether that is well is said by the code, in the words of the application protocol."""
    local = LocalEndpoint(0, address=HOST, protocol="quic")
    preconnection = Preconnection(local=local, properties=streams(), security=identities.serving(alpn=alpn))
    async with (
        preconnection.listen() as listener,
        foreign_client("aioquic", port_of(listener), identities, alpn_protocols=[alpn]) as client,
    ):
        quic, told = client._quic, client.quic_event_received

        def close_at_the_end(event: Any) -> None:
            told(event)
            if getattr(event, "end_stream", False):
                quic.close(code)

        client.quic_event_received = close_at_the_end
        _, writer = await client.create_stream()
        writer.write(b"a question")
        writer.write_eof()
        server = await asyncio.wait_for(listener.accept(), TIME)
        assert await to_the_end(server) == b"a question"
        ended: list[object] = []
        server.on_closed = lambda _: ended.append(None)
        server.on_connection_error = lambda _, error: ended.append(error.reason)
        await server.send(b"an answer", final=True)
        await asyncio.wait_for(client.wait_closed(), TIME)
        if well:
            await asyncio.wait_for(server.close(), TIME)
        await until(lambda: bool(ended))
        assert ended == [None if well else Reason.CONNECTION_ABORTED]


async def test_their_client_takes_streams_that_we_open(identities: Identities) -> None:
    local = LocalEndpoint(0, address=HOST, protocol="quic")
    preconnection = Preconnection(local=local, properties=streams(), security=identities.serving(alpn="echo"))
    reading: list[asyncio.Future[bytes]] = []

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        reading.append(asyncio.ensure_future(reader.read()))

    configuration = part("aioquic", "quic.configuration").QuicConfiguration(
        is_client=True, alpn_protocols=["echo"], server_name=NAME
    )
    configuration.load_verify_locations(identities.file("root"))
    async with preconnection.listen() as listener:
        arriving = part("aioquic", "asyncio").connect(
            HOST, port_of(listener), configuration=configuration, stream_handler=handle
        )
        async with arriving:
            server = await listener.accept()
            clone = await server.clone()
            await clone.send(payload(50_000), final=True)
            await until(lambda: reading)
            assert await asyncio.wait_for(reading[0], TIME) == payload(50_000)
            server.abort_group()
        await turns()


async def test_their_client_speaks_version_2(identities: Identities) -> None:
    from aioquic.quic.packet import QuicProtocolVersion

    versions = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]
    async with (
        echoing(identities.serving(alpn="echo")) as listener,
        foreign_client(
            "aioquic",
            port_of(listener),
            identities,
            original_version=QuicProtocolVersion.VERSION_2,
            supported_versions=versions,
        ) as client,
    ):
        assert await asked(client, b"second") == b"second"


async def test_their_client_that_we_do_not_suit_is_refused(package: str, identities: Identities) -> None:
    async with echoing(identities.serving(alpn="something else")) as listener:
        with pytest.raises(ConnectionError):
            async with foreign_client(package, port_of(listener), identities):
                pass
        await turns()


async def test_their_clients_certificate_is_verified(identities: Identities) -> None:
    security = identities.serving(alpn="echo", trusted_certificates=identities.root)
    own = identities.file("client")
    async with echoing(security) as listener:
        configuration = part("aioquic", "quic.configuration").QuicConfiguration(
            is_client=True, alpn_protocols=["echo"], server_name=NAME
        )
        configuration.load_verify_locations(identities.file("root"))
        configuration.load_cert_chain(own, own)
        async with part("aioquic", "asyncio").connect(
            HOST, port_of(listener), configuration=configuration
        ) as client:
            assert await asked(client, b"known") == b"known"
        await turns()


@asynccontextmanager
async def aioquics_server(identities: Identities, **more: Any) -> AsyncIterator[int]:
    """Echoes; gives its port."""
    own = identities.file("server")
    configuration = part("aioquic", "quic.configuration").QuicConfiguration(
        is_client=False, alpn_protocols=["echo"]
    )
    configuration.load_cert_chain(own, own)
    tasks: set[asyncio.Future[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.write_eof()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(answer(reader, writer)))

    server = await part("aioquic", "asyncio").serve(
        HOST, 0, configuration=configuration, stream_handler=handle, **more
    )
    transport: Any = server._transport
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await turns()


@pytest.mark.parametrize("retry", [False, True], ids=["at once", "with retry"])
async def test_aioquics_server_exchanges_streams_and_bulk(identities: Identities, retry: bool) -> None:
    async with (
        aioquics_server(identities, retry=retry) as port,
        connected(port, identities.trusting(alpn="echo")) as client,
    ):
        clones = [await client.clone() for _ in range(10)]
        for number, clone in enumerate(clones):
            clone.send(b"number %d" % number, final=True)
        for number, clone in enumerate(clones):
            assert await to_the_end(clone) == b"number %d" % number
        client.send(payload(BULK), final=True)
        assert same(await to_the_end(client), payload(BULK))


async def test_aioquics_server_under_another_name_is_refused(identities: Identities) -> None:
    async with aioquics_server(identities) as port:
        remote = RemoteEndpoint("other.example", port, address=HOST, protocol="quic")
        with pytest.raises(EstablishmentError, match=r"not valid for 'other.example'"):
            await Preconnection(
                remote=remote, properties=streams(), security=identities.trusting(alpn="echo")
            ).initiate(timeout=TIME)


# ngtcp2, which speaks HTTP/3: its frames and a little of QPACK's static table by hand

needs_ngtcp2_client = pytest.mark.needs_program("gtlsclient")
needs_ngtcp2_server = pytest.mark.needs_program("gtlsserver")
OK = b"\x00\x00\xd9"  # a field section that says :status 200


def h3_frame(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + (len(body) | 0x80000000).to_bytes(4, "big") + body


def h3_get(path: bytes) -> bytes:
    """A request for a path of the peer."""
    name = NAME.encode()
    fields = b"\x00\x00\xd1\xd7" + b"\x50" + bytes([len(name)]) + name + b"\x51" + bytes([len(path)]) + path
    return h3_frame(1, fields)


def h3_body(data: bytes) -> bytes:
    """The DATA frames of a response, after its header."""
    body, at = b"", 0
    while at < len(data):
        kind, at = _varint(data, at)
        size, at = _varint(data, at)
        if kind == 0:
            body += data[at : at + size]
        at += size
    return body


def _varint(data: bytes, at: int) -> tuple[int, int]:
    size = 1 << (data[at] >> 6)
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


@needs_ngtcp2_client
async def test_ngtcp2s_client_downloads(identities: Identities, tmp_path: Path) -> None:
    async def answer(connection: Connection) -> None:
        first = await connection.receive(min_incomplete_length=1)
        if first.data[:1] == b"\1":  # a request; what else comes are HTTP/3's own streams
            connection.send(h3_frame(1, OK) + h3_frame(0, payload(BULK)), final=True)
        with contextlib.suppress(ConnectionError):  # it closes when it has everything
            await to_the_end(connection)

    local = LocalEndpoint(0, address=HOST, protocol="quic")
    preconnection = Preconnection(local=local, properties=streams(), security=identities.serving(alpn="h3"))
    async with preconnection.listen() as listener:
        serving = asyncio.ensure_future(listener.serve(answer, grace=0))
        url = f"https://{NAME}:{port_of(listener)}/bulk"
        options = ("-q", "--exit-on-all-streams-close", "--download", str(tmp_path))
        async with running("gtlsclient", *options, HOST, str(port_of(listener)), url) as client:
            await client.ends(TIME)
        listener.stop()
        await serving
    assert same((tmp_path / "bulk").read_bytes(), payload(BULK))


@needs_ngtcp2_server
async def test_ngtcp2s_server_is_downloaded_from(
    identities: Identities, tmp_path: Path, free_port: int
) -> None:
    (tmp_path / "bulk").write_bytes(payload(BULK))
    (tmp_path / "small").write_bytes(b"a small file")
    own = identities.file("server")
    command = ("gtlsserver", "-q", "-d", str(tmp_path), HOST, str(free_port), own, own)
    async with (
        running(*command) as server,
        await answered(server, free_port, identities.trusting(alpn="h3")) as client,
    ):
        client.send(h3_get(b"/bulk"), final=True)
        clone = await client.clone()
        clone.send(h3_get(b"/small"), final=True)
        assert h3_body(await to_the_end(clone)) == b"a small file"
        assert same(h3_body(await to_the_end(client)), payload(BULK))
        client.abort_group()


@needs_ngtcp2_client
async def test_ngtcp2s_client_takes_the_reset_of_a_listener_that_has_lost_the_connection(
    identities: Identities,
) -> None:
    local = LocalEndpoint(0, address=HOST, protocol="quic")
    security = identities.serving(alpn="h3")

    def handshake_only(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
        return (datagram,) if from_client or datagram[0] & 0x80 else ()

    async with (
        Preconnection(local=local, properties=streams(), security=security).listen() as listener,
        Relay.to(port_of(listener), handshake_only) as relay,
        running("gtlsclient", HOST, str(relay.port), f"https://{NAME}/") as client,
    ):
        server = await asyncio.wait_for(listener.accept(), TIME)
        transport = transport_of(server)
        assert isinstance(transport, ServedTransport)
        server.abort_group()
        await until(lambda: not transport.ids)
        relay.decide = forward
        await client.ends(TIME)
        assert re.search("pkt rx .* SR token=", client.output)


async def answered(server: Program, port: int, security: SecurityParameters) -> Connection:
    """A Connection to a program that needs a moment until it listens; HTTP/3's own streams are taken."""
    while True:
        client = securely_to(port, security).initiate(timeout=TIME)
        client.on_connection_received = lambda _, control: None
        with contextlib.suppress(EstablishmentError):
            return await client
        assert not server.ended, server.output
        await asyncio.sleep(0.01)


# picoquic


@pytest.fixture(scope="module")
def other_python() -> str:
    """A Python that has aiopquic."""
    for name in (sys.executable, "python3", "python3.12", "python3.13", "python3.14"):
        path = shutil.which(name)
        if (
            path is not None
            and not subprocess.run(
                [path, "-c", "import aiopquic"], capture_output=True, env={"PATH": os.environ["PATH"]}
            ).returncode
        ):
            return path
    pytest.skip("needs aiopquic, in this Python or another one: not installed")


async def test_picoquics_client_exchanges_streams_and_bulk(identities: Identities, other_python: str) -> None:
    async with echoing(identities.serving(alpn="echo")) as listener:
        arguments = (PEER, "ask", str(port_of(listener)), identities.file("root"), str(BULK))
        async with running(other_python, *arguments) as client:
            await client.says("done", TIME)
            assert client.output.count("echoed") == 3


async def test_picoquics_server_exchanges_streams_and_bulk(
    identities: Identities, other_python: str, free_port: int
) -> None:
    async with running(other_python, PEER, "serve", str(free_port), identities.file("server")) as server:
        await server.says("listening")
        async with connected(free_port, identities.trusting(alpn="echo")) as client:
            clones = [await client.clone() for _ in range(5)]
            for number, clone in enumerate(clones):
                clone.send(b"number %d" % number)
            for number, clone in enumerate(clones):
                assert await exactly(clone, 8) == b"number %d" % number
            client.send(payload(BULK), final=True)
            assert same(await exactly(client, BULK), payload(BULK))


async def test_a_reset_of_picoquics_server_that_has_given_up_is_taken(
    identities: Identities, other_python: str, free_port: int
) -> None:
    async with (
        running(other_python, PEER, "serve", str(free_port), identities.file("server")) as server,
        Relay.to(free_port) as relay,
    ):
        await server.says("listening")
        security, properties = identities.trusting(alpn="echo"), streams(conn_timeout=0.4)
        remote = RemoteEndpoint(NAME, relay.port, address=HOST, protocol="quic")
        client = Preconnection(remote=remote, properties=properties, security=security).initiate(timeout=TIME)
        await client
        client.send(b"a question")
        assert await exactly(client, 10) == b"a question"
        client.set_property("conn_timeout", 60)  # theirs stays what they were told
        light = time.monotonic() + 1.2
        relay.decide = lambda datagram, *_: (datagram,) if time.monotonic() > light else ()
        ends: asyncio.Future[TransportServicesError] = asyncio.get_running_loop().create_future()
        client.on_connection_error = lambda _, error: ends.set_result(error)
        client.send(b"another one")
        error = await asyncio.wait_for(ends, TIME)
        assert error.reason is Reason.CONNECTION_ABORTED
        assert "stateless reset" in str(error)
