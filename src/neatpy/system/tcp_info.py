"""What the kernel says of a TCP connection: TCP_INFO, and how much is still unacknowledged (Linux)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Protocol

_SIOCOUTQ = 0x5411
_SIZE = 104
_MICROSECOND = 1e-6


class HasOptions(Protocol):
    """A socket, or what an event loop offers instead of one."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes:
        """As of ``socket.socket``."""
        ...


def tcp_statistics(sock: HasOptions) -> dict[str, float]:
    """RTT and its variance (s), retransmitted segments, path MTU and congestion window (segments); empty if the
    kernel does not tell."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return {}
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, option, _SIZE)
    except OSError:
        return {}
    if len(info) < _SIZE:
        return {}
    path_mtu, _, rtt, rtt_variance, _, congestion_window = struct.unpack_from("=6I", info, 60)
    (retransmissions,) = struct.unpack_from("=I", info, 100)
    return {
        "rtt": rtt * _MICROSECOND,
        "rtt_variance": rtt_variance * _MICROSECOND,
        "retransmissions": float(retransmissions),
        "path_mtu": float(path_mtu),
        "congestion_window": float(congestion_window),
    }


def unacknowledged(descriptor: int) -> int:
    """Bytes that were written and that the peer has not acknowledged, the FIN counting as one; 0 if unknown."""
    try:
        import fcntl

        return int.from_bytes(fcntl.ioctl(descriptor, _SIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
    except ImportError:
        return 0
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.ENOTSOCK):
            return 0
        raise
