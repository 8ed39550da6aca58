"""Stateless resets (RFC 9000 section 10.3): how a port tells a peer that it has lost their connection.

Each connection id has a token. The peer is told it while there is a connection; afterwards it says, at the end of a
packet that looks like any other, that there is none. This room knows bytes only: no engine, and no socket.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from hmac import compare_digest, digest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKEN_LENGTH = 16

SMALLEST_RESET = 21
"""Bytes of the smallest datagram that can be a reset."""

LARGEST_RESET = 42
"""Bytes of the resets made here: no packet needs to be larger to be taken for an ordinary one."""

RESETS = 64
"""Resets that one port sends at once, and again in each second."""

_DRAINING, _DRAINED_AFTER = 1024, 3.0
"""Connection ids that are remembered after the peer has closed their connections, and for how many seconds."""

_SECRET = os.urandom(32)
_FIXED = 0x40


class Resets:
    """The resets of one port, named by its ``place``.

    The tokens of two places have nothing in common, else one port could be made to tell how connections of the other
    are ended (RFC 9000 section 21.11). They last as long as the process: a Listener that begins anew at the same place
    can reset the connections of the one before, but another process cannot.
    """

    __slots__ = ("_draining", "_key", "_left", "_since")

    def __init__(self, place: object) -> None:
        self._key = digest(_SECRET, repr(place).encode(), "sha256")
        self._left = float(RESETS)
        self._since = 0.0
        self._draining: OrderedDict[bytes, float] = OrderedDict()

    def token(self, connection_id: bytes) -> bytes:
        """What resets the connection that has this id."""
        return digest(self._key, connection_id, "sha256")[:TOKEN_LENGTH]

    def closed(self, connection_ids: Iterable[bytes], now: float) -> None:
        """The peer has closed a connection with these ids, so that what is still on its way needs no answer (RFC 9000
        section 10.2.2)."""
        for connection_id in connection_ids:
            self._draining[connection_id] = now
        while len(self._draining) > _DRAINING:
            self._draining.popitem(last=False)

    def answer(self, datagram: bytes, connection_id: bytes, now: float) -> bytes | None:
        """The reset for a datagram to an id that nobody has; None where there were enough of them, or the datagram is
        too small. The answer is always the smaller one, so that two who reset each other come to an end."""
        size = min(len(datagram) - 1, LARGEST_RESET)
        if size < SMALLEST_RESET or now - self._draining.get(connection_id, -_DRAINED_AFTER) < _DRAINED_AFTER:
            return None
        self._left = min(float(RESETS), self._left + (now - self._since) * RESETS)
        self._since = now
        if self._left < 1:
            return None
        self._left -= 1
        head = bytearray(os.urandom(size - TOKEN_LENGTH))
        head[0] = _FIXED | head[0] % _FIXED
        return bytes(head) + self.token(connection_id)


def ending(datagram: bytes) -> bytes:
    """What is the token if the datagram is a reset; empty if it is too small for one."""
    return datagram[-TOKEN_LENGTH:] if len(datagram) >= SMALLEST_RESET else b""


def is_reset(datagram: bytes, tokens: Iterable[bytes]) -> bool:
    """Whether the datagram ends with one of these tokens. How long that takes says nothing of them."""
    end = ending(datagram)
    return any(compare_digest(end, token) for token in tokens if token)
