"""A Flow over one kernel byte stream (TCP, and what looks like it), on the loop's own transports.

The sockets are made and configured here, then handed to the event loop. The transport's high-water mark is zero, so
that whatever it still holds after a write is exactly what the kernel has not taken: that is what Sent means.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from neatpy.errors import ConnectionError, PropertyError, Reason, TransportServicesError
from neatpy.stacks.contract import (
    Accepted,
    Address,
    Candidate,
    Data,
    Flow,
    FlowObserver,
    ListenRequest,
    StackListener,
)
from neatpy.system import options

if TYPE_CHECKING:
    from neatpy.message import MessageContext
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Stack

LINGER = 10.0
"""Seconds that ``close`` waits for the peer to acknowledge more of what was sent before it gives up."""

LINGER_IN_ALL = 120.0
"""Seconds after which ``close`` gives up even on a peer that acknowledges a little now and then."""

DRAIN = 5.0
"""Seconds for which a closed Flow still reads and discards, so that a peer that was sending is not reset."""

_HOLD = 3600.0
"""Seconds after which the hold on a Flow that is not reading is renewed; any time will do."""

BACKLOG = 1024
_NON_BLOCKING = getattr(socket, "SOCK_NONBLOCK", 0)
_NON_BLOCKING_STREAM = socket.SOCK_STREAM | _NON_BLOCKING
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)
"""What a kernel says of an established connection that timed out when it knows why the peer did not answer: by
themselves these end no connection (RFC 9293 section 3.9.2.2)."""

_JOIN_LIMIT = 64 * 1024
_LARGE_READ = 64 * 1024
_FIRST_POLL, _SLOWEST_POLL = 0.001, 0.1
_UNBOUND = FlowObserver()


class StreamFlow(Flow, asyncio.Protocol):
    """One TCP connection. It is its own asyncio Protocol, to spare every idle connection an object."""

    __slots__ = (
        "_accepted",
        "_closing",
        "_corked",
        "_finishing",
        "_holder",
        "_loop",
        "_paused",
        "_properties",
        "_remote_finished",
        "_stack",
        "_tokens",
        "_transport",
        "writable",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        stack: Stack,
        observer: FlowObserver,
        properties: TransportProperties,
        loop: asyncio.AbstractEventLoop,
        accepted: Callable[[StreamFlow], None] | None = None,
    ) -> None:
        self._stack = stack
        self._loop = loop
        self.observer = observer
        self._properties = properties
        self._accepted = accepted
        self.writable = True
        self._tokens: list[object] | None = None
        self._corked: list[bytes] | None = None
        self._closing: _Closing | None = None
        self._finishing = self._paused = False
        self._remote_finished = False
        self._holder: asyncio.Handle | None = None

    @property
    def stack(self) -> Stack:
        return self._stack

    @property
    def local_address(self) -> Address:
        return address_of(self._transport.get_extra_info("sockname"))

    @property
    def remote_address(self) -> Address:
        return address_of(self._transport.get_extra_info("peername"))

    # Sending

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        if type(data) is not bytes:
            data = bytes(data)
        corked = self._corked
        if corked is not None:
            corked.append(data)
            self._await_taking(token)
            return False
        transport = self._transport
        transport.write(data)
        if self.writable and not transport.is_closing():
            return True
        self._await_taking(token)
        return False

    @property
    def coalesces(self) -> bool:
        return True

    def cork(self) -> None:
        if self._corked is None:
            self._corked = []

    def uncork(self) -> None:
        corked, self._corked = self._corked, None
        if not corked:
            return
        transport = self._transport
        pieces = joined(corked)
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)
        if self.writable and not transport.is_closing():
            self._all_taken()

    def _await_taking(self, token: object) -> None:
        if self._tokens is None:
            self._tokens = [token]
        else:
            self._tokens.append(token)

    def _all_taken(self) -> None:
        tokens, self._tokens = self._tokens, None
        if tokens:
            sent = self.observer.sent
            for token in tokens:
                sent(token)

    # Receiving

    def pause_receiving(self) -> None:
        if not self._remote_finished and self._closing is None:
            self._paused = True
            self._transport.pause_reading()
            self._hold()

    def resume_receiving(self) -> None:
        self._paused = False
        if not self._remote_finished:
            self._transport.resume_reading()
            self._let_go()

    def _take_a_breath(self) -> None:
        """Under uvloop a busy socket is read dozens of times before anything else runs. Whoever waits for data should
        have them first: memory that is used again at once is still in the caches."""
        self._transport.pause_reading()
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._paused and not self._remote_finished:
            self._transport.resume_reading()

    def _hold(self) -> None:
        """A loop refers only to what it reads from or writes to; nobody else has to keep a reference to us."""
        self._let_go()
        self._holder = self._loop.call_later(_HOLD, self._hold)

    def _let_go(self) -> None:
        if self._holder is not None:
            self._holder.cancel()
            self._holder = None

    # Ending

    def finish(self) -> None:
        if not self._finishing:
            self._finishing = True
            with contextlib.suppress(OSError):  # the peer may have reset the connection already
                self._transport.write_eof()

    def close(self) -> None:
        if self._closing is None:
            self.resume_receiving()
            self._closing = _Closing(self)
            if not self._remote_finished:  # else closing the socket says all there is to say
                self.finish()

    def abort(self) -> None:
        self.observer = _UNBOUND
        if self._closing is not None:
            self._closing.cancel()
        transport = self._transport
        if not transport.is_closing():
            sock = transport.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):  # the connection may be gone already
                    options.abort_on_close(sock)
        transport.abort()

    # Properties

    def apply(self, name: str, value: object) -> None:
        option = options.STREAM_OPTIONS.get(name)
        if option is None:
            return
        changed = self._properties.snapshot()
        changed.set(name, value)
        try:
            option(self._transport.get_extra_info("socket"), value, changed)
        except OSError as error:
            raise PropertyError(
                f"{name} = {value!r}: the kernel refuses it ({error.strerror or error})"
            ) from error
        self._properties = changed

    def backlog(self) -> int:
        transport = self._transport
        sock = transport.get_extra_info("socket")
        descriptor = -1 if sock is None else sock.fileno()
        return transport.get_write_buffer_size() + (
            options.unacknowledged(descriptor) if descriptor >= 0 else 0
        )

    def is_dead(self) -> bool:
        """Whether the kernel has given the connection up; loops do not notice a reset after the peer's FIN."""
        sock = self._transport.get_extra_info("socket")
        return sock is not None and options.tcp_is_closed(sock)

    def read(self, name: str) -> object:
        return sys.maxsize if name in ("send_msg_max_len", "recv_msg_max_len") else None

    def statistics(self) -> dict[str, float]:
        sock = self._transport.get_extra_info("socket")
        return {} if sock is None else options.tcp_statistics(sock)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        if self._accepted is not None:
            accepted, self._accepted = self._accepted, None
            accepted(self)

    def data_received(self, data: bytes) -> None:
        if self._closing is None:
            self.observer.received(data, None, False)
            if len(data) >= _LARGE_READ and not isinstance(self._loop, asyncio.BaseEventLoop):
                self._take_a_breath()

    def eof_received(self) -> bool:
        self._remote_finished = True
        self._hold()
        if self._closing is not None:
            self._closing.peer_finished()
        else:
            self.observer.finished()
        return True

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._all_taken()
        if self.writable and self._closing is None:
            self.observer.writable()

    def connection_lost(self, error: Exception | None) -> None:
        self.writable = False
        self._let_go()
        closing, observer = self._closing, self.observer
        self.observer = _UNBOUND
        if closing is not None:
            closing.cancel()
            if closing.reported:
                return
        observer.closed(broken(error))


