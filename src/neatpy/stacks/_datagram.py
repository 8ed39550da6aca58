"""The Flow that is UDP itself: each Message is one datagram.

An initiated Flow has a connected socket of its own; Flows of a Listener share its socket and own one four-tuple each.
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from neatpy.errors import ConnectionError, PropertyError, Reason, SendError
from neatpy.stacks.contract import Address, Data, Flow, FlowObserver
from neatpy.system import options
from neatpy.system.datagram_options import (
    LARGEST_V4,
    LARGEST_V6,
    Control,
    SocketAddress,
    largest_unfragmented,
    largest_unfragmented_to,
    source_control,
    traffic_class_control,
    wants_errors,
)
from neatpy.system.datagram_socket import DatagramObserver, DatagramSocket
from neatpy.system.pacing import Pacer

if TYPE_CHECKING:
    from neatpy.message import MessageContext
    from neatpy.properties import TransportProperties
    from neatpy.stacks.contract import Stack
    from neatpy.system.datagrams import DatagramPort

LINGER = 5.0
"""Seconds that ``close`` waits for the kernel to take what was sent."""

HELD_DATAGRAMS, HELD_BYTES = 64, 1 << 18
"""What a paused Flow of a Listener keeps; UDP has no flow control, so that more is dropped."""

_OPEN, _CLOSING, _OVER = "open", "closing", "over"
_UNBOUND = FlowObserver()


class UdpFlow(Flow, DatagramObserver):
    """One UDP Connection: a pair of addresses and ports. Nothing the network does ever ends it.

    A rate limit works by debt: a datagram leaves at once, and the Flow is not writable until its time is paid.
    """

    __slots__ = (
        "_address",
        "_control",
        "_destination",
        "_family",
        "_held",
        "_loop",
        "_names",
        "_pacer",
        "_partial",
        "_paused",
        "_pending",
        "_phase",
        "_port",
        "_properties",
        "_socket",
        "_stack",
        "_timer",
        "_traffic_class",
        "bytes_received",
        "bytes_sent",
        "datagrams_dropped",
        "datagrams_received",
        "datagrams_sent",
        "errors",
        "writable",
    )

    preserves_boundaries = True

    def __init__(
        self,
        stack: Stack,
        observer: FlowObserver,
        properties: TransportProperties,
        loop: asyncio.AbstractEventLoop,
        family: int,
    ) -> None:
        self._stack = stack
        self.observer = observer
        self._properties = properties
        self._loop = loop
        self._family = family
        self._phase = _OPEN
        self.writable = True
        self._socket: DatagramSocket | None = None
        self._port: DatagramPort | None = None
        self._names: tuple[Address, Address] | None = None
        self._address: SocketAddress | None = None
        self._destination = b""
        self._control: Control = ()
        self._traffic_class = 0
        self._partial: _Partial | None = None
        self._pending: deque[tuple[bytes, Control, bool, object]] | None = None
        self._held: deque[tuple[bytes, int]] | None = None
        self._paused = False
        self._pacer: Pacer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.datagrams_sent = self.datagrams_received = self.datagrams_dropped = 0
        self.bytes_sent = self.bytes_received = self.errors = 0

    def start_alone(self, sock: socket.socket) -> None:
        """Use this connected socket, which nobody shares. Raises OSError."""
        for name in ("conn_capacity_profile", "max_send_rate"):
            self._act(name, self._properties.get(name), sock)
        self._names = (Address.of(sock.getsockname()), Address.of(sock.getpeername()))
        self._socket = DatagramSocket(self._loop, sock, self, errors=wants_errors(self._properties))
        self._socket.resume_receiving()

    def start_shared(self, port: DatagramPort, source: SocketAddress, destination: bytes) -> None:
        """Use this four-tuple of a Listener's socket."""
        self._port = port
        self._address = source
        self._destination = destination
        if destination:
            self._control = (source_control(destination),)
        for name in ("conn_capacity_profile", "max_send_rate"):
            self._act(name, self._properties.get(name), None)

    @property
    def over(self) -> bool:
        """Whether it has given its socket or four-tuple back."""
        return self._phase is _OVER

    @property
    def stack(self) -> Stack:
        return self._stack

    @property
    def local_address(self) -> Address:
        if self._names is not None:
            return self._names[0]
        assert self._port is not None
        bound = self._port.local_address
        if not self._destination:
            return bound
        scope = self.remote_address.scope if self._destination[:2] == b"\xfe\x80" else ""
        return Address(socket.inet_ntop(self._family, self._destination), bound.port, scope)

    @property
    def remote_address(self) -> Address:
        if self._names is not None:
            return self._names[1]
        assert self._address is not None
        return Address.of(self._address)

    # Sending

    def send(self, data: Data, context: MessageContext, end_of_message: bool, token: object) -> bool:
        if self._partial is not None or not end_of_message:
            whole = self._assembled(data, context, end_of_message)
            if whole is None:
                return True
            data = whole
        size = len(data)
        if size > LARGEST_V4 and size > self._largest():
            raise self._too_large(size, context)
        control, unfragmented = self._control, False
        explicit = context.explicit()
        if explicit:
            profile = explicit.get("msg_capacity_profile")
            if isinstance(profile, int):
                control = self._marked(profile << 2)
            unfragmented = explicit.get("no_fragmentation") is True
        if self._pending is not None:
            self._pending.append((bytes(data), control, unfragmented, token))
            return False
        try:
            taken = self._transmit(data, control, unfragmented)
        except OSError as error:
            raise _send_error(error, context, size) from error
        if not taken:
            self._pending = deque(((bytes(data), control, unfragmented, token),))
            self.writable = False
            self._wait_writable()
        return taken

    def _assembled(self, data: Data, context: MessageContext, end_of_message: bool) -> bytes | None:
        """The whole Message once its last part has come: one datagram cannot leave in parts."""
        partial = self._partial
        if partial is None:
            partial = self._partial = _Partial()
        partial.size += len(data)
        refused = partial.size > self._largest()
        if refused:
            partial.parts.clear()  # and every later part is refused too
        else:
            partial.parts.append(bytes(data))
        if end_of_message:
            self._partial = None
        if refused:
            raise self._too_large(partial.size, context)
        return b"".join(partial.parts) if end_of_message else None

    def _transmit(self, data: Data, control: Control, unfragmented: bool) -> bool:
        below: DatagramSocket | DatagramPort | None = self._socket or self._port
        if below is None:
            return True  # closed: nobody is there to tell
        send = below.try_send_unfragmented if unfragmented else below.try_send
        if not send(data, self._address, control):
            return False
        size = len(data)
        self.datagrams_sent += 1
        self.bytes_sent += size
        if self._pacer is not None and self._phase is _OPEN:
            wait = self._pacer.spend(size, time.monotonic())
            if wait > 0:
                self.writable = False
                self._timer = self._loop.call_later(wait, self._paid)
        return True

    def _paid(self) -> None:
        self._timer = None
        self.datagrams_writable()

    def _wait_writable(self) -> None:
        if self._socket is not None:
            self._socket.wait_writable()
        elif self._port is not None:
            self._port.wait_writable(self)

    def datagrams_writable(self) -> None:
        """The kernel takes datagrams again."""
        pending = self._pending
        while pending:
            if self._timer is not None and self._phase is _OPEN:
                return
            data, control, unfragmented, token = pending[0]
            try:
                if not self._transmit(data, control, unfragmented):
                    self._wait_writable()
                    return
            except OSError as error:
                pending.popleft()
                self.observer.failed(token, _send_error(error, None, len(data)))
            else:
                pending.popleft()
                self.observer.sent(token)
            if self._phase is _OVER:
                return
        self._pending = None
        if self._phase is _CLOSING:
            self._end(None)
        elif self._timer is None and not self.writable:
            self.writable = True
            self.observer.writable()

    # Receiving

    def datagram_received(self, data: bytes, source: SocketAddress, ecn: int, destination: bytes) -> None:
        """One datagram is one Message."""
        if (self._paused or self._held) and self._port is not None:
            self._hold(data, ecn)
        else:
            self._deliver(data, ecn)

    def _deliver(self, data: bytes, ecn: int) -> None:
        self.datagrams_received += 1
        self.bytes_received += len(data)
        if self._phase is _OPEN:
            self.observer.received(data, _context_with(ecn), True)

    def pause_receiving(self) -> None:
        self._paused = True
        if self._socket is not None:
            self._socket.pause_receiving()

    def resume_receiving(self) -> None:
        if not self._paused:
            return
        self._paused = False
        if self._socket is not None:
            self._socket.resume_receiving()
        elif self._held:
            self._loop.call_soon(self._deliver_held)

    def _hold(self, data: bytes, ecn: int) -> None:
        held = self._held
        if held is None:
            held = self._held = deque()
        if len(held) < HELD_DATAGRAMS and sum(len(entry[0]) for entry in held) + len(data) <= HELD_BYTES:
            held.append((data, ecn))
        else:
            self.datagrams_dropped += 1

    def _deliver_held(self) -> None:
        while self._held and not self._paused and self._phase is _OPEN:
            data, ecn = self._held.popleft()
            self._deliver(data, ecn)

    def datagram_error(self, error: OSError) -> None:
        """ICMP: a soft error for those who asked for them (RFC 9622 section 8.3.1), never the end."""
        self.errors += 1
        if self._phase is _OPEN and wants_errors(self._properties):
            soft = ConnectionError(str(error), Reason.PROTOCOL_FAILED)
            soft.__cause__ = error
            self.observer.soft_error(soft)

    # Ending

    def finish(self) -> None:
        """Nothing goes on the wire: UDP cannot tell the peer."""

    def close(self) -> None:
        if self._phase is not _OPEN:
            return
        self._phase = _CLOSING
        self._partial = None
        if self._pending:
            self._cancel_timer()
            self._timer = self._loop.call_later(LINGER, self._give_up)
            self._wait_writable()
        else:
            self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        self.observer = _UNBOUND
        self._release()

    def linger(self) -> None:
        if self._socket is not None:
            self._socket.linger()

    def _give_up(self) -> None:
        self._end(ConnectionError("the kernel did not take what was sent in time", Reason.TIMEOUT))

    def _end(self, error: ConnectionError | None) -> None:
        observer, self.observer = self.observer, _UNBOUND
        self._release()
        observer.closed(error)

    def _release(self) -> None:
        if self._phase is _OVER:
            return
        self._phase = _OVER
        self.writable = False
        self._pending = self._held = self._partial = None
        self._cancel_timer()
        if self._socket is not None:
            self._socket.close()
        elif self._port is not None and self._address is not None:
            self._port.disown(self._address, self._destination, self)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Properties

    def apply(self, name: str, value: object) -> None:
        if name not in ("conn_capacity_profile", "max_send_rate"):
            return
        try:
            self._act(name, value, None if self._socket is None else self._socket.socket)
        except OSError as error:
            message = f"{name} = {value!r}: the kernel refuses it ({error.strerror or error})"
            raise PropertyError(message) from error

    def _act(self, name: str, value: Any, sock: socket.socket | None) -> None:
        if name == "max_send_rate":
            self._pacer = None if value is None or value == math.inf else Pacer(value)
        elif sock is not None:
            if value or self._traffic_class:
                options.set_dscp(sock, value)
                self._traffic_class = int(value) << 2
        else:
            self._control = self._marked(int(value) << 2)

    def _marked(self, traffic_class: int) -> Control:
        """The control messages of a datagram of that DSCP."""
        source = (source_control(self._destination),) if self._destination else ()
        if self._port is not None and not traffic_class:
            return source
        return (*source, traffic_class_control(self._family, traffic_class))

    def read(self, name: str) -> object:
        if name in ("send_msg_max_len", "recv_msg_max_len"):
            return self._largest()
        if name == "singular_transmission_msg_max_len":
            if self._socket is not None:
                return largest_unfragmented(self._socket.socket)
            return None if self._address is None else largest_unfragmented_to(self._address, self._family)
        return None

    def statistics(self) -> dict[str, float]:
        return {
            "datagrams_sent": self.datagrams_sent,
            "datagrams_received": self.datagrams_received,
            "datagrams_dropped": self.datagrams_dropped,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "errors": self.errors,
        }

    def backlog(self) -> int:
        return sum(len(entry[0]) for entry in self._pending or ())

    def _largest(self) -> int:
        return LARGEST_V6 if self._family == socket.AF_INET6 else LARGEST_V4

    def _too_large(self, size: int, context: MessageContext) -> SendError:
        text = f"{size} bytes do not fit one UDP datagram of at most {self._largest()}"
        return SendError(text, Reason.MESSAGE_TOO_LARGE, context)


class _Partial:
    """A Message whose last part has not been sent yet."""

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0


def _context_with(ecn: int) -> MessageContext:
    from neatpy.message import MessageContext

    context = MessageContext()
    context.ecn = ecn
    return context


def _send_error(error: OSError, context: MessageContext | None, size: int) -> SendError:
    if error.errno == errno.EMSGSIZE:
        text = f"{size} bytes do not fit the path in one packet, or in one datagram"
        return SendError(text, Reason.MESSAGE_TOO_LARGE, context)
    return SendError(
        f"the kernel does not send it: {error.strerror or error}", Reason.PROTOCOL_FAILED, context
    )
