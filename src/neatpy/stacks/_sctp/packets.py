"""What can be told of an SCTP packet alone: whether its checksum is right, and whether it opens an association.

Pure functions over bytes; used to part SCTP from whatever else comes to a shared UDP port.
"""

from __future__ import annotations

import struct

_COMMON_HEADER = struct.Struct("!HHI")
_LITTLE = struct.Struct("<I")
_CHECKSUM_AT, _CHUNKS_AT = 8, 12
_INIT = 1
_SMALLEST_INIT = 20  # chunk header and the fixed parameters
_CASTAGNOLI = 0x82F63B78  # reflected


def crc32c(data: bytes, value: int = 0) -> int:
    """The CRC-32C of ``data``, continuing from the ``value`` of what came before it (RFC 9260 appendix A)."""
    table = _TABLE
    value ^= 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def checksum_is_right(packet: bytes) -> bool:
    """Whether the packet's checksum field holds the CRC-32C of the packet with that field zero."""
    if len(packet) < _CHUNKS_AT:
        return False
    sent = _LITTLE.unpack_from(packet, _CHECKSUM_AT)[0]
    value = crc32c(packet[:_CHECKSUM_AT])
    return bool(crc32c(packet[_CHUNKS_AT:], crc32c(bytes(4), value)) == sent)


def is_init(packet: bytes) -> bool:
    """Whether this is a packet that asks for a new association: one INIT chunk alone, verification tag 0, both ports
    given, and the checksum right (RFC 9260 sections 3.3.2 and 8.5.1)."""
    if len(packet) < _CHUNKS_AT + _SMALLEST_INIT or packet[_CHUNKS_AT] != _INIT:
        return False
    source_port, destination_port, tag = _COMMON_HEADER.unpack_from(packet)
    length = int.from_bytes(packet[_CHUNKS_AT + 2 : _CHUNKS_AT + 4], "big")
    alone = length >= _SMALLEST_INIT and _CHUNKS_AT + (length + 3) // 4 * 4 == len(packet)
    return bool(source_port and destination_port and not tag and alone and checksum_is_right(packet))


def destination_port(packet: bytes) -> int:
    """The SCTP port that a packet of at least twelve bytes is for."""
    return int.from_bytes(packet[2:4], "big")


def _table() -> tuple[int, ...]:
    entries = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_TABLE = _table()
