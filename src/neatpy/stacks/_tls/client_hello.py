"""What a ClientHello offers, read from its bytes: ``ssl`` cannot refuse a client whose ALPN has nothing in common.

This room parses and decides nothing; whatever is malformed is left for the TLS library to complain about, which knows
better what is wrong with it.
"""

from __future__ import annotations

_HANDSHAKE, _CLIENT_HELLO, _ALPN = 22, 1, 16
_LONGEST = 1 << 17

NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""The fatal alert no_application_protocol (RFC 7301 section 3.2) as a record, before anything is encrypted."""


def offered_alpn(received: bytes) -> list[bytes] | None:
    """The application protocols that a client offers, by the first bytes it sent; None if more bytes are needed.
    Raises ValueError for what is no ClientHello."""
    hello = _first_message(received)
    if hello is None:
        return None
    try:
        return _alpn(hello)
    except IndexError:
        raise ValueError("malformed") from None


def _first_message(received: bytes) -> bytes | None:
    """The first handshake message, from as many records as it takes."""
    message = b""
    start = 0
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        if start > _LONGEST or (len(received) > start and received[start] != _HANDSHAKE):
            raise ValueError("no handshake record")
        length = int.from_bytes(received[start + 3 : start + 5], "big")
        if len(received) < start + 5 + length or len(received) < start + 5:
            return None
        message += received[start + 5 : start + 5 + length]
        start += 5 + length
    if message[0] != _CLIENT_HELLO:
        raise ValueError("another handshake message")
    return message


def _alpn(hello: bytes) -> list[bytes]:
    at = 4 + 2 + 32  # the message's header, the version and the random
    at += 1 + hello[at]  # session id
    at += 2 + int.from_bytes(hello[at : at + 2], "big")  # ciphersuites
    at += 1 + hello[at]  # compression methods
    at += 2  # the length of the extensions, which go to the end
    while at + 4 <= len(hello):
        kind, length = (
            int.from_bytes(hello[at : at + 2], "big"),
            int.from_bytes(hello[at + 2 : at + 4], "big"),
        )
        if kind == _ALPN:
            return _names(hello[at + 6 : at + 4 + length])
        at += 4 + length
    return []


def _names(listed: bytes) -> list[bytes]:
    names = []
    while listed:
        names.append(listed[1 : 1 + listed[0]])
        listed = listed[1 + listed[0] :]
    return names
