"""The socket options of usrsctp that associations use, each as one function.

Knows the library's structures; knows no loop and keeps nothing.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from neatpy.stacks._sctp import library as sctp

if TYPE_CHECKING:
    from neatpy.stacks._sctp.engine import Path
    from neatpy.stacks._sctp.library import Library

LONGEST = 4e6
"""Seconds that a time has at most: usrsctp counts milliseconds in 32 bits, and this is 46 days."""

LARGEST_MTU = 65532
"""Of an association, before the path that it comes by is known."""

_SENDER_EVENTS = (
    sctp.ASSOC_CHANGE,
    sctp.PEER_ADDR_CHANGE,
    sctp.REMOTE_ERROR,
    sctp.SHUTDOWN_EVENT,
    sctp.PARTIAL_DELIVERY_EVENT,
    sctp.STREAM_RESET_EVENT,
    sctp.STREAM_CHANGE_EVENT,
    sctp.SEND_FAILED_EVENT,
)
_INTERLEAVE_STREAMS = 2
_PARTIAL_DELIVERY = 1  # bytes of a message that come before its pieces are told of
_COMMON_HEADER = 12  # which the library leaves out of an AF_CONN path's MTU
_RESET_EVERYTHING_BUT_ASSOCIATION = 5
_OFF = (sctp.ECN_SUPPORTED, sctp.ASCONF_SUPPORTED, sctp.AUTH_SUPPORTED)  # ASCONF needs AUTH, and goes first


class Scheduler(IntEnum):
    """Which stream's message is sent next."""

    DEFAULT = 0
    ROUND_ROBIN = 1
    ROUND_ROBIN_PACKET = 2
    """By packet. Without interleaving this deadlocks: do not use it then."""
    PRIORITY = 3
    FAIR_BANDWIDTH = 4
    FIRST_COME = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """How associations are made. Times are in milliseconds, buffers in bytes.

    ``streams`` are asked for and ``most_streams`` of the peer's accepted. A peer that does not answer is given up
    after ``retransmissions`` in a row, which takes some 40 s, and its path is said to have failed after
    ``path_retransmissions``; an attempt is given up after ``attempts`` INITs. ``rto_max`` is far below RFC 9260's 60 s:
    under loss the timeout keeps doubling as long as nothing but retransmissions is acknowledged, which measure nothing,
    and what is lost then would stall for as long. Partial reliability only drops what has
    been handed over, so that ``send_buffer`` bounds how much outlives its lifetime.
    """

    streams: int = 256
    most_streams: int = 8192
    send_buffer: int = 262144
    receive_buffer: int = 1048576
    rto_initial: int = 500
    rto_min: int = 50
    rto_max: int = 1000
    retransmissions: int = 45
    path_retransmissions: int = 5
    attempts: int = 8
    heartbeat: int = 30000
    acknowledgement_delay: int = 20


def new_socket(library: Library, settings: Settings, mtu: int) -> Any:
    """A non-blocking socket of one association, or to listen with. Raises OSError."""
    sock = library.c.usrsctp_socket(
        sctp.AF_CONN,
        socket.SOCK_STREAM,
        sctp.IPPROTO_SCTP,
        library.ffi.NULL,
        library.ffi.NULL,
        0,
        library.ffi.NULL,
    )
    if not sock:
        raise error(library)
    try:
        _configure(library, sock, settings, mtu)
    except BaseException:
        library.c.usrsctp_close(sock)
        raise
    return sock


def set_value(
    library: Library, sock: Any, option: int, value: int, association: int = sctp.FUTURE_ASSOC
) -> None:
    """Set an option that is a number for an association. Raises OSError."""
    _set(library, sock, option, library.ffi.new("struct sctp_assoc_value *", (association, value)))


def set_send_buffer(library: Library, sock: Any, size: int) -> None:
    """How many bytes the library keeps to send. Raises OSError."""
    _set(library, sock, socket.SO_SNDBUF, library.ffi.new("int *", size), socket.SOL_SOCKET)


