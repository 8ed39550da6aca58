"""DTLS records as bytes (RFC 6347 section 4.1): telling them from other datagrams, and packing them into datagrams.

This room decides nothing about security; whatever is malformed is left for the library, which drops it.
"""

from __future__ import annotations

HEADER = 13
LARGEST = 16384
"""Most bytes of plaintext in one record."""

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA = range(20, 24)
_CLIENT_HELLO = 1
_VERSIONS = (b"\xfe\xff", b"\xfe\xfd")  # 1.0, which a first ClientHello may still say, and 1.2
_FIRST_EPOCH = b"\x00\x00"
_SHORTEST_HELLO = HEADER + 12 + 34

REFUSAL = b"\x15\xfe\xfd" + _FIRST_EPOCH + b"\x7f\xff\xff\xff\xff\xff" + b"\x00\x02" + b"\x02\x2e"
"""The fatal alert certificate_unknown, of before anything is encrypted and numbered so that it is no replay."""


def is_record(datagram: bytes) -> bool:
    """Whether a datagram begins as a DTLS record does (RFC 7983)."""
    return (
        len(datagram) >= HEADER
        and _CHANGE_CIPHER_SPEC <= datagram[0] <= _APPLICATION_DATA
        and datagram[1:3] in _VERSIONS
    )


def is_client_hello(datagram: bytes) -> bool:
    """Whether a datagram begins with a ClientHello, with which a new association begins."""
    return (
        is_record(datagram)
        and len(datagram) >= _SHORTEST_HELLO
        and datagram[0] == _HANDSHAKE
        and datagram[3:5] == _FIRST_EPOCH
        and datagram[HEADER] == _CLIENT_HELLO
    )


def is_single(datagram: bytes) -> bool:
    """Whether a datagram holds exactly one record."""
    return len(datagram) == HEADER + int.from_bytes(datagram[11:13], "big")


def packed(records: bytes, mtu: int) -> list[bytes]:
    """Several records as few datagrams of at most ``mtu`` bytes; a record is never divided."""
    datagrams = []
    start = end = 0
    while end < len(records):
        following = end + HEADER + int.from_bytes(records[end + 11 : end + HEADER], "big")
        if following - start > mtu and end > start:
            datagrams.append(records[start:end])
            start = end
        end = following
    if end > start:
        datagrams.append(records[start:end])
    return datagrams
