"""The UDP sockets of one Listener: all its UDP-borne stacks share one for each address, and this room parts what comes.

It knows four-tuples and who owns them; it knows no protocol above UDP, and asks the protocols' recognisers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING

from neatpy.system.datagram_options import Control, Data, SocketAddress, wants_errors
from neatpy.system.datagram_socket import DatagramObserver, DatagramSocket
from neatpy.system.icmp import IcmpError
from neatpy.system.open_ports import open_ports
from neatpy.system.options import set_hop_limit

if TYPE_CHECKING:
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Address

__all__ = [
    "FOUR_TUPLES",
    "TAKEN",
    "DatagramObserver",
    "DatagramPort",
    "DatagramPorts",
    "DatagramSocket",
    "Recogniser",
]

Recogniser = Callable[[bytes, SocketAddress, bytes], "DatagramObserver | None"]
"""Given a datagram, its source and the packed own address it came to: the endpoint that takes its four-tuple, or None
if this is none of that protocol's. The endpoint gets the datagram afterwards. :data:`TAKEN`: the datagram has been
dealt with."""

TAKEN = DatagramObserver()
"""A recogniser's answer for a datagram of its protocol that needs no endpoint, or that it has given to one itself."""

FOUR_TUPLES = 16384
"""Peers that one shared socket knows at most."""


Place = tuple[str, int, str, "str | None"]
"""IP address, port, zone and interface that a socket is bound to."""


class DatagramPorts:
    """The UDP sockets of one Listener, shared by all its UDP-borne stacks. It may begin where another one has stopped:
    what that has accepted goes on, on the socket that both share then."""

    __slots__ = ("_loop", "_ports")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ports: dict[Place, DatagramPort] = {}

    def open(
        self,
        local: Address,
        interface: str | None,
        properties: TransportProperties,
        hop_limit: int | None = None,
    ) -> DatagramPort:
        """The socket bound there, made if need be; the caller owes it a ``release``. Raises OSError.

        Port 0 is one new port: whoever asks for port 0 of the same address and interface again gets the same socket.
        One that another Listener has left goes on with the hop limit (None: the system's) of this one.
        """
        place = (local.ip, local.port, local.scope, interface)
        port = self._ports.get(place)
        if port is None or not port.is_open:
            left = self._left_at(place)
            port = DatagramPort(self._loop, local, interface, properties) if left is None else left
            if hop_limit is not None or left is not None:
                set_hop_limit(port.socket, hop_limit)
            if left is not None and wants_errors(properties):
                left.report_errors()
            self._ports[place] = self._ports[port.place] = port
        port.hold()
        return port

    def _left_at(self, place: Place) -> DatagramPort | None:
        """The port of this loop, bound there, on which nobody listens any more."""
        ports = [port for port in open_ports.holders(place[1]) if isinstance(port, DatagramPort)]
        fitting = (port for port in ports if port.place == place and port.loop is self._loop)
        return next((port for port in fitting if port.is_left), None)