class _Closing:
    """The last part of a Flow's life: what was sent is delivered, what arrives is discarded.

    Closed is reported once the peer has acknowledged all data; the socket lives on for a while if the peer is still
    sending, because closing it then would reset the peer and could destroy what it has not read yet.
    """

    __slots__ = ("_deadline", "_flow", "_handle", "_interval", "_last", "_peer_finished", "reported")

    def __init__(self, flow: StreamFlow) -> None:
        self._flow = flow
        self.reported = False
        self._peer_finished = flow._remote_finished
        self._interval = _FIRST_POLL
        self._last = -1
        loop = flow._loop
        now = loop.time()
        self._deadline = (now + LINGER, now + LINGER_IN_ALL)
        self._handle: asyncio.Handle = loop.call_soon(self._poll)

    def cancel(self) -> None:
        self._handle.cancel()

    def peer_finished(self) -> None:
        self._peer_finished = True
        if self.reported:
            self._release()

    def _poll(self) -> None:
        flow = self._flow
        outstanding = flow.backlog()
        loop = flow._loop
        if outstanding <= 1:  # the FIN itself may still be on its way
            self._report(None)
            if self._peer_finished:
                self._release()
            else:
                self._handle = loop.call_later(DRAIN, self._release)
            return
        if flow.is_dead():
            self._report(broken(None))
            flow.abort()
            return
        now = loop.time()
        if outstanding != self._last:
            self._last = outstanding
            self._deadline = (now + LINGER, self._deadline[1])
        if now >= min(self._deadline):
            self._report(
                ConnectionError(
                    f"the peer did not acknowledge the last {outstanding} bytes in time", Reason.TIMEOUT
                )
            )
            flow.abort()
            return
        self._handle = loop.call_later(self._interval, self._poll)
        self._interval = min(self._interval * 2, _SLOWEST_POLL)

    def _report(self, error: TransportServicesError | None) -> None:
        self.reported = True
        observer, self._flow.observer = self._flow.observer, _UNBOUND
        observer.closed(error)

    def _release(self) -> None:
        self._handle.cancel()
        self._flow._transport.close()


