"""A relay between a client and a server of UDP, which loses, doubles, holds back and invents datagrams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from api.loopback import HOST, turns

Decide = Callable[[bytes, bool, int], Iterable[bytes]]


def forward(datagram: bytes, from_client: bool, index: int) -> Iterable[bytes]:
    """What comes goes on."""
    return (datagram,)


class Relay:
    """Between one client and a server: asks, for each datagram, which datagrams go on in its place."""

    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.seen: dict[bool, list[bytes]] = {True: [], False: []}
        self.client: tuple[str, int] | None = None
        self._front: asyncio.DatagramTransport
        self._back: asyncio.DatagramTransport | None = None
        self._target = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int, decide: Decide = forward) -> AsyncIterator[Relay]:
        """A relay to this port."""
        relay = cls(decide)
        relay._target = port
        loop = asyncio.get_running_loop()
        relay._front, _ = await loop.create_datagram_endpoint(
            lambda: _Side(relay, True), local_addr=(HOST, 0)
        )
        await relay.rebind()
        try:
            yield relay
        finally:
            relay.stop()
            await turns()

    @property
    def port(self) -> int:
        port: int = self._front.get_extra_info("sockname")[1]
        return port

    async def rebind(self) -> None:
        """What comes from the client goes on from a new port, as behind a NAT that has forgotten it."""
        back, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Side(self, False), remote_addr=(HOST, self._target)
        )
        before, self._back = self._back, back
        if before is not None:
            before.close()

    def stop(self) -> None:
        """The port is closed from now on."""
        self._front.close()
        if self._back is not None:
            self._back.close()

    def came(self, datagram: bytes, from_client: bool) -> None:
        seen = self.seen[from_client]
        seen.append(datagram)
        for each in self.decide(datagram, from_client, len(seen) - 1):
            self.inject(each, from_client)

    def inject(self, datagram: bytes, from_client: bool) -> None:
        """Send a datagram as if it came from one side."""
        if from_client:
            if self._back is not None and not self._back.is_closing():
                self._back.sendto(datagram)
        elif self.client is not None and not self._front.is_closing():
            self._front.sendto(datagram, self.client)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, relay: Relay, front: bool) -> None:
        self._relay = relay
        self._front = front

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._front:
            self._relay.client = address
        self._relay.came(data, self._front)