class DatagramPort(DatagramObserver):
    """One shared UDP socket. A datagram goes to the endpoint that owns its four-tuple, else to the first recogniser, by
    rank, that wants it, else it is dropped.

    The socket lives as long as it is held or an endpoint owns a four-tuple. At most :data:`FOUR_TUPLES` are owned: each
    belongs to something alive, so that none is evicted, and with the table full new peers are dropped. Owners bound
    their handshakes in number and time.
    """

    __slots__ = (
        "__weakref__",
        "_beginnings",
        "_endpoints",
        "_holds",
        "_loose",
        "_recognisers",
        "_retired",
        "_socket",
        "_touched",
        "_waiting",
        "dropped",
        "local_address",
        "loop",
        "place",
    )  # fmt: skip

    batches = True

    local_address: Address
    """The address it is bound to, with the real port."""

    dropped: int
    """Datagrams that nobody wanted, or of new peers while the table was full."""

    place: Place
    """Where it is bound."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        local: Address,
        interface: str | None,
        properties: TransportProperties,
    ) -> None:
        sock = open_ports.bind(local, interface, loop)
        self.loop = loop
        self.local_address = local._replace(port=sock.getsockname()[1])
        self.place = (*self.local_address, interface)
        self.dropped = 0
        self._holds = self._loose = 0
        self._endpoints: dict[tuple[SocketAddress, bytes], DatagramObserver] = {}
        self._recognisers: list[tuple[int, Recogniser, bool]] = []
        self._retired: set[Recogniser] = set()
        self._beginnings: dict[int, Container[int]] = {}
        self._touched: set[DatagramObserver] = set()
        self._waiting: dict[DatagramObserver, None] = {}
        self._socket = DatagramSocket(
            loop, sock, self, destinations=local.ip in ("0.0.0.0", "::"), errors=wants_errors(properties)
        )
        self._socket.resume_receiving()
        open_ports.add(self)

    @property
    def socket(self) -> socket.socket:
        """The socket, for options and names; nobody else sends, receives or closes."""
        return self._socket.socket

    def __len__(self) -> int:
        """How many four-tuples are owned."""
        return len(self._endpoints)

    @property
    def is_open(self) -> bool:
        """Whether the socket is open."""
        return not self._socket.closed

    @property
    def is_left(self) -> bool:
        """Whether it is open, and nobody listens here any more."""
        return self.is_open and all(entry[1] in self._retired for entry in self._recognisers)

    def report_errors(self) -> None:
        """Report ICMP errors from now on."""
        self._socket.report_errors()

    # Users

    def hold(self) -> None:
        """Keep the socket open until ``release``."""
        self._holds += 1

    def release(self) -> None:
        """Undo one ``hold``. Without any, the socket serves those who own a four-tuple, and then nobody."""
        self._holds -= 1
        self._close_if_unused()
        if not self._holds:
            self._socket.let_go()

    def loosen(self) -> None:
        """Make one ``hold`` a loose one: the socket stays open for it, but a loop that ends forgets it."""
        self._loose += 1
        self.release()

    @property
    def only_answers(self) -> bool:
        """Whether nobody needs the socket but those who answer for what has ended."""
        return not self._holds and not self._endpoints

    @property
    def number(self) -> int:
        """The number of the port; 0 when the socket is closed."""
        return self.local_address.port if self.is_open else 0

    def give_way(self) -> None:
        """Close the socket, whoever still answers."""
        self._socket.give_way()

    def let_go(self) -> None:
        """Undo one ``loosen``."""
        self._loose -= 1
        self._close_if_unused()

    def register(
        self,
        recogniser: Recogniser,
        rank: int,
        *,
        claims: bool = True,
        first_bytes: Container[int] = range(256),
    ) -> None:
        """Offer datagrams of unknown four-tuples to ``recogniser``, after those of lower rank. One that never
        ``claims`` a four-tuple, since its peers are known by something else, is asked even when the table is full.
        ``first_bytes`` are those with which the protocol's datagrams begin (RFC 9443)."""
        self._recognisers.append((rank, recogniser, claims))
        self._recognisers.sort(key=lambda entry: entry[0])
        self._beginnings[rank] = first_bytes

    def others_begin_with(self, first: int, rank: int) -> bool:
        """Whether another protocol than that of ``rank``, which is or was offered here, has datagrams that begin with
        this byte."""
        return any(first in bytes_ for other, bytes_ in self._beginnings.items() if other != rank)

    def unregister(self, recogniser: Recogniser) -> None:
        """Undo ``register``. Idempotent."""
        self._recognisers = [entry for entry in self._recognisers if entry[1] != recogniser]
        self._retired.discard(recogniser)

    def retire(self, recogniser: Recogniser) -> None:
        """It takes no new peers any more: somebody else may listen here, and is asked after it. Idempotent."""
        self._retired.add(recogniser)

    def has_successor(self, rank: int) -> bool:
        """Whether there is a recogniser of that rank that has not retired."""
        return any(entry[0] == rank and entry[1] not in self._retired for entry in self._recognisers)

    def touch(self, endpoint: DatagramObserver) -> None:
        """Tell it when no more datagrams come in this wake-up; for those that recognisers have dealt with."""
        self._touched.add(endpoint)

    def claim(self, source: SocketAddress, destination: bytes, endpoint: DatagramObserver) -> bool:
        """Make ``endpoint`` the owner of a four-tuple (a recogniser's answer does so by itself); False: table full."""
        key = (source, destination)
        if len(self._endpoints) >= FOUR_TUPLES and key not in self._endpoints:
            return False
        self._endpoints[key] = endpoint
        return True

    def disown(
        self, source: SocketAddress, destination: bytes, endpoint: DatagramObserver | None = None
    ) -> None:
        """Give a four-tuple back; its next datagram is one of an unknown peer. Idempotent. Of a given ``endpoint``,
        only if it is still the owner."""
        owner = self._endpoints.get((source, destination))
        if endpoint is not None:
            self._waiting.pop(endpoint, None)
        if owner is not None and endpoint in (None, owner):
            self._waiting.pop(owner, None)
            del self._endpoints[(source, destination)]
            self._close_if_unused()

    # Sending, as DatagramSocket does

    def try_send(self, data: Data, address: SocketAddress | None = None, control: Control = ()) -> bool:
        """See :meth:`DatagramSocket.try_send`; ``control`` holds :func:`source_control` on a wildcard address."""
        return self._socket.try_send(data, address, control)

    def try_send_unfragmented(
        self, data: Data, address: SocketAddress | None = None, control: Control = ()
    ) -> bool:
        """See :meth:`DatagramSocket.try_send_unfragmented`."""
        return self._socket.try_send_unfragmented(data, address, control)

    def send(self, data: bytes, address: SocketAddress, control: Control = ()) -> bool:
        """See :meth:`DatagramSocket.send`; the queue is shared by all endpoints."""
        return self._socket.send(data, address, control)

    def send_batch(self, datagrams: Sequence[bytes], address: SocketAddress, control: Control = ()) -> bool:
        """See :meth:`DatagramSocket.send_batch`."""
        return self._socket.send_batch(datagrams, address, control)

    def wait_writable(self, endpoint: DatagramObserver) -> None:
        """Ask for one call of the endpoint's ``datagrams_writable``."""
        self._waiting[endpoint] = None
        self._socket.wait_writable()

    # DatagramObserver

    def datagram_received(self, data: bytes, source: SocketAddress, ecn: int, destination: bytes) -> None:
        endpoint = self._endpoints.get((source, destination))
        if endpoint is None:
            endpoint = self._recognise(data, source, destination)
            if endpoint is None:
                self.dropped += 1
                return
        if endpoint.batches:
            self._touched.add(endpoint)
        endpoint.datagram_received(data, source, ecn, destination)

    def datagrams_done(self) -> None:
        if self._touched:
            touched, self._touched = self._touched, set()
            for endpoint in touched:
                endpoint.datagrams_done()

    def datagram_error(self, error: OSError) -> None:
        if isinstance(error, IcmpError):
            endpoint = self._endpoints.get((error.remote, error.local)) or self._endpoints.get(
                (error.remote, b"")
            )
            if endpoint is not None:
                endpoint.datagram_error(error)

    def datagrams_writable(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for endpoint in waiting:
            endpoint.datagrams_writable()

    # Below

    def _recognise(self, data: bytes, source: SocketAddress, destination: bytes) -> DatagramObserver | None:
        full = len(self._endpoints) >= FOUR_TUPLES
        for _, recognise, claims in self._recognisers:
            if full and claims:
                continue
            endpoint = recognise(data, source, destination)
            if endpoint is not None:
                if endpoint is not TAKEN:
                    self._endpoints[(source, destination)] = endpoint
                return endpoint
        return None

    def _close_if_unused(self) -> None:
        if not self._holds and not self._loose and not self._endpoints:
            self._socket.close()
