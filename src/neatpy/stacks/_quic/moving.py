"""The client's side of a connection, which may move to another local address or interface (RFC 9000 section 9).

Packets leave from one place at a time. The others are there for when the first is removed, or does not carry packets
any more: that is handover (RFC 9622 section 8.1.7). The server proves each new path by itself.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from neatpy.errors import PropertyError
from neatpy.stacks._quic.connection import QuicTransport
from neatpy.stacks._quic.paths import OwnPath
from neatpy.system.changes import hear_no_more, hear_of_changes
from neatpy.system.interfaces import addresses

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint

UNANSWERED = 2
"""Probes without an answer after which another place is tried, if there is one."""

_LOST = frozenset(
    {errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.ENODEV, errno.EHOSTUNREACH, errno.ENONET}
)


class Place(NamedTuple):
    """Where packets leave from: an address, an interface, or whatever the system chooses (None)."""

    ip: str | None
    interface: str | None


class MovingTransport(QuicTransport):
    """A connection that we have opened. ``dial`` makes a socket to the peer from a place, and raises OSError."""

    __slots__ = ("_places", "_tried", "dial")

    path: OwnPath
    dial: Callable[[Place], socket.socket]

    def begin_at(self, place: Place) -> None:
        """Make the first path. Raises OSError."""
        self._places = [place]
        self._tried = 0
        self.path = OwnPath(self.loop, self.dial(place), self.received, self.done, self.failed)

    # What the application says

    def change_paths(self, action: str, endpoint: LocalEndpoint | RemoteEndpoint) -> None:
        if action not in ("add_local", "remove_local"):
            raise PropertyError(f"a QUIC connection has one peer: no {action}")
        ip, interface = _spelled(endpoint)
        if action == "add_local":
            place = Place(ip, interface)
            if place not in self._places:
                self._places.append(place)
            return
        active = self._places[0]
        gone = [place for place in self._places if self._is_at(place, ip, interface)]
        left = [place for place in self._places if place not in gone]
        if not gone:
            return
        if not left:
            raise PropertyError("it is the only local endpoint of this connection: add another one first")
        if active in gone:
            self._move_to(left)
        self._places = [*self._places[:1], *(place for place in left if place != self._places[0])]

    def _is_at(self, place: Place, ip: str | None, interface: str | None) -> bool:
        own = self.path.local_address.ip if place == self._places[0] else place.ip
        if ip is not None and ip not in (place.ip, own):
            return False
        if interface is None or interface == place.interface:
            return True
        return place.interface is None and own is not None and _has(interface, own)

    def _move_to(self, places: list[Place]) -> None:
        """Go on from the first of these that can be used. Raises PropertyError if there is none."""
        problem: OSError | None = None
        for place in places:
            try:
                self._move(place)
            except OSError as error:
                problem = error
            else:
                return
        raise PropertyError(f"no other local endpoint can be used: {problem}") from problem

    def _move(self, place: Place) -> None:
        """Send from there from now on. Raises OSError."""
        sock = self.dial(place)
        self._places = [place, *(other for other in self._places if other != place)]
        self.path.replace(sock)
        self.engine.move()
        self.engine.try_mtu(self.path.mtu())
        self.engine.ping()
        for flow in list(self.flows.values()):
            flow.path_changed()
        self.schedule()

    # What the network says

    def _open(self) -> None:
        super()._open()
        if self.is_open:
            hear_of_changes(self.loop, self._look)

    def _stop_timers(self) -> None:
        super()._stop_timers()
        hear_no_more(self.loop, self._look)

    def _look(self) -> None:
        """Something has changed on this host: see whether packets still get through. Who only receives would wait for
        the peer, which cannot know, until the next keep-alive."""
        self._tried = 0
        if self.is_open and any(not flow.closing for flow in self.flows.values()):
            self.engine.ping()
            self.schedule()

    def failed(self, error: OSError) -> None:
        if self.is_open and error.errno in _LOST and self._try_another():
            return
        super().failed(error)

    def _wake(self) -> None:
        super()._wake()
        if not self.is_open:
            return
        unanswered = self.engine.unanswered
        if not unanswered:
            self._tried = 0
        elif unanswered >= UNANSWERED:
            self._try_another()

    def _try_another(self) -> bool:
        """Move to the place that comes next; to the same, if the system chooses: it may choose otherwise by now."""
        candidates = self._places[1:]
        if self._places[0] == Place(None, None):
            candidates.append(self._places[0])
        if self._tried >= len(candidates):
            return False
        for place in candidates:
            try:
                self._move(place)
            except OSError:
                continue  # it is no place to be at present
            self._tried += 1
            return True
        return False


def _has(interface: str, ip: str) -> bool:
    """Whether an interface has this address."""
    try:
        return ip in addresses().get(interface, ())
    except (OSError, RuntimeError):
        return False


def _spelled(endpoint: Any) -> tuple[str | None, str | None]:
    address = endpoint.address
    if address is None and endpoint.interface is None:
        raise PropertyError("a local endpoint to add or remove has an address or an interface")
    return (None if address is None else str(address)), endpoint.interface
