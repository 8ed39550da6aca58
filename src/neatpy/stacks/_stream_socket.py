"""The sockets of byte streams until there is a Flow: made, given what the properties ask for, and connected. What is
sent and received then is unknown here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from neatpy.stacks._stream import StreamFlow
from neatpy.system import options
from neatpy.system.streams import open_streams

if TYPE_CHECKING:
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Candidate, Flow, FlowObserver, Stack

_NON_BLOCKING = getattr(socket, "SOCK_NONBLOCK", 0)
_NON_BLOCKING_STREAM = socket.SOCK_STREAM | _NON_BLOCKING


def begin_stream(
    stack: Stack, candidate: Candidate, observer: FlowObserver, protocol: int = 0
) -> StreamFlow | Coroutine[Any, Any, Flow]:
    """Start one attempt to connect: the Flow if the kernel connects at once, as on loopback, else what remains to be
    awaited. Raises OSError."""
    loop = asyncio.get_running_loop()
    properties = candidate.properties
    remote = candidate.remote.sockaddr()
    sock = socket.socket(candidate.remote.family, _NON_BLOCKING_STREAM, protocol)
    try:
        if not _NON_BLOCKING:
            sock.setblocking(False)
        configure(sock, candidate)
        result = sock.connect_ex(remote)
        if result == errno.EINPROGRESS:
            result = sock.connect_ex(remote)  # on loopback it is through by now, and 0 says so
        if result not in (0, errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN):
            raise refusal(result, remote)
    except BaseException:
        sock.close()
        raise
    flow = StreamFlow(stack, observer, properties, loop, open_streams.of(loop), sock, remote)
    if result:
        return when_connected(flow)
    flow.start()
    return flow


def configure(sock: socket.socket, candidate: Candidate) -> None:
    """Make the candidate's properties act on a new socket, and bind it. Raises OSError."""
    properties = candidate.properties
    set_options(sock, properties, candidate.interface, candidate.hop_limit)
    if candidate.remote.is_ipv6 and properties.use_temporary_local_address is None:
        options.prefer_temporary_address(sock, True)  # the default of whoever initiates
    if candidate.local is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(candidate.local.sockaddr())


def set_options(
    sock: socket.socket, properties: TransportProperties, interface: str | None, hop_limit: int | None
) -> None:
    """Make these properties act on a new socket, and on those that it accepts. Raises OSError."""
    options.limit_unsent(sock)
    options.choose_delay(sock, properties)
    if interface is not None:
        options.bind_to_interface(sock, interface)
    options.apply_stream_options(sock, properties)
    if hop_limit is not None:
        options.set_hop_limit(sock, hop_limit)


async def when_connected(flow: StreamFlow) -> Flow:
    """Wait until the kernel says how it went."""
    loop, sock = flow._loop, flow._sock
    told: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _tell, told)
    try:
        try:
            await told
        finally:
            loop.remove_writer(sock)
        result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise refusal(result, flow._remote)
    except BaseException:
        sock.close()
        raise
    flow.start()
    return flow


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)


def refusal(number: int, remote: tuple[Any, ...]) -> OSError:
    """What connecting failed with."""
    import os

    return OSError(number, f"{os.strerror(number)} ({remote[0]} port {remote[1]})")
