"""What UDP sockets need of the kernel: making them, their options and their control messages.

Knows addresses and Linux's option numbers, and does without what another system lacks; knows no loop and no stack.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Address

SocketAddress = tuple[Any, ...]
Control = Sequence[tuple[int, int, bytes]]
Data = bytes | bytearray | memoryview

LARGEST_V4, LARGEST_V6 = 65507, 65527
"""Most bytes of payload in one UDP datagram."""

IP_PKTINFO, IPV6_PKTINFO = getattr(socket, "IP_PKTINFO", 8), getattr(socket, "IPV6_PKTINFO", 50)
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
_IP_RECVTOS = getattr(socket, "IP_RECVTOS", 13)
TOS_TYPES = frozenset({socket.IP_TOS, _IP_RECVTOS, socket.IPV6_TCLASS})
"""Types of the control message that holds DSCP and ECN field."""

_LINUX = sys.platform.startswith("linux")
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_DISCOVER_WANT, _DISCOVER_DO = 1, 2
_IP_MTU, _IPV6_MTU = 14, 24
_IPV4_HEADERS, _IPV6_HEADERS = 28, 48
_ETHERNET = 1500
_INT = struct.Struct("=i")


def bound_socket(local: Address, interface: str | None) -> socket.socket:
    """A UDP socket bound to an address of its own family only, and to an interface if one is given. Raises OSError."""
    sock = unbound_socket(local.family, interface)
    try:
        sock.bind(local.sockaddr())
    except BaseException:
        sock.close()
        raise
    return sock


def unbound_socket(family: int, interface: str | None) -> socket.socket:
    """A UDP socket that gets its address when it is connected. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM | getattr(socket, "SOCK_NONBLOCK", 0))
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface is not None:
            from neatpy.system.options import bind_to_interface

            bind_to_interface(sock, interface)
    except BaseException:
        sock.close()
        raise
    return sock


def source_control(destination: bytes, interface_index: int = 0) -> tuple[int, int, bytes]:
    """The control message that makes a datagram leave from this packed own address."""
    if len(destination) == 16:
        return socket.IPPROTO_IPV6, IPV6_PKTINFO, destination + _INT.pack(interface_index)
    return socket.IPPROTO_IP, IP_PKTINFO, _INT.pack(interface_index) + destination + bytes(4)


def traffic_class_control(family: int, traffic_class: int) -> tuple[int, int, bytes]:
    """The control message that gives one datagram its DSCP (upper six bits) and ECN field (lower two)."""
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(traffic_class)
    return socket.IPPROTO_IP, socket.IP_TOS, _INT.pack(traffic_class)


def set_fragmentation(sock: socket.socket, allowed: bool) -> None:
    """Whether datagrams that exceed the path's MTU are fragmented here (else EMSGSIZE, and DF is always set)."""
    if _LINUX:
        mode = _DISCOVER_WANT if allowed else _DISCOVER_DO
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, mode)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, mode)


def largest_unfragmented(sock: socket.socket) -> int:
    """Most bytes that fit one packet on the path of a connected socket; that of Ethernet where the path is unknown."""
    ipv6 = sock.family == socket.AF_INET6
    mtu = _ETHERNET
    if _LINUX:
        level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if ipv6 else (socket.IPPROTO_IP, _IP_MTU)
        with suppress(OSError):  # not connected
            mtu = sock.getsockopt(level, option)
    return min(mtu - _IPV6_HEADERS, LARGEST_V6) if ipv6 else min(mtu - _IPV4_HEADERS, LARGEST_V4)


def largest_unfragmented_to(address: SocketAddress, family: int) -> int:
    """Most bytes that fit one packet on the path to an address, which a socket for many peers cannot say."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing; the route has an MTU, or the path's is remembered
            return largest_unfragmented(probe)
    except OSError:
        return _ETHERNET - (_IPV6_HEADERS if family == socket.AF_INET6 else _IPV4_HEADERS)


def wants_errors(properties: TransportProperties) -> bool:
    """Whether ICMP errors are to be reported (``soft_error_notify``, RFC 9622 section 6.2.17)."""
    from neatpy.enumerations import Preference

    return properties.soft_error_notify in (Preference.REQUIRE, Preference.PREFER)


def ask_for_control_messages(sock: socket.socket, destinations: bool) -> None:
    """Have each datagram come with its ECN field, with its destination if wanted, and merged with its like (GRO)."""
    if sock.family == socket.AF_INET6:
        wanted = [(socket.IPPROTO_IPV6, getattr(socket, "IPV6_RECVTCLASS", 66))]
        if destinations:
            wanted.append((socket.IPPROTO_IPV6, getattr(socket, "IPV6_RECVPKTINFO", 49)))
    else:
        wanted = [(socket.IPPROTO_IP, _IP_RECVTOS)]
        if destinations:
            wanted.append((socket.IPPROTO_IP, IP_PKTINFO))
    if _LINUX:
        wanted.append((SOL_UDP, UDP_GRO))
    for level, option in wanted:
        try:
            sock.setsockopt(level, option, 1)
        except OSError:
            continue  # an older kernel: its datagrams come without
