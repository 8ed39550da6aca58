"""What carries the packets of one QUIC connection: a UDP socket of its own, or the shared one of a Listener.

A path knows addresses and hands datagrams over; it knows nothing of what is in them. The engine names the far side of a
path by an opaque address, which is made and understood here.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from neatpy.stacks.contract import Address
from neatpy.system import options
from neatpy.system.datagram_options import (
    Control,
    SocketAddress,
    largest_unfragmented,
    largest_unfragmented_to,
    set_fragmentation,
    source_control,
    traffic_class_control,
)
from neatpy.system.datagram_socket import DatagramObserver, DatagramSocket

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from neatpy.enumerations import CapacityProfile
    from neatpy.system.datagrams import DatagramPort

ETHERNET, JUMBO = 1452, 8952
"""Payloads that are tried: one that tunnels over Ethernet still carry, and one for paths with large packets."""

_BUFFER = 4 << 20


class Path(ABC):
    """The way to the peer."""

    __slots__ = ()

    @property
    @abstractmethod
    def local_address(self) -> Address:
        """The own side."""

    @property
    @abstractmethod
    def remote_address(self) -> Address:
        """The peer's side."""

    @abstractmethod
    def send(self, datagrams: Sequence[tuple[bytes, Any]]) -> None:
        """Hand over what the engine has to send, each with the engine's address."""

    @abstractmethod
    def set_capacity_profile(self, profile: CapacityProfile) -> None:
        """Mark packets with this DSCP."""

    @abstractmethod
    def mtu(self) -> int:
        """Bytes of a datagram worth trying, by what this host knows of the path."""

    @abstractmethod
    def linger(self) -> None:
        """Only packets that the peer has missed are still to be answered."""

    @abstractmethod
    def close(self) -> None:
        """Send and receive no more. Idempotent."""


class OwnPath(Path, DatagramObserver):
    """A connected UDP socket for one connection. ``received``, ``done`` and ``failed`` hear of datagrams, of the end of
    a burst of them, and of ICMP errors."""

    __slots__ = ("_closed", "_done", "_failed", "_local", "_loop", "_profile", "_received", "_socket", "peer")

    batches = True

    peer: SocketAddress
    """The engine's address of the peer, which stays the same wherever our own side moves."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        received: Callable[[bytes, Any], None],
        done: Callable[[], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self.peer = sock.getpeername()
        self._local = Address.of(sock.getsockname())
        self._received = received
        self._done = done
        self._failed = failed
        self._closed = False
        self._loop = loop
        self._profile: CapacityProfile | None = None
        self._use(sock)

    def _use(self, sock: socket.socket) -> None:
        enlarge_buffers(sock)
        set_fragmentation(sock, False)
        self._socket = DatagramSocket(self._loop, sock, self, errors=True)
        self._socket.resume_receiving()

    def replace(self, sock: socket.socket) -> None:
        """Send and receive by this socket, which is connected to the same peer, from now on."""
        if self._closed:
            sock.close()
            return
        self._socket.close()
        self._local = Address.of(sock.getsockname())
        self._use(sock)
        if self._profile is not None:
            self.set_capacity_profile(self._profile)

    @property
    def local_address(self) -> Address:
        return self._local

    @property
    def remote_address(self) -> Address:
        return Address.of(self.peer)

    def send(self, datagrams: Sequence[tuple[bytes, Any]]) -> None:
        if self._closed:
            return
        try:
            if len(datagrams) == 1:
                self._socket.send(datagrams[0][0])
            else:
                self._socket.send_batch([data for data, address in datagrams if address == self.peer])
        except OSError as error:
            # Lost, as in any router: it is sent again, perhaps from somewhere else.
            self._loop.call_soon(self._not_sent, self._socket, error)

    def _not_sent(self, by: DatagramSocket, error: OSError) -> None:
        if by is self._socket:
            self.datagram_error(error)

    def set_capacity_profile(self, profile: CapacityProfile) -> None:
        self._profile = profile
        if not self._closed:
            options.set_dscp(self._socket.socket, profile)

    def mtu(self) -> int:
        return 0 if self._closed else _worth_trying(largest_unfragmented(self._socket.socket))

    def linger(self) -> None:
        if not self._closed:
            self._socket.linger()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.close()

    def datagram_received(self, data: bytes, source: SocketAddress, ecn: int, destination: bytes) -> None:
        self._received(data, self.peer)

    def datagrams_done(self) -> None:
        if not self._closed:
            self._done()

    def datagram_error(self, error: OSError) -> None:
        if not self._closed:
            self._failed(error)


class SharedPath(Path):
    """The Listener's socket, for one connection. The peer may move: packets go to where the engine says."""

    __slots__ = ("_closed", "_control", "_loose", "_port", "address")

    address: tuple[SocketAddress, bytes]
    """The engine's address: that of the peer, and our own (packed) that it speaks to."""

    def __init__(self, port: DatagramPort, source: SocketAddress, destination: bytes) -> None:
        self._port = port
        self.address = (source, destination)
        self._control: tuple[tuple[int, int, bytes], ...] = ()
        self._closed = self._loose = False
        port.hold()

    @property
    def local_address(self) -> Address:
        destination = self.address[1]
        local = self._port.local_address
        if destination:
            return local._replace(ip=socket.inet_ntop(self._port.socket.family, destination))
        return local

    @property
    def remote_address(self) -> Address:
        return Address.of(self.address[0])

    def send(self, datagrams: Sequence[tuple[bytes, Any]]) -> None:
        if self._closed:
            return
        address = datagrams[0][1]
        run: list[bytes] = []
        for data, where in datagrams:
            if where != address:
                self._send_run(run, address)
                run, address = [], where
            run.append(data)
        self._send_run(run, address)

    def _send_run(self, run: list[bytes], address: tuple[SocketAddress, bytes]) -> None:
        source, destination = address
        control: Control = (source_control(destination), *self._control) if destination else self._control
        try:
            if len(run) == 1:
                self._port.send(run[0], source, control)
            else:
                self._port.send_batch(run, source, control)
        except OSError:
            pass  # lost, as in any router: it is sent again

    def set_capacity_profile(self, profile: CapacityProfile) -> None:
        # Each packet is marked by itself: the socket is everybody's.
        self._control = (traffic_class_control(self._port.socket.family, int(profile) << 2),)

    def mtu(self) -> int:
        return _worth_trying(largest_unfragmented_to(self.address[0], self._port.socket.family))

    def linger(self) -> None:
        if not self._closed and not self._loose:
            self._loose = True
            self._port.loosen()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._loose:
                self._port.let_go()
            else:
                self._port.release()


def enlarge_buffers(sock: socket.socket) -> None:
    """Make room for bursts."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        if sock.getsockopt(socket.SOL_SOCKET, option) < _BUFFER:
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


def _worth_trying(largest: int) -> int:
    return JUMBO if largest >= JUMBO else min(largest, ETHERNET)
