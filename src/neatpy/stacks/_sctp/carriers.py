"""What carries the packets of one association: UDP (RFC 6951), on a socket of its own or on a Listener's shared one.

A carrier knows its addresses and hands packets over; it knows nothing of what is in them.
"""

from __future__ import annotations

import asyncio
import socket
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from neatpy.stacks._sctp.engine import ENGINE, Path
from neatpy.stacks.contract import Address
from neatpy.system import options
from neatpy.system.datagram_options import (
    Control,
    SocketAddress,
    largest_unfragmented,
    largest_unfragmented_to,
    source_control,
    traffic_class_control,
    wants_errors,
)
from neatpy.system.datagram_socket import DatagramObserver, DatagramSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from neatpy.enumerations import CapacityProfile
    from neatpy.properties import TransportProperties
    from neatpy.stacks._sctp.association import Association
    from neatpy.system.datagrams import DatagramPort

LARGEST_PACKET = 9000
"""Bytes of an SCTP packet at most, wherever the path takes more (loopback does): a few of them fill socket buffers."""

_BUFFER = 4 << 20

TAGGED = 8
"""Bytes of a packet's header that tell an association and its peer: both ports, and the verification tag."""

_SILENCE = 0.25
"""Seconds without a packet after which a peer may have moved: a packet that is replayed moves no live one."""

_ANSWERING = 1.0
"""Seconds for which the carrier of an association that was shut down still answers."""


class Carrier(ABC):
    """The way of one association to its peer."""

    __slots__ = ("path",)

    path: Path

    @property
    @abstractmethod
    def local_address(self) -> Address:
        """The own side."""

    @property
    @abstractmethod
    def remote_address(self) -> Address:
        """The peer's side."""

    def security(self) -> dict[str, object]:
        """What was negotiated below; nothing over UDP."""
        return {}

    @abstractmethod
    def set_capacity_profile(self, profile: CapacityProfile) -> None:
        """Mark packets with this DSCP, where the socket is this association's own."""

    def linger(self) -> None:
        """Only packets that the peer has missed are still to be answered."""
        asyncio.get_running_loop().call_later(_ANSWERING, self.close)

    @abstractmethod
    def close(self) -> None:
        """Send no more. Idempotent."""


class UdpCarrier(Carrier, DatagramObserver):
    """A connected UDP socket for one association. ``refused`` hears of an ICMP error, ``soft`` of one afterwards."""

    __slots__ = ("_addresses", "_closed", "_failed", "_socket")

    batches = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        properties: TransportProperties,
        failed: Callable[[OSError], None],
    ) -> None:
        self._addresses = (Address.of(sock.getsockname()), Address.of(sock.getpeername()))
        self._failed = failed
        self._closed = False
        _enlarge_buffers(sock)
        options.set_dscp(sock, properties.conn_capacity_profile)
        self._socket = DatagramSocket(loop, sock, self, errors=True)
        self.path = ENGINE.path(self._send, min(largest_unfragmented(sock), LARGEST_PACKET))
        self._socket.resume_receiving()

    @property
    def local_address(self) -> Address:
        return self._addresses[0]

    @property
    def remote_address(self) -> Address:
        return self._addresses[1]

    def set_capacity_profile(self, profile: CapacityProfile) -> None:
        if not self._closed:
            options.set_dscp(self._socket.socket, profile)

    def linger(self) -> None:
        self._socket.linger()
        super().linger()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._failed = _ignore
            self.path.close()
            self._socket.close()
            ENGINE.release()

    def _send(self, packets: list[bytes]) -> None:
        if self._closed and self._socket.socket.fileno() < 0:
            return
        try:
            if len(packets) == 1:
                self._socket.send(packets[0])
            else:
                self._socket.send_batch(packets)
        except OSError:
            pass  # lost, as in any router: it is sent again

    def datagram_received(self, data: bytes, source: SocketAddress, ecn: int, destination: bytes) -> None:
        self.path.received(data)

    def datagrams_done(self) -> None:
        self.path.done()

    def datagram_error(self, error: OSError) -> None:
        if not self._closed:
            self._failed(error)


class SharedCarrier(Carrier, DatagramObserver):
    """One four-tuple of a Listener's socket. ``header`` is the part of the latest packet's header that tells the
    association and that none but the peer knows: its ports and the tag that it was given; ``established_header`` is
    that of the packet that established it."""

    __slots__ = (
        "_closed",
        "_control",
        "_destination",
        "_heard",
        "_local",
        "_on_close",
        "_port",
        "_source",
        "established_header",
        "header",
    )

    batches = True

    def __init__(
        self,
        port: DatagramPort,
        source: SocketAddress,
        destination: bytes,
        accept: Callable[[Association], None],
        on_close: Callable[[SharedCarrier], None],
    ) -> None:
        self._port = port
        self._source = source
        self._destination = destination
        self._control: Control = (source_control(destination),) if destination else ()
        self._on_close = on_close
        self._closed = False
        self._heard = 0.0
        self.header = self.established_header = b""
        family = port.socket.family
        local = port.local_address
        if destination:
            local = local._replace(ip=socket.inet_ntop(family, destination))
        self._local = local
        mtu = min(largest_unfragmented_to(source, family), LARGEST_PACKET)
        self.path = ENGINE.path(self._send, mtu, accept)

    @property
    def local_address(self) -> Address:
        return self._local

    @property
    def remote_address(self) -> Address:
        return Address.of(self._source)

    def set_capacity_profile(self, profile: CapacityProfile) -> None:
        # Each packet is marked by itself: the socket is everybody's.
        family = self._port.socket.family
        address = (source_control(self._destination),) if self._destination else ()
        self._control = (*address, traffic_class_control(family, int(profile) << 2))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.path.close()
            self._port.disown(self._source, self._destination)
            self._on_close(self)
            ENGINE.release()

    def _send(self, packets: list[bytes]) -> None:
        try:
            if len(packets) == 1:
                self._port.send(packets[0], self._source, self._control)
            else:
                self._port.send_batch(packets, self._source, self._control)
        except OSError:
            pass  # lost, as in any router: it is sent again

    def follow(self, source: SocketAddress) -> bool:
        """The peer's packets come from there now, as when a NAT has forgotten it; whether that is to be believed: not
        of another address (RFC 6951 section 5.4), nor while packets still come from the old port."""
        if self._closed or source[0] != self._source[0] or time.monotonic() - self._heard < _SILENCE:
            return False
        self._port.disown(self._source, self._destination)
        self._source = source
        return True

    def datagram_received(self, data: bytes, source: SocketAddress, ecn: int, destination: bytes) -> None:
        if not self.established_header:
            self.header = data[:TAGGED]
        self.path.received(data)

    def datagrams_done(self) -> None:
        self._heard = time.monotonic()
        self.path.done()


def prepare_shared(sock: socket.socket) -> None:
    """Make room for bursts on a Listener's socket."""
    _enlarge_buffers(sock)


def wants_soft_errors(properties: TransportProperties) -> bool:
    """Whether ICMP errors of an established association are to be reported."""
    return wants_errors(properties)


def _ignore(error: OSError) -> None:
    """What fails now concerns nobody."""


def _enlarge_buffers(sock: socket.socket) -> None:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        if sock.getsockopt(socket.SOL_SOCKET, option) < _BUFFER:
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