def set_stream_value(library: Library, sock: Any, stream: int, value: int) -> None:
    """What the scheduler goes by for one stream. Raises OSError."""
    settings = library.ffi.new("struct sctp_stream_value *", (sctp.CURRENT_ASSOC, stream, value))
    _set(library, sock, sctp.SS_VALUE, settings)


def subscribe(
    library: Library, sock: Any, event: int, on: bool, association: int = sctp.FUTURE_ASSOC
) -> None:
    """Ask for, or do without, one kind of notification. Raises OSError."""
    _set(library, sock, sctp.EVENT, library.ffi.new("struct sctp_event *", (association, event, on)))


def set_path_mtu(library: Library, sock: Any, path: Path) -> None:
    """The MTU of an association's path, which may only be lowered. Raises OSError."""
    settings = _path_parameters(library, path)
    settings.pathmtu = path.mtu - _COMMON_HEADER
    settings.flags = sctp.SPP_PMTUD_DISABLE
    _set(library, sock, sctp.PEER_ADDR_PARAMS, settings)


def set_heartbeat(library: Library, sock: Any, path: Path, seconds: float | None) -> None:
    """How often an idle path is probed; None: never. Raises OSError."""
    settings = _path_parameters(library, path)
    if seconds is None:
        settings.flags = sctp.SPP_HB_DISABLE
    else:
        settings.flags = sctp.SPP_HB_ENABLE
        settings.hbinterval = max(1, round(min(seconds, LONGEST) * 1000))
    _set(library, sock, sctp.PEER_ADDR_PARAMS, settings)


def set_retransmissions(library: Library, sock: Any, count: int) -> None:
    """After how many retransmissions in a row the peer is given up. Raises OSError."""
    limits = library.ffi.new("struct sctp_assocparams *")
    limits.asocmaxrxt = count
    _set(library, sock, sctp.ASSOCINFO, limits)


def demand_heartbeat(library: Library, sock: Any, path: Path) -> None:
    """Probe the path now, which also sends what waits."""
    settings = _path_parameters(library, path)
    settings.flags = sctp.SPP_HB_DEMAND
    _set(library, sock, sctp.PEER_ADDR_PARAMS, settings)


def reset_streams(library: Library, sock: Any, streams: tuple[int, ...]) -> None:
    """Have outgoing streams start anew. Raises OSError."""
    ffi = library.ffi
    words = (sctp.RESET_OUTGOING, len(streams), *streams)
    memory = ffi.new("uint16_t[]", [0, 0, *words])
    _set_bytes(library, sock, sctp.RESET_STREAMS, memory, ffi.sizeof(memory))


def add_streams(library: Library, sock: Any, count: int) -> None:
    """Ask for more outgoing streams. Raises OSError."""
    _set(library, sock, sctp.ADD_STREAMS, library.ffi.new("struct sctp_add_streams *", (0, 0, count)))


def read_status(library: Library, sock: Any, memory: Any) -> Any | None:
    """``memory``, a sctp_status, filled in; None if there is no association."""
    size = library.ffi.new("socklen_t *", library.ffi.sizeof("struct sctp_status"))
    memory.assoc_id = 0
    failed = library.c.usrsctp_getsockopt(sock, sctp.IPPROTO_SCTP, sctp.STATUS, memory, size) < 0
    return None if failed else memory


def read_undelivered(library: Library, sock: Any) -> int:
    """Bytes that the peer has not acknowledged, sent or not."""
    use = library.ffi.new("uint32_t[3]")  # the association, to be sent, received
    size = library.ffi.new("socklen_t *", library.ffi.sizeof(use))
    failed = library.c.usrsctp_getsockopt(sock, sctp.IPPROTO_SCTP, sctp.GET_SNDBUF_USE, use, size) < 0
    return 0 if failed else int(use[1])


def pending_error(library: Library, sock: Any) -> int:
    """The error number that the socket's next call would fail with, or 0."""
    number = library.ffi.new("int *")
    size = library.ffi.new("socklen_t *", library.ffi.sizeof("int"))
    library.c.usrsctp_getsockopt(sock, socket.SOL_SOCKET, socket.SO_ERROR, number, size)
    return int(number[0])


