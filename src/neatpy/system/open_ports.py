"""The UDP ports that this process holds, and which of their holders give way to somebody new.

A connection that has ended is answered for a while from its socket, in case the peer has missed the end. Whoever wants
the port for something new needs it more. This room knows holders of ports, and neither sockets' traffic nor protocols.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from neatpy.system.datagram_options import bound_socket

if TYPE_CHECKING:
    import asyncio
    import socket

    from neatpy.stacks.contract import Address


class Holder(Protocol):
    """Who has a socket bound to a port, for a loop."""

    loop: asyncio.AbstractEventLoop

    @property
    def number(self) -> int:
        """The port's; 0 when the socket is closed."""

    @property
    def only_answers(self) -> bool:
        """Whether nobody needs the socket but to answer for what has ended."""

    def give_way(self) -> None:
        """Close the socket. What is sent afterwards is lost."""


class OpenPorts:
    """The holders of this process."""

    __slots__ = ("_holders", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # each loop has holders of its own, and they live in different threads
        self._holders: WeakSet[Holder] = WeakSet()

    def add(self, holder: Holder) -> None:
        """It holds a port."""
        with self._lock:
            self._holders.add(holder)

    def holders(self, number: int) -> list[Holder]:
        """Who holds the port of this number."""
        with self._lock:
            holders = list(self._holders)
        return [holder for holder in holders if holder.number == number]

    def bind(self, local: Address, interface: str | None, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """A socket bound there, for this loop. Raises OSError. Holders of a loop that is over give way, and those of
        this loop that only answer."""
        try:
            return bound_socket(local, interface)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not self._make_way(local.port, loop):
                raise
        return bound_socket(local, interface)

    def _make_way(self, number: int, loop: asyncio.AbstractEventLoop) -> bool:
        found = [
            holder
            for holder in self.holders(number)
            if holder.loop.is_closed() or (holder.loop is loop and holder.only_answers)
        ]
        for holder in found:
            holder.give_way()
        return bool(found)


open_ports = OpenPorts()
