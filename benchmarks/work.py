"""The work that all contenders do alike: sizes, framing and the calls that each of them offers.

Framed Messages have a length of four bytes, in network order, before them.
"""

from __future__ import annotations

import os
import struct
from typing import Protocol

SMALL = bytes(range(64))
LARGE = bytes(64 * 1024)
END = b"end"
"""A Message of another length than the others: the sink answers it."""
BATCH = 100
LENGTH = struct.Struct("!I")
PACKET_VARIABLE = "NEATPY_BENCHMARK_SCTP_PACKET"
PACKET = int(os.environ.get(PACKET_VARIABLE, "9000"))
"""Bytes of an SCTP packet at most, for all contenders alike."""
WORKS = ("echo", "echo-framed", "sink-framed", "bulk", "bulk-framed", "idle", "clones", "streams")

AT_ONCE = 32
"""Requests that are under way at the same time, each on a stream of its own."""
QUIC_PACKET = 8952
"""Bytes of a QUIC packet: what NEATPy takes where a path has room for it, as loopback has."""
IDENTITY_VARIABLE = "NEATPY_BENCHMARK_IDENTITY"


def identity_path() -> str:
    """Where a server's certificate and its key are, which clients trust."""
    return os.environ[IDENTITY_VARIABLE]


def identity() -> bytes:
    """What is there."""
    with open(identity_path(), "rb") as file:
        return file.read()


class ContenderModule(Protocol):
    """What each module in ``contenders`` offers; those for SCTP have ``round_trips`` and ``bulk``, which are framed by
    nature. All calls run on the loop that is measured."""

    async def serve(self, work: str) -> tuple[int, object]:
        """Listen on an ephemeral port of 127.0.0.1 for this kind of work and go on in the background.

        ``echo`` and ``echo-framed`` send back what comes; ``sink-framed`` answers only END; ``bulk`` and
        ``bulk-framed`` answer when the peer has sent its last; ``idle`` does nothing. Returns the port, and what must
        be held to go on.
        """

    async def round_trips(self, port: int, framed: bool, seconds: float) -> float:
        """Send SMALL, wait for it to come back, again and again; round trips per second."""

    async def one_way(self, port: int, seconds: float) -> float:
        """Send framed SMALLs in batches, with flow control after each batch, then END; Messages per second."""

    async def bulk(self, port: int, framed: bool, size: int) -> float:
        """Send so many bytes in pieces of LARGE, finish, wait for the answer; bytes per second."""

    async def connects(self, port: int, seconds: float) -> float:
        """Connect, send SMALL, wait for it to come back, close, again and again; times per second."""

    async def open_idle(self, port: int, count: int) -> list[object]:
        """Open so many connections and keep them; returns what must be held to keep them."""

    async def streams(self, port: int, seconds: float) -> float:
        """Send SMALL on a new stream and wait for it to come back, again and again, AT_ONCE at a time; how many a
        second. Only those on QUIC have it."""

    async def clones(self, port: int, count: int, server_pid: int) -> dict[str, float]:
        """What so many clones of one association take and leave behind; or what an exchange costs beside so many
        streams of one QUIC connection. Only those that have streams have it."""