class StreamListener(StackListener):
    """A listening TCP socket."""

    __slots__ = ("_address", "_server")

    def __init__(self, server: asyncio.AbstractServer, address: Address) -> None:
        self._server = server
        self._address = address

    @property
    def local_address(self) -> Address:
        return self._address

    def close(self) -> None:
        self._server.close()


async def connect_stream(
    stack: Stack, candidate: Candidate, observer: FlowObserver, protocol: int = 0
) -> StreamFlow:
    """One attempt to connect. Raises OSError."""
    loop = asyncio.get_running_loop()
    remote = candidate.remote
    sock = socket.socket(family_of(remote), _NON_BLOCKING_STREAM, protocol)
    try:
        if not _NON_BLOCKING:
            sock.setblocking(False)
        options.limit_unsent(sock)
        if candidate.interface is not None:
            options.bind_to_interface(sock, candidate.interface)
        options.apply_stream_options(sock, candidate.properties)
        if remote.is_ipv6 and candidate.properties.use_temporary_local_address is None:
            options.prefer_temporary_address(sock, True)  # the default of whoever initiates
        if candidate.hop_limit is not None:
            options.set_hop_limit(sock, candidate.hop_limit)
        if candidate.local is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(sockaddr(candidate.local))
        await _connect_socket(loop, sock, sockaddr(remote))
        flow = StreamFlow(stack, observer, candidate.properties, loop)
        await loop.create_connection(lambda: flow, sock=sock)
    except BaseException:
        sock.close()
        raise
    _restore_nagle(sock, candidate.properties)
    return flow


async def listen_stream(
    stack: Stack, request: ListenRequest, accepted: Accepted, protocol: int = 0
) -> StreamListener:
    """Bind and accept. Raises OSError."""
    loop = asyncio.get_running_loop()
    properties = request.properties
    sock = socket.socket(family_of(request.local), socket.SOCK_STREAM, protocol)

    def admit(flow: StreamFlow) -> None:
        if request.admits is not None and not request.admits(flow.remote_address.ip):
            flow.abort()
            return
        _restore_nagle(flow._transport.get_extra_info("socket"), properties)
        accepted(flow)

    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        options.limit_unsent(sock)
        if request.interface is not None:
            options.bind_to_interface(sock, request.interface)
        options.apply_stream_options(sock, properties)
        if request.hop_limit is not None:
            options.set_hop_limit(sock, request.hop_limit)
        sock.bind(sockaddr(request.local))
        server = await loop.create_server(
            lambda: StreamFlow(stack, _UNBOUND, properties, loop, admit), sock=sock, backlog=BACKLOG
        )
        return StreamListener(server, address_of(sock.getsockname()))
    except BaseException:
        sock.close()
        raise


