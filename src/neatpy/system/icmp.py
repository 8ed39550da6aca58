"""What the network says about datagrams that did not arrive: reads and explains the kernel's error queue.

Knows the layout of ``struct sock_extended_err`` (ip(7), IP_RECVERR) and the ICMP types; knows no stack and no loop.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import Any

QUEUE_BURST = 64
"""Most errors taken from a queue in one go, so that a flood of ICMP messages does not hold the loop."""

_LINUX = sys.platform.startswith("linux")
_IP_RECVERR = getattr(socket, "IP_RECVERR", 11)
_IPV6_RECVERR = 25
_EXTENDED_ERROR = struct.Struct("=IBBBxII")
_FAMILY = struct.Struct("=H")
_ORIGIN_LOCAL, _ORIGIN_ICMP, _ORIGIN_ICMP6 = 1, 2, 3
_ORIGIN_NAMES = {_ORIGIN_LOCAL: "this host", _ORIGIN_ICMP: "ICMP", _ORIGIN_ICMP6: "ICMPv6"}
_PORT_UNREACHABLE = frozenset({(_ORIGIN_ICMP, 3, 3), (_ORIGIN_ICMP6, 1, 4)})
_PACKET_TOO_BIG = frozenset({(_ORIGIN_ICMP, 3, 4), (_ORIGIN_ICMP6, 2, 0)})
_IP_PKTINFO, _IPV6_PKTINFO = getattr(socket, "IP_PKTINFO", 8), getattr(socket, "IPV6_PKTINFO", 50)
_CONTROL_SPACE = 512
_PAYLOAD_SPACE = 512


class IcmpError(OSError):
    """One entry of the error queue: an ICMP message about a datagram that this socket has sent.

    ``errno`` is what the kernel made of it. ``offender`` is the IP address of the host that sent the message, or None.
    ``remote`` is where the datagram was going, as a socket address; ``local`` the packed own address that it came
    from, or empty if unknown; ``payload`` the beginning of the datagram. ``mtu`` is the size (bytes) that would have
    fitted, or 0. Types and codes are those of RFC 792 and RFC 4443.
    """

    code: int
    local: bytes
    mtu: int
    offender: str | None
    origin: int
    payload: bytes
    remote: tuple[Any, ...]
    type: int

    def __init__(
        self, number: int, origin: int, kind: int, code: int, info: int, offender: str | None
    ) -> None:
        text = f"{os.strerror(number)} ({_ORIGIN_NAMES.get(origin, 'unknown origin')}"
        if origin != _ORIGIN_LOCAL:
            text += f" type {kind} code {code}"
        super().__init__(number, text + (f" from {offender})" if offender else ")"))
        self.origin = origin
        self.type = kind
        self.code = code
        self.mtu = info if number == errno.EMSGSIZE else 0
        self.offender = offender
        self.remote = ()
        self.local = b""
        self.payload = b""

    def __reduce__(self) -> tuple[Any, ...]:
        """Out of this process it is what it says."""
        return OSError, (self.errno or 0, self.strerror or "")

    @property
    def port_unreachable(self) -> bool:
        """Whether the host is there and nobody listens on that port."""
        return (self.origin, self.type, self.code) in _PORT_UNREACHABLE

    @property
    def packet_too_big(self) -> bool:
        """Whether a router, or this host, found the datagram larger than the path's MTU."""
        return self.errno == errno.EMSGSIZE or (self.origin, self.type, self.code) in _PACKET_TOO_BIG


def enable_error_queue(sock: socket.socket) -> bool:
    """Ask for an error queue on a datagram socket. Returns whether this system has one."""
    if not _LINUX:
        return False
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    except OSError:
        return False
    return True


def read_error_queue(sock: socket.socket) -> list[IcmpError]:
    """Take what the queue holds, at most :data:`QUEUE_BURST` entries. What sending itself has reported is left out."""
    errors: list[IcmpError] = []
    for _ in range(QUEUE_BURST):
        try:
            payload, control, _, remote = sock.recvmsg(_PAYLOAD_SPACE, _CONTROL_SPACE, socket.MSG_ERRQUEUE)
        except OSError:
            break
        error, local = None, b""
        for level, kind, value in control:
            if (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                error = parse_extended_error(value)
            elif (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                local = value[8:12]
            elif (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
                local = value[:16]
        if error is not None and error.origin in (_ORIGIN_ICMP, _ORIGIN_ICMP6):
            error.payload = payload
            error.remote = (*remote[:2], 0, remote[3]) if len(remote) == 4 else remote
            error.local = local
            errors.append(error)
    return errors


def parse_extended_error(data: bytes) -> IcmpError | None:
    """Decode one ``struct sock_extended_err`` with the offender's address behind it; None if it is cut short."""
    if len(data) < _EXTENDED_ERROR.size:
        return None
    number, origin, kind, code, info, _ = _EXTENDED_ERROR.unpack_from(data)
    return IcmpError(number, origin, kind, code, info, _offender(data[_EXTENDED_ERROR.size :]))


def _offender(address: bytes) -> str | None:
    if len(address) < 8:
        return None
    (family,) = _FAMILY.unpack_from(address)
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[4:8])
    if family == socket.AF_INET6 and len(address) >= 24:
        return socket.inet_ntop(socket.AF_INET6, address[8:24])
    return None
