"""Accepting kernel byte streams: one listening socket, and a Flow of each connection that comes in."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

from neatpy.enumerations import Preference
from neatpy.stacks._stream import StreamFlow
from neatpy.stacks._stream_socket import set_options
from neatpy.stacks.contract import Accepted, Address, FlowObserver, ListenRequest, StackListener
from neatpy.system.streams import open_streams

if TYPE_CHECKING:
    from types import ModuleType

    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Stack

BACKLOG = 1024

_REST = 1.0
"""Seconds to wait before accepting again when the process or the system has run out of something."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_UNBOUND = FlowObserver()


class StreamListener(StackListener):
    """A listening TCP socket."""

    __slots__ = (
        "_accepted",
        "_address",
        "_early",
        "_loop",
        "_name",
        "_request",
        "_rest",
        "_sock",
        "_stack",
        "_streams",
    )

    def __init__(
        self,
        stack: Stack,
        request: ListenRequest,
        accepted: Accepted,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
    ) -> None:
        self._stack = stack
        self._request = request
        self._accepted = accepted
        self._loop = loop
        self._sock = sock
        self._streams = open_streams.of(loop)
        name = sock.getsockname()
        self._address = Address.of(name)
        self._name = None if request.local.ip in ("0.0.0.0", "::") else name
        self._rest: asyncio.TimerHandle | None = None
        self._early = _early(request.properties, sock)
        loop.add_reader(sock.fileno(), self._accept)

    @property
    def local_address(self) -> Address:
        return self._address

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        if self._rest is not None:
            self._rest.cancel()

    def _accept(self) -> None:
        """Take one connection; the loop says at once if there are more, and others have their turn between."""
        try:
            sock, remote = self._sock.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._pause(error)
            return  # else it is gone before we came
        sock.setblocking(False)
        request = self._request
        flow = StreamFlow(
            self._stack,
            _UNBOUND,
            request.properties,
            self._loop,
            self._streams,
            sock,
            remote,
            self._name,
        )
        if request.admits is not None and not request.admits(flow.remote_address.ip):
            flow.abort()
            return
        flow.start()
        self._accepted(flow)
        if self._early is not None and self._early.came_early(sock):
            self._loop.call_soon(self._early.tell_early, flow)

    def _pause(self, error: OSError) -> None:
        self._loop.call_exception_handler(
            {"message": f"cannot accept connections on {self._address} now", "exception": error}
        )
        self._loop.remove_reader(self._sock.fileno())
        self._rest = self._loop.call_later(_REST, self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        self._loop.add_reader(self._sock.fileno(), self._accept)


def _early(properties: TransportProperties, sock: socket.socket) -> ModuleType | None:
    """What deals with data that come with a SYN, if the Listener takes any."""
    if properties.zero_rtt_msg not in (Preference.REQUIRE, Preference.PREFER):
        return None
    from neatpy.stacks import _fast_open

    _fast_open.accept_early_data(sock)
    return _fast_open


async def listen_stream(
    stack: Stack, request: ListenRequest, accepted: Accepted, protocol: int = 0
) -> StreamListener:
    """Bind and accept. Raises OSError."""
    sock = socket.socket(request.local.family, socket.SOCK_STREAM, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        set_options(sock, request.properties, request.interface, request.hop_limit)
        sock.bind(request.local.sockaddr())
        sock.listen(BACKLOG)
        return StreamListener(stack, request, accepted, asyncio.get_running_loop(), sock)
    except BaseException:
        sock.close()
        raise
