"""Socket options by the name of what they are for, the table that makes properties set them, and what the kernel says
of a connection.

Knows the kernel and plain property values; knows no stack. Every function may raise OSError where the kernel refuses.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from neatpy.enumerations import Preference

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from neatpy.enumerations import CapacityProfile
    from neatpy.properties import TransportProperties

_IPV6_ADDR_PREFERENCES = 72
_PREFER_TEMPORARY, _PREFER_PUBLIC = 1, 2
_SO_MAX_PACING_RATE = 47
_PACING_UNLIMITED = (1 << 64) - 1
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", 18)
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_USER_TIMEOUT_MAXIMUM = 0x7FFFFFFF
_ECN_BITS = 0x03
_ABORT_ON_CLOSE = struct.pack("ii", 1, 0)

_SIOCOUTQ = 0x5411
_SIZE = 104
_MICROSECOND = 1e-6

UNSENT_LIMIT = 256 * 1024
"""Bytes that the kernel holds unsent before a TCP socket stops being writable, so that what is not yet on its way
stays in our queue, where it can be reordered and expire."""


def bind_to_interface(sock: socket.socket, interface: str) -> None:
    """Send and receive on this interface only. Raises OSError if there is none of that name."""
    if sys.platform.startswith("linux"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        return
    index = socket.if_nametoindex(interface)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, 125, index)  # IPV6_BOUND_IF of the BSDs
    else:
        sock.setsockopt(socket.IPPROTO_IP, 25, index)  # IP_BOUND_IF


def set_dscp(sock: socket.socket, profile: CapacityProfile) -> None:
    """Mark packets with the capacity profile's DSCP (RFC 9622 section 8.1.6), leaving the ECN bits alone."""
    level, option = traffic_class_option(sock.family)
    ecn = sock.getsockopt(level, option) & _ECN_BITS
    sock.setsockopt(level, option, int(profile) << 2 | ecn)


def traffic_class_option(family: int) -> tuple[int, int]:
    """Level and name of the option (and control message) that holds DSCP and ECN."""
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, socket.IPV6_TCLASS
    return socket.IPPROTO_IP, socket.IP_TOS


def set_hop_limit(sock: socket.socket, limit: int | None) -> None:
    """TTL or hop limit of unicast packets, 0 to 255; None: the system's."""
    hops = -1 if limit is None else limit
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def prefer_temporary_address(sock: socket.socket, temporary: bool) -> None:
    """Choose between temporary and stable IPv6 source addresses (RFC 5014); IPv4 has none."""
    if sock.family == socket.AF_INET6 and sys.platform.startswith("linux"):
        value = _PREFER_TEMPORARY if temporary else _PREFER_PUBLIC
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, value)


def set_pacing_rate(sock: socket.socket, bits_per_second: float) -> None:
    """At most this rate leaves the socket; ``math.inf`` is unlimited. TCP only (UDP needs a fair-queueing qdisc)."""
    bytes_per_second = bits_per_second if bits_per_second == math.inf else max(1, bits_per_second // 8)
    rate = int(min(bytes_per_second, _PACING_UNLIMITED))
    sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("Q", rate))


def set_user_timeout(sock: socket.socket, seconds: float | None) -> None:
    """End the TCP connection when sent data stay unacknowledged this long (RFC 5482); None is the kernel's default."""
    milliseconds = 0 if seconds is None else min(_USER_TIMEOUT_MAXIMUM, max(1, math.ceil(seconds * 1000)))
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, milliseconds)


def set_keep_alive(sock: socket.socket, enabled: bool) -> None:
    """Probe an idle TCP connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(enabled))


def set_keep_alive_timeout(sock: socket.socket, seconds: float) -> None:
    """How long a TCP connection is idle before it is probed, rounded up to whole seconds (at most 32767)."""
    sock.setsockopt(socket.IPPROTO_TCP, _keep_alive_option(), min(32767, max(1, math.ceil(seconds))))


def _usual_keep_alive_timeout(family: int) -> float:
    with socket.socket(family, socket.SOCK_STREAM) as new:
        return new.getsockopt(socket.IPPROTO_TCP, _keep_alive_option())


def _keep_alive_option() -> int:
    return socket.TCP_KEEPIDLE if hasattr(socket, "TCP_KEEPIDLE") else 0x10  # TCP_KEEPALIVE of the BSDs


def limit_unsent(sock: socket.socket) -> None:
    """Keep at most :data:`UNSENT_LIMIT` unsent bytes in the kernel."""
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_LIMIT)


def abort_on_close(sock: socket.socket) -> None:
    """Make the next close discard what is unsent and reset the connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_ON_CLOSE)


