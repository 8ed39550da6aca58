"""The C library usrsctp as it is: its declarations, its numbers, and where it is found.

cffi's ABI mode, so that nothing is compiled. Knows no loop, and calls nothing but what finds the library out.
Declarations follow usrsctp.h of 0.9.5; what an older or newer library lacks is told by :func:`obstacle`.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final

AF_CONN: Final = 123
IPPROTO_SCTP: Final = 132

# Socket options
RTOINFO, ASSOCINFO, INITMSG, NODELAY = 0x01, 0x02, 0x03, 0x04
PEER_ADDR_PARAMS, DELAYED_SACK, FRAGMENT_INTERLEAVE, PARTIAL_DELIVERY_POINT = 0x0A, 0x0F, 0x10, 0x11
MAX_BURST, EXPLICIT_EOR, EVENT, RECVRCVINFO = 0x19, 0x1B, 0x1E, 0x1F
ECN_SUPPORTED, PR_SUPPORTED, AUTH_SUPPORTED, ASCONF_SUPPORTED, RECONFIG_SUPPORTED = (
    0x25,
    0x26,
    0x27,
    0x28,
    0x29,
)
STATUS, ENABLE_STREAM_RESET, RESET_STREAMS, ADD_STREAMS = 0x100, 0x900, 0x901, 0x903
GET_SNDBUF_USE = 0x1101
PLUGGABLE_SS, SS_VALUE = 0x1203, 0x1204
INTERLEAVING_SUPPORTED: Final = 0x1206  # of sctp.h, not of usrsctp.h

FUTURE_ASSOC, CURRENT_ASSOC = 0, 1

# usrsctp_get_events
EVENT_READ, EVENT_WRITE, EVENT_ERROR = 1, 2, 4

# usrsctp_sendv
SENDV_SPA: Final = 4
SNDINFO_VALID, PRINFO_VALID = 1, 2
SEND_ABORT, SEND_UNORDERED, SEND_EOR = 0x0200, 0x0400, 0x2000
PR_NONE, PR_TTL, PR_RTX = 0, 1, 3

# usrsctp_recvv
MSG_NOTIFICATION: Final = 0x2000
MSG_EOR: Final = 0x8 if sys.platform in ("darwin", "win32") else int(getattr(socket, "MSG_EOR", 0x80))

# Notifications
(ASSOC_CHANGE, PEER_ADDR_CHANGE, REMOTE_ERROR, SHUTDOWN_EVENT) = (1, 2, 3, 5)
(PARTIAL_DELIVERY_EVENT, STREAM_RESET_EVENT, SENDER_DRY_EVENT, STREAM_CHANGE_EVENT, SEND_FAILED_EVENT) = (
    7, 9, 10, 13, 14,
)  # fmt: skip
COMM_UP, COMM_LOST, RESTART, SHUTDOWN_COMP, CANT_STR_ASSOC = 1, 2, 3, 4, 5
SUPPORTS_PR, SUPPORTS_RECONFIG, SUPPORTS_INTERLEAVING = 1, 5, 6
ADDR_AVAILABLE, ADDR_UNREACHABLE, ADDR_CONFIRMED = 1, 2, 6
RESET_INCOMING, RESET_OUTGOING, RESET_DENIED, RESET_FAILED = 1, 2, 4, 8
CHANGE_DENIED, CHANGE_FAILED = 4, 8

SPP_HB_ENABLE, SPP_HB_DISABLE, SPP_HB_DEMAND, SPP_PMTUD_DISABLE = 1, 2, 4, 0x10

_HAS_LENGTH = sys.platform == "darwin" or "bsd" in sys.platform
_FAMILY = "uint8_t sconn_len; uint8_t sconn_family;" if _HAS_LENGTH else "uint16_t sconn_family;"
_STORAGE = "uint8_t ss_len; uint8_t ss_family;" if _HAS_LENGTH else "uint16_t ss_family;"

# AF_CONN addresses are integers here: they are names of paths, never followed.
DECLARATIONS = (
    f"""
    typedef uint32_t socklen_t;
    struct sockaddr_conn {{ {_FAMILY} uint16_t sconn_port; uintptr_t sconn_addr; }};
    struct sockaddr_storage {{ {_STORAGE} char padding[118]; uint64_t alignment; }};
    """
    """
    struct sctp_initmsg { uint16_t num_ostreams, max_instreams, max_attempts, max_init_timeo; };
    struct sctp_rtoinfo { uint32_t assoc_id, initial, max, min; };
    struct sctp_assocparams { uint32_t assoc_id, peer_rwnd, local_rwnd, cookie_life;
                              uint16_t asocmaxrxt, number_peer_destinations; };
    struct sctp_paddrparams { struct sockaddr_storage address; uint32_t assoc_id, hbinterval, pathmtu, flags,
                              ipv6_flowlabel; uint16_t pathmaxrxt; uint8_t dscp; };
    struct sctp_sack_info { uint32_t assoc_id, delay, freq; };
    struct sctp_assoc_value { uint32_t assoc_id, value; };
    struct sctp_stream_value { uint32_t assoc_id; uint16_t stream_id, value; };
    struct sctp_event { uint32_t assoc_id; uint16_t type; uint8_t on; };
    struct sctp_add_streams { uint32_t assoc_id; uint16_t instrms, outstrms; };
    struct sctp_paddrinfo { struct sockaddr_storage address; uint32_t assoc_id; int32_t state;
                            uint32_t cwnd, srtt, rto, mtu; };
    struct sctp_status { uint32_t assoc_id; int32_t state; uint32_t rwnd; uint16_t unackdata, penddata, instrms,
                         outstrms; uint32_t fragmentation_point; struct sctp_paddrinfo primary; };
    struct linger { int onoff, seconds; };

    struct sctp_sndinfo { uint16_t sid, flags; uint32_t ppid, context, assoc_id; };
    struct sctp_prinfo { uint16_t policy; uint32_t value; };
    struct sctp_authinfo { uint16_t keynumber; };
    struct sctp_sendv_spa { uint32_t flags; struct sctp_sndinfo sndinfo; struct sctp_prinfo prinfo;
                            struct sctp_authinfo authinfo; };
    struct sctp_rcvinfo { uint16_t sid, ssn, flags; uint32_t ppid, tsn, cumtsn, context, assoc_id; };

    struct socket;
    typedef int (*conn_output)(uintptr_t address, void *packet, size_t length, uint8_t tos, uint8_t set_df);
    typedef void (*upcall)(struct socket *, uintptr_t argument, int);

    void usrsctp_init_nothreads(uint16_t, conn_output, void *);
    int usrsctp_finish(void);
    void usrsctp_handle_timers(uint32_t);
    void usrsctp_conninput(uintptr_t, const char *, size_t, uint8_t);
    void usrsctp_register_address(uintptr_t);
    void usrsctp_deregister_address(uintptr_t);
    struct socket *usrsctp_socket(int, int, int, void *, void *, uint32_t, void *);
    int usrsctp_setsockopt(struct socket *, int, int, const void *, socklen_t);
    int usrsctp_getsockopt(struct socket *, int, int, void *, socklen_t *);
    int usrsctp_bind(struct socket *, struct sockaddr_conn *, socklen_t);
    int usrsctp_listen(struct socket *, int);
    struct socket *usrsctp_accept(struct socket *, struct sockaddr_conn *, socklen_t *);
    int usrsctp_connect(struct socket *, struct sockaddr_conn *, socklen_t);
    ssize_t usrsctp_sendv(struct socket *, const char *, size_t, void *, int, struct sctp_sendv_spa *, socklen_t,
                          unsigned int, int);
    ssize_t usrsctp_recvv(struct socket *, char *, size_t, void *, socklen_t *, struct sctp_rcvinfo *, socklen_t *,
                          unsigned int *, int *);
    int usrsctp_shutdown(struct socket *, int);
    void usrsctp_close(struct socket *);
    int usrsctp_set_non_blocking(struct socket *, int);
    int usrsctp_set_upcall(struct socket *, upcall, uintptr_t);
    int usrsctp_get_events(struct socket *);
    """
)

_NEEDED = (
    "usrsctp_init_nothreads",
    "usrsctp_handle_timers",
    "usrsctp_set_upcall",
    "usrsctp_get_events",
    "usrsctp_conninput",
)


class Library:
    """The loaded library: ``ffi`` for memory, ``c`` for its functions."""

    __slots__ = ("c", "ffi", "path")

    def __init__(self, ffi: Any, c: Any, path: str) -> None:
        self.ffi = ffi
        self.c = c
        self.path = path

    def conn_address(self, address: int, port: int) -> Any:
        """A new AF_CONN socket address."""
        name = self.ffi.new("struct sockaddr_conn *")
        if _HAS_LENGTH:
            name.sconn_len = self.ffi.sizeof("struct sockaddr_conn")
        name.sconn_family = AF_CONN
        name.sconn_port = socket.htons(port)
        name.sconn_addr = address
        return name


class _Search:
    """Looks for the library once for each value of NEATPY_USRSCTP, and remembers what came of it."""

    __slots__ = ("_asked", "_found", "_problem")

    def __init__(self) -> None:
        self._asked: str | None = None
        self._found: Library | None = None
        self._problem = ""

    def result(self) -> Library | str:
        asked = os.environ.get("NEATPY_USRSCTP", "")
        if self._asked is None or (self._found is None and asked != self._asked):
            self._asked = asked
            found = _find(asked)
            self._found, self._problem = (None, found) if isinstance(found, str) else (found, "")
        return self._found or self._problem


_SEARCH = _Search()


def load() -> Library:
    """The library, loaded at the first call. Raises OSError if :func:`obstacle` has something to say."""
    found = _SEARCH.result()
    if isinstance(found, str):
        raise OSError(found)
    return found


def obstacle() -> str | None:
    """Why this host has no SCTP, in words that say what to install; or None. Cheap after the first call."""
    found = _SEARCH.result()
    return found if isinstance(found, str) else None


def _find(asked: str) -> Library | str:
    try:
        ffi = _declared()
    except ImportError:
        return "SCTP needs the package cffi: install NEATPy with its extra sctp"
    for name in (asked,) if asked else _candidates():
        try:
            c = ffi.dlopen(name)
        except OSError as error:
            if asked:
                return f"NEATPY_USRSCTP names no usable library: {error}"
            continue
        missing = [function for function in _NEEDED if not hasattr(c, function)]
        if missing:
            return f"{name} is too old for SCTP: it has no {missing[0]}"
        return Library(ffi, c, name)
    return "SCTP needs the library usrsctp (Debian: libusrsctp2), or its path in NEATPY_USRSCTP"


def _declared() -> Any:
    """The declarations. Those of systems like Linux are kept ready for use: reading C takes tens of milliseconds."""
    if not _HAS_LENGTH:
        from neatpy.stacks._sctp._declarations import ffi

        return ffi
    import cffi

    described = cffi.FFI()
    described.cdef(DECLARATIONS)
    return described


def _candidates() -> Iterator[str]:
    yield from ("libusrsctp.so.2", "libusrsctp.so", "libusrsctp.dylib")
    import ctypes.util

    found = ctypes.util.find_library("usrsctp")  # the last, since it starts programs to look
    if found:
        yield found
