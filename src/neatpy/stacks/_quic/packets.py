"""Packets read and written without a connection: headers, Retry, Version Negotiation, refusals (RFC 9000 section 17).

Encryption and encoding are the engine library's; this room knows no socket and no connection.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aioquic._buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.retry import QuicRetryTokenHandler

from neatpy.stacks._quic.engine import CONNECTION_ID_LENGTH, SMALLEST_DATAGRAM

if TYPE_CHECKING:
    from aioquic.quic.packet import QuicHeader

    from neatpy.system.datagram_options import SocketAddress

VERSIONS = [int(QuicProtocolVersion.VERSION_1), int(QuicProtocolVersion.VERSION_2)]

SHORT_HEADERS_ID = slice(1, 1 + CONNECTION_ID_LENGTH)
"""Where a packet with a short header has the destination's connection id, which is one that we gave out."""

_LONG, _FIXED = 0x80, 0x40
_LARGEST_CLOSE = 32


class Header:
    """What stands in clear at the start of a packet."""

    __slots__ = ("destination_id", "is_long", "parsed", "source_id", "token", "version")

    def __init__(self, destination_id: bytes, parsed: QuicHeader | None) -> None:
        self.destination_id = destination_id
        self.parsed = parsed
        self.is_long = parsed is not None
        self.source_id = b"" if parsed is None else parsed.source_cid
        self.token = b"" if parsed is None else parsed.token
        self.version = None if parsed is None else parsed.version

    @property
    def is_known_version(self) -> bool:
        """Whether we speak this version."""
        return self.version in VERSIONS


def read_header(datagram: bytes) -> Header | None:
    """The header of a datagram's first packet, or None if this cannot be QUIC."""
    if len(datagram) < 1 + CONNECTION_ID_LENGTH:
        return None
    first = datagram[0]
    if not first & _LONG:
        if not first & _FIXED:
            return None
        return Header(datagram[SHORT_HEADERS_ID], None)
    try:
        parsed = pull_quic_header(Buffer(data=datagram), host_cid_length=CONNECTION_ID_LENGTH)
    except ValueError:
        return None
    return Header(parsed.destination_cid, parsed)


def is_initial(header: Header, datagram: bytes) -> bool:
    """Whether this may begin a connection."""
    parsed = header.parsed
    return (
        parsed is not None
        and parsed.packet_type is QuicPacketType.INITIAL
        and len(datagram) >= SMALLEST_DATAGRAM
        and len(header.destination_id) >= 8
    )


def version_negotiation(header: Header, datagram: bytes) -> bytes | None:
    """The answer to a version that we do not speak; None if this is not to be answered."""
    parsed = header.parsed
    if parsed is None or not parsed.version or len(datagram) < SMALLEST_DATAGRAM:
        return None
    return encode_quic_version_negotiation(
        source_cid=header.destination_id, destination_cid=header.source_id, supported_versions=VERSIONS
    )


def retry(header: Header, new_id: bytes, token: bytes) -> bytes:
    """Ask a client to prove its address by coming again with this token, to this connection id."""
    assert header.version is not None
    return encode_quic_retry(
        version=header.version,
        source_cid=new_id,
        destination_cid=header.source_id,
        original_destination_cid=header.destination_id,
        retry_token=token,
    )


def refusal(header: Header) -> bytes:
    """Tell a client that nobody takes its connection (RFC 9000 section 5.2.2)."""
    assert header.version is not None
    keys = CryptoPair()
    keys.setup_initial(cid=header.destination_id, is_client=False, version=header.version)
    builder = QuicPacketBuilder(
        host_cid=os.urandom(CONNECTION_ID_LENGTH),
        peer_cid=header.source_id,
        version=header.version,
        is_client=False,
        max_datagram_size=SMALLEST_DATAGRAM,
    )
    builder.start_packet(QuicPacketType.INITIAL, keys)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=_LARGEST_CLOSE)
    for value in (
        QuicErrorCode.CONNECTION_REFUSED,
        QuicFrameType.PADDING,
        0,
    ):  # because of no frame; no reason
        frame.push_uint_var(value)
    (datagram,), _ = builder.flush()
    return bytes(datagram)


class RetryTokens:
    """Makes and proves the tokens of one port."""

    __slots__ = ("_handler",)

    def __init__(self) -> None:
        self._handler = QuicRetryTokenHandler()

    def make(self, header: Header, source: SocketAddress, new_id: bytes, now: float) -> bytes:
        """A token for this client at this address."""
        return self._handler.create_token(
            address=_plain(source),
            original_destination_connection_id=header.destination_id,
            retry_source_connection_id=new_id,
            now=now,
        )

    def original_id(self, header: Header, source: SocketAddress, now: float) -> bytes | None:
        """The connection id that the client came with first, if its token proves its address."""
        try:
            return self._handler.validate_token(
                address=_plain(source), destination_cid=header.destination_id, token=header.token, now=now
            )
        except ValueError:
            return None


def _plain(source: SocketAddress) -> SocketAddress:
    return (str(source[0]).partition("%")[0], source[1])