def wants_small_packets_at_once(profile: CapacityProfile) -> bool:
    """Whether a capacity profile turns Nagle's algorithm off. All do but the two that seek throughput alone."""
    from neatpy.enumerations import CapacityProfile

    return profile not in (CapacityProfile.SCAVENGER, CapacityProfile.CAPACITY_SEEKING)


def set_no_delay(sock: socket.socket, enabled: bool) -> None:
    """Switch Nagle's algorithm off (enabled) or on."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(enabled))


def choose_delay(sock: socket.socket, properties: TransportProperties) -> None:
    """Nagle's algorithm as the capacity profile wants it: off by default, while the kernel has it on."""
    profile = properties.explicit().get("conn_capacity_profile")
    if profile is None or wants_small_packets_at_once(cast("CapacityProfile", profile)):
        set_no_delay(sock, True)


def _capacity_profile(sock: socket.socket, value: Any, _: TransportProperties) -> None:
    set_dscp(sock, value)
    set_no_delay(sock, wants_small_packets_at_once(value))


def _keep_alive(sock: socket.socket, _: Any, properties: TransportProperties) -> None:
    """Probing was asked for, or a time after which to probe was given and nothing said against it."""
    wanted = properties.keep_alive
    timed = wanted is Preference.NO_PREFERENCE and properties.keep_alive_timeout is not None
    set_keep_alive(sock, timed or wanted in (Preference.REQUIRE, Preference.PREFER))


def _keep_alive_timeout(sock: socket.socket, value: Any, properties: TransportProperties) -> None:
    set_keep_alive_timeout(sock, _usual_keep_alive_timeout(sock.family) if value is None else value)
    _keep_alive(sock, value, properties)


def _user_timeout(sock: socket.socket, _: Any, properties: TransportProperties) -> None:
    """``connTimeout`` decides; without it RFC 5482's local half: what we advertise, we also keep to."""
    timeout = properties.conn_timeout
    if timeout is None and properties.get("tcp.user_timeout_enabled"):
        advertised = properties.get("tcp.user_timeout_value")
        timeout = float(advertised) if isinstance(advertised, int) else None
    set_user_timeout(sock, timeout)


def _temporary_address(sock: socket.socket, value: Any, _: TransportProperties) -> None:
    if value in (Preference.REQUIRE, Preference.PREFER):
        prefer_temporary_address(sock, True)
    elif value in (Preference.AVOID, Preference.PROHIBIT):
        prefer_temporary_address(sock, False)


def _max_send_rate(sock: socket.socket, value: Any, _: TransportProperties) -> None:
    set_pacing_rate(sock, value)


STREAM_OPTIONS: Mapping[str, Callable[[socket.socket, Any, TransportProperties], None]] = {
    "keep_alive": _keep_alive,
    "keep_alive_timeout": _keep_alive_timeout,
    "conn_timeout": _user_timeout,
    "tcp.user_timeout_value": _user_timeout,
    "tcp.user_timeout_enabled": _user_timeout,
    "conn_capacity_profile": _capacity_profile,
    "max_send_rate": _max_send_rate,
    "use_temporary_local_address": _temporary_address,
}
"""What a property of that name does to a TCP socket."""


def apply_stream_options(sock: socket.socket, properties: TransportProperties) -> None:
    """Make every property that was set act on a new TCP socket."""
    for name, value in properties.explicit().items():
        option = STREAM_OPTIONS.get(name)
        if option is not None:
            option(sock, value, properties)


def tcp_statistics(sock: socket.socket) -> dict[str, float]:
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
    if fcntl is None:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, _SIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.ENOTSOCK):
            return 0
        raise