def close_at_once(library: Library, sock: Any) -> None:
    """Close; an association that is still there is aborted."""
    linger = library.ffi.new("struct linger *", (1, 0))
    library.c.usrsctp_setsockopt(
        sock, socket.SOL_SOCKET, socket.SO_LINGER, linger, library.ffi.sizeof("struct linger")
    )
    library.c.usrsctp_close(sock)


def check(library: Library, result: int) -> None:
    """Raise the OSError of a call that failed."""
    if result < 0:
        raise error(library)


def error(library: Library, option: int | None = None) -> OSError:
    """The error of the call that has just failed."""
    number = library.ffi.errno
    return OSError(number, f"SCTP{'' if option is None else f' option {option:#x}'}: {os.strerror(number)}")


def _configure(library: Library, sock: Any, settings: Settings, mtu: int) -> None:
    new = library.ffi.new
    if library.c.usrsctp_set_non_blocking(sock, 1) < 0:
        raise error(library)
    for option, size in (
        (socket.SO_SNDBUF, settings.send_buffer),
        (socket.SO_RCVBUF, settings.receive_buffer),
    ):
        _set(library, sock, option, new("int *", size), socket.SOL_SOCKET)
    for option in (sctp.NODELAY, sctp.EXPLICIT_EOR, sctp.RECVRCVINFO):
        _set(library, sock, option, new("int *", 1))
    for option in _OFF:
        set_value(library, sock, option, 0)
    _set(library, sock, sctp.FRAGMENT_INTERLEAVE, new("int *", _INTERLEAVE_STREAMS))
    _set(library, sock, sctp.PARTIAL_DELIVERY_POINT, new("uint32_t *", _PARTIAL_DELIVERY))
    set_value(library, sock, sctp.INTERLEAVING_SUPPORTED, 1)
    set_value(library, sock, sctp.ENABLE_STREAM_RESET, _RESET_EVERYTHING_BUT_ASSOCIATION)
    start = (settings.streams, settings.most_streams, settings.attempts, settings.rto_max)
    _set(library, sock, sctp.INITMSG, new("struct sctp_initmsg *", start))
    times = (0, settings.rto_initial, settings.rto_max, settings.rto_min)
    _set(library, sock, sctp.RTOINFO, new("struct sctp_rtoinfo *", times))
    delay = (0, settings.acknowledgement_delay, 2)
    _set(library, sock, sctp.DELAYED_SACK, new("struct sctp_sack_info *", delay))
    limits = new("struct sctp_assocparams *")
    limits.asocmaxrxt = settings.retransmissions
    _set(library, sock, sctp.ASSOCINFO, limits)
    path = new("struct sctp_paddrparams *")
    path.address.ss_family = sctp.AF_CONN
    path.flags = sctp.SPP_HB_ENABLE | sctp.SPP_PMTUD_DISABLE
    path.hbinterval = settings.heartbeat
    path.pathmtu = mtu - _COMMON_HEADER
    path.pathmaxrxt = min(settings.path_retransmissions, max(1, settings.retransmissions // 2))
    _set(library, sock, sctp.PEER_ADDR_PARAMS, path)
    for event in _SENDER_EVENTS:
        subscribe(library, sock, event, True)


def _path_parameters(library: Library, path: Path) -> Any:
    settings = library.ffi.new("struct sctp_paddrparams *")
    name = library.ffi.cast("struct sockaddr_conn *", library.ffi.addressof(settings.address))
    name[0] = library.conn_address(path.number, 0)[0]
    return settings


def _set(library: Library, sock: Any, option: int, memory: Any, level: int = sctp.IPPROTO_SCTP) -> None:
    _set_bytes(library, sock, option, memory, library.ffi.sizeof(library.ffi.typeof(memory).item), level)


def _set_bytes(
    library: Library, sock: Any, option: int, memory: Any, size: int, level: int = sctp.IPPROTO_SCTP
) -> None:
    if library.c.usrsctp_setsockopt(sock, level, option, memory, size) < 0:
        raise error(library, option)