async def _connect_socket(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[Any, ...]
) -> None:
    """``loop.sock_connect``, but without a turn of the loop where the kernel connects at once."""
    result = sock.connect_ex(address)
    if result == errno.EINPROGRESS:
        result = sock.connect_ex(address)  # on loopback it is through by now, and 0 says so
    if result == 0:
        return
    if result not in (errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN):
        raise OSError(result, f"{_strerror(result)} ({address[0]} port {address[1]})")
    connected: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _connect_done, sock, connected)
    try:
        await connected
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({address[0]} port {address[1]})") from None
    finally:
        loop.remove_writer(sock)


def _connect_done(sock: socket.socket, connected: asyncio.Future[None]) -> None:
    if connected.done():
        return
    result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if result:
        connected.set_exception(OSError(result, _strerror(result)))
    else:
        connected.set_result(None)


def _strerror(number: int) -> str:
    import os

    return os.strerror(number)


def _restore_nagle(sock: socket.socket, properties: TransportProperties) -> None:
    """Event loops switch Nagle's algorithm off on every TCP transport; two capacity profiles want it on."""
    if not options.wants_small_packets_at_once(properties.conn_capacity_profile):
        options.set_no_delay(sock, False)


def joined(pieces: list[bytes]) -> list[bytes]:
    """Small pieces joined and large ones left alone, so that neither system calls nor copies are wasted."""
    if len(pieces) == 1:
        return pieces
    result: list[bytes] = []
    run: list[bytes] = []
    for piece in pieces:
        if len(piece) < _JOIN_LIMIT:
            run.append(piece)
            continue
        if run:
            result.append(b"".join(run))
            run = []
        result.append(piece)
    if run:
        result.append(b"".join(run))
    return result


def broken(error: BaseException | None) -> TransportServicesError:
    """The end of a TCP connection as a ConnectionError with its reason."""
    if isinstance(error, TransportServicesError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
        reason, text = Reason.TIMEOUT, "the connection timed out"
    elif isinstance(error, OSError) and error.errno in _UNREACHABLE:
        reason, text = Reason.TIMEOUT, f"the connection timed out: {error.strerror}"
    elif error is None or isinstance(error, ConnectionResetError | BrokenPipeError):
        reason, text = Reason.CONNECTION_ABORTED, "the peer aborted the connection"
    else:
        reason, text = Reason.PROTOCOL_FAILED, f"the connection broke: {error}"
    result = ConnectionError(text, reason)
    result.__cause__ = error
    return result


def family_of(address: Address) -> socket.AddressFamily:
    """The socket family of an address."""
    return socket.AF_INET6 if address.is_ipv6 else socket.AF_INET


def sockaddr(address: Address) -> tuple[Any, ...]:
    """An address in the form that sockets take. Raises OSError for an unknown zone."""
    if not address.is_ipv6:
        return (address.ip, address.port)
    scope = 0
    if address.scope:
        scope = int(address.scope) if address.scope.isdigit() else socket.if_nametoindex(address.scope)
    return (address.ip, address.port, 0, scope)


def address_of(sockname: tuple[Any, ...] | None) -> Address:
    """What sockets give for an address, in our form."""
    if not sockname:
        return Address("0.0.0.0", 0)
    ip, _, zone = str(sockname[0]).partition("%")
    scope = sockname[3] if len(sockname) > 3 and sockname[3] else zone
    return Address(ip, sockname[1], str(scope) if scope else "")
