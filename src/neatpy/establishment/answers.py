"""The addresses of one host as they come in: one answer for each family (RFC 8305).

It knows when a race may begin with what is there, and nothing of who asked or why.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from neatpy.stacks.contract import Address

Lookup = Callable[[str, int, int], "asyncio.Future[list[Any]]"]
"""Host, port and address family -> a future of what ``socket.getaddrinfo`` gives."""

RESOLUTION_DELAY = 0.05
"""Seconds that a race waits for IPv6 addresses when IPv4 addresses are already there (RFC 8305 section 3)."""


class Answers:
    """The addresses of one host, by family, as they come in."""

    __slots__ = ("_by_family", "_first_at", "error", "found", "host")

    def __init__(self, host: str) -> None:
        self.host = host
        self.error: BaseException | None = None
        self.found = False
        self._by_family: dict[int, list[Address]] = {}
        self._first_at: float | None = None

    @property
    def pending(self) -> bool:
        """Whether a family has not answered yet."""
        return len(self._by_family) < 2

    def add(self, family: int, addresses: list[Address]) -> None:
        """What one family has answered."""
        self._by_family[family] = addresses
        if addresses and self._first_at is None:
            self.found = True
            self._first_at = time.monotonic()

    def ready_at(self) -> float | None:
        """When a race may begin with these, in the time of ``time.monotonic``; None if there is none yet."""
        if self._first_at is None:
            return None
        if not self.pending or self._by_family.get(socket.AF_INET6):
            return self._first_at
        return self._first_at + RESOLUTION_DELAY

    def take(self) -> list[Address]:
        """All that there are so far, in the order to try them."""
        return interleaved(self._by_family.get(socket.AF_INET6, ()), self._by_family.get(socket.AF_INET, ()))


def interleaved(first: Sequence[Address], second: Sequence[Address]) -> list[Address]:
    """The addresses of two families by turns, so that a broken family costs one attempt (RFC 8305 section 4)."""
    merged: list[Address] = []
    for index in range(max(len(first), len(second))):
        merged.extend(first[index : index + 1])
        merged.extend(second[index : index + 1])
    return merged


def address_of(sockaddr: tuple[Any, ...]) -> Address:
    """What ``socket.getaddrinfo`` gives as an Address."""
    ip, _, zone = str(sockaddr[0]).partition("%")
    if not zone and len(sockaddr) == 4 and sockaddr[3]:
        zone = _zone(sockaddr[3])
    return Address(ip, sockaddr[1], zone)


def _zone(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)
