"""TCP Fast Open (RFC 7413): the first bytes travel with the SYN to a server that has given us a cookie before.

The kernel keeps the cookies. Without one, or where it is switched off, the connection begins as any other.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from neatpy.enumerations import Preference
from neatpy.errors import Reason, SendError
from neatpy.message import MessageContext
from neatpy.stacks._stream import StreamFlow
from neatpy.stacks._stream_socket import configure, refusal, when_connected
from neatpy.system.streams import open_streams

if TYPE_CHECKING:
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Candidate, Data, Flow, FlowObserver, Stack

_MSG_FASTOPEN = 0x20000000
_TCP_FASTOPEN = getattr(socket, "TCP_FASTOPEN", 23)
_WAITING = 128
_SYN_DATA_ACCEPTED = 32
_WANTED = (Preference.REQUIRE, Preference.PREFER)
_SWITCHED_OFF = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPROTONOSUPPORT)


def wants_fast_open(properties: TransportProperties) -> bool:
    """Whether the application asks for 0-RTT (RFC 9622 section 6.2.5), and not to be recognised by a cookie (section
    8.1.10). Unasked, nothing travels with a SYN: some networks drop such packets."""
    return properties.zero_rtt_msg in _WANTED and not properties.isolate_session


def begin_fast_open(
    stack: Stack, candidate: Candidate, observer: FlowObserver, early: bytes, protocol: int = 0
) -> Coroutine[Any, Any, Flow]:
    """Start one attempt whose SYN carries these bytes, if it may. Raises OSError."""
    loop = asyncio.get_running_loop()
    remote = candidate.remote.sockaddr()
    sock = socket.socket(candidate.remote.family, socket.SOCK_STREAM, protocol)
    try:
        sock.setblocking(False)
        configure(sock, candidate)
        taken = _connect_with(sock, remote, early)
    except BaseException:
        sock.close()
        raise
    flow = FastOpenFlow(stack, observer, candidate.properties, loop, open_streams.of(loop), sock, remote)
    flow.early = early[:taken]
    return when_connected(flow)


def _connect_with(sock: socket.socket, remote: tuple[Any, ...], early: bytes) -> int:
    """How many bytes leave with the SYN, or with what follows it."""
    try:
        return sock.sendto(early, _MSG_FASTOPEN, remote)
    except BlockingIOError:  # no cookie yet: the SYN has asked for one
        return 0
    except OSError as error:
        if error.errno not in _SWITCHED_OFF:
            raise
    result = sock.connect_ex(remote)
    if result not in (0, errno.EINPROGRESS):
        raise refusal(result, remote)
    return 0


class FastOpenFlow(StreamFlow):
    """A connection that passes over what has left with its SYN when it is told to send it."""

    __slots__ = ("early",)

    early: bytes

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        early = self.early
        if early:
            whole = bytes(data)
            if not early.startswith(whole) and not whole.startswith(early):
                raise SendError("something else was sent with the SYN", Reason.PROTOCOL_FAILED, context)
            self.early = early[len(whole) :]
            data = whole[len(early) :]
            if not data:
                return True
        return super().send(data, context, end_of_message, token)


def accept_early_data(sock: socket.socket) -> None:
    """Let the clients of a listening socket use it. Where the system does not allow it, they connect as ever."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN, _WAITING)
    except OSError:
        return


def came_early(sock: socket.socket) -> bool:
    """Whether an accepted connection brought data with its SYN."""
    try:
        options: int = struct.unpack_from("=B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8), 5)[0]
    except (OSError, AttributeError, struct.error):
        return False
    return bool(options & _SYN_DATA_ACCEPTED)


def tell_early(flow: StreamFlow) -> None:
    """Hand on what came with the SYN of an accepted connection, marked as what may be a replay."""
    data = flow.read_early()
    if data:
        context = MessageContext()
        context.early_data = True
        flow.observer.received(data, context, False)
