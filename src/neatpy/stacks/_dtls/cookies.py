"""Cookies that prove an address (RFC 6347 section 4.2.1), without any state for each peer. Pure logic."""

from __future__ import annotations

import hmac
import os

LIFETIME = 60.0
"""Seconds after which a new cookie is given; the one before is taken for as long again."""


class Cookies:
    """The cookies of one Listener: bound to the peer's address and port, and to time, by a secret of its own."""

    __slots__ = ("_secret",)

    def __init__(self) -> None:
        self._secret = os.urandom(32)

    def make(self, peer: bytes, now: float) -> bytes:
        """The cookie for this peer, at a time (s) of any monotonic clock."""
        return self._of(peer, int(now // LIFETIME))

    def prove(self, peer: bytes, cookie: bytes, now: float) -> bool:
        """Whether this peer was given that cookie, and not too long ago."""
        period = int(now // LIFETIME)
        return any(hmac.compare_digest(self._of(peer, each), cookie) for each in (period, period - 1))

    def _of(self, peer: bytes, period: int) -> bytes:
        return hmac.digest(self._secret, period.to_bytes(8, "big") + peer, "sha256")[:16]
