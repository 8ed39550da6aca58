"""aiortc as the peer: its SCTP in its DTLS, as WebRTC's data channels have them, over a plain UDP socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from api.loopback import HOST, available, messages, port_of, until
from interop.identities import NAME, Identities
from neatpy import (
    Certificate,
    Connection,
    LocalEndpoint,
    MessageContext,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
)

STACK = "sctp/dtls/udp"
SCTP_PORT = 5000
BINARY = 53
"""The payload protocol identifier of WebRTC's binary data (RFC 8831 section 8)."""
TIME = 10.0

dtls_transport: Any = pytest.importorskip("aiortc.rtcdtlstransport", reason="needs aiortc: not installed")
sctp_transport: Any = pytest.importorskip("aiortc.rtcsctptransport", reason="needs aiortc: not installed")

pytestmark = pytest.mark.skipif(not available(STACK), reason=f"{STACK} is not available here")


@pytest.fixture(autouse=True)
def _small_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiortc reads no more than 1500 bytes of a datagram, and loopback takes more."""
    from neatpy.stacks._sctp import secure_carrier

    monkeypatch.setattr(secure_carrier, "LARGEST_PACKET", 1200)


class Datagrams(asyncio.DatagramProtocol):
    """Stands for ICE: one UDP socket and one peer."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.peer: Any = None
        self.socket: asyncio.DatagramTransport
        self._came: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.socket = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.peer = address
        self._came.put_nowait(data)

    async def _recv(self) -> bytes:
        return await self._came.get()

    async def _send(self, data: bytes) -> None:
        self.socket.sendto(data, self.peer)


class WithoutMedia(dtls_transport.RTCDtlsTransport):
    """DTLS for data alone: no keys for SRTP are asked for."""

    def _setup_srtp(self) -> None:
        """None were negotiated."""


class Peer(sctp_transport.RTCSctpTransport):
    """An association of aiortc that sends and receives Messages as they are, without data channels."""

    def __init__(self, dtls: WithoutMedia, port: int) -> None:
        super().__init__(dtls, port)
        self.dtls = dtls
        self.came: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        self.came.put_nowait((stream_id, pp_id, data))

    async def receive(self) -> tuple[int, int, bytes]:
        return await asyncio.wait_for(self.came.get(), TIME)

    @property
    def established(self) -> bool:
        return bool(self._association_state == self.State.ESTABLISHED)


def _identity(certificate: Certificate) -> Any:
    chain = x509.load_pem_x509_certificates(certificate.certificate_chain)
    key = load_pem_private_key(certificate.private_key, certificate.password)
    return dtls_transport.RTCCertificate(key=key, cert=chain[0])


def _fingerprints(certificate: Certificate) -> Any:
    return dtls_transport.RTCDtlsParameters(fingerprints=_identity(certificate).getFingerprints())


@asynccontextmanager
async def aiortc(
    identities: Identities, sctp_port: int, server_port: int | None = None
) -> AsyncIterator[tuple[Peer, int, asyncio.Future[None]]]:
    """aiortc as a client of a server's port, or as a server; with its UDP port and the task that shakes hands."""
    loop = asyncio.get_running_loop()
    below = Datagrams("controlled" if server_port else "controlling")
    await loop.create_datagram_endpoint(lambda: below, local_addr=(HOST, 0))
    ours, theirs = (
        (identities.client, identities.server) if server_port else (identities.server, identities.client)
    )
    dtls = WithoutMedia(below, [_identity(ours)])
    peer = Peer(dtls, sctp_port)

    async def start() -> None:
        await dtls.start(_fingerprints(theirs))
        assert dtls.state == "connected"
        await peer.start(None, sctp_port)

    if server_port:
        below.peer = (HOST, server_port)
    starting = asyncio.ensure_future(start())
    try:
        yield peer, below.socket.get_extra_info("sockname")[1], starting
    finally:
        starting.cancel()
        await asyncio.wait([starting])
        await peer.stop()
        await dtls.stop()
        below.socket.close()


async def _talk(connection: Connection, peer: Peer) -> None:
    await until(lambda: peer.established)
    context = MessageContext()
    context.set("_neatpy.payload_protocol_id", BINARY)
    for size in (1, 1000, 60_000):
        connection.send(bytes(size), context.copy())
        assert await peer.receive() == (0, BINARY, bytes(size))
    for size in (1, 1000, 60_000):
        await peer._send(0, BINARY, b"x" * size)
        message = await asyncio.wait_for(connection.receive(), TIME)
        assert message.data == b"x" * size
        assert message.context.get("_neatpy.payload_protocol_id") == BINARY


async def test_as_a_server_it_is_reached_although_both_sides_ask_for_the_association(
    identities: Identities,
) -> None:
    async with aiortc(identities, SCTP_PORT) as (peer, udp_port, _):
        there = RemoteEndpoint(NAME, SCTP_PORT, address=HOST, protocol=STACK)
        connection = Preconnection(
            remote=there,
            properties=messages(**{"_neatpy.encapsulation_port": udp_port}),
            security=identities.trusting(client_certificate=identities.client),
        ).initiate(timeout=TIME)
        async with connection:
            assert connection.stack == STACK
            await _talk(connection, peer)
        await until(lambda: not peer.established)


async def test_as_a_client_it_reaches_a_listener(identities: Identities) -> None:
    here = LocalEndpoint(0, address=HOST, protocol=STACK)
    security = identities.serving(trusted_certificates=identities.root)
    async with Preconnection(local=here, properties=messages(), security=security).listen() as listener:
        port = port_of(listener)
        async with aiortc(identities, port, port) as (peer, _, starting):
            await asyncio.wait_for(starting, TIME)
            connection = await asyncio.wait_for(listener.accept(), TIME)
            assert connection.stack == STACK
            shown = connection.get_properties()["security"]
            assert shown["peer_certificate"] == identities.client.der()[0]
            await _talk(connection, peer)
            await peer._abort()
            with pytest.raises(ReceiveError) as caught:
                await asyncio.wait_for(connection.receive(), TIME)
            assert caught.value.reason is Reason.CONNECTION_ABORTED
