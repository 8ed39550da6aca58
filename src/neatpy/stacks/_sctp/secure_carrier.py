"""What carries the packets of one association over DTLS (RFC 8261): a Flow of secure datagrams, a packet in each.

A carrier knows the contract of stacks and hands packets over; it knows neither DTLS nor what is in the packets.
"""

from __future__ import annotations

import asyncio
import errno
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from neatpy.errors import Reason, SendError, TransportServicesError
from neatpy.message import MessageContext
from neatpy.stacks._sctp import options
from neatpy.stacks._sctp.carriers import LARGEST_PACKET, Carrier
from neatpy.stacks._sctp.engine import ENGINE
from neatpy.stacks.contract import Address, Flow, FlowObserver

if TYPE_CHECKING:
    from neatpy.enumerations import CapacityProfile
    from neatpy.stacks._sctp.association import Association

QUEUED = 256
"""Packets kept at most while the Flow below takes none; more are lost, as in any router."""

_SMALLEST_MTU = 548  # bytes of a packet that are tried wherever the Flow below does not know the path's MTU

Broken = Callable[[OSError, bytes], None]
"""Called once if the Flow below ends by itself, with the error and the reason in words of the association's end."""


class SecureCarrier(Carrier, FlowObserver):
    """One association's way through a Flow of secure datagrams, whose observer this is from its start.

    Releases the engine when it closes, which whoever makes it has acquired."""

    __slots__ = (
        "_below",
        "_broken",
        "_closed",
        "_context",
        "_done_soon",
        "_lingering",
        "_loop",
        "_queue",
        "_soft",
    )

    def __init__(self, broken: Broken, soft: Callable[[TransportServicesError], None]) -> None:
        self._broken = broken
        self._soft = soft
        self._below: Flow | None = None
        self._closed = self._lingering = False
        self._context = MessageContext()
        self._queue: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()
        self._done_soon = False

    def start(self, below: Flow, accept: Callable[[Association], None] | None = None) -> None:
        """Carry packets by this Flow from now on; ``accept`` is that of :class:`Path`."""
        self._below = below
        below.observer = self
        below.apply("max_send_rate", math.inf)  # SCTP has its own congestion control; a delay confuses it
        self.path = ENGINE.path(self._send, self._largest(), accept)

    @property
    def local_address(self) -> Address:
        return self._flow.local_address

    @property
    def remote_address(self) -> Address:
        return self._flow.remote_address

    def security(self) -> dict[str, object]:
        return self._flow.security()

    def set_capacity_profile(self, profile: CapacityProfile) -> None:
        if not self._closed:
            self._flow.apply("conn_capacity_profile", profile)

    def linger(self) -> None:
        self._lingering = True
        self._flow.linger()
        super().linger()

    def close(self) -> None:
        """What the association has still to say goes before the end of the Flow below."""
        if self._closed:
            return
        self._closed = True
        below = self._below
        if below is not None:
            self.path.close()
            below.observer = FlowObserver()
            below.close()
        ENGINE.release()

    def abort(self) -> None:
        """As ``close``: an association that is left tells its peer that it is aborted."""
        self.close()

    # Packets

    @property
    def _flow(self) -> Flow:
        assert self._below is not None
        return self._below

    def _largest(self) -> int:
        """Bytes of a packet that travels in one datagram, which is not to be fragmented (RFC 8261 section 5)."""
        largest = self._flow.read("singular_transmission_msg_max_len")
        return min(largest, LARGEST_PACKET) if isinstance(largest, int) and largest else _SMALLEST_MTU

    def _send(self, packets: list[bytes]) -> None:
        below, queue = self._flow, self._queue
        for packet in packets:
            if below.writable and not queue:
                self._put(packet)
            elif len(queue) < QUEUED:
                queue.append(packet)

    def _put(self, packet: bytes) -> None:
        try:
            self._flow.send(packet, self._context, True, None)
        except SendError:
            return  # as good as lost on the way: it is sent again

    # FlowObserver

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        if (
            self._below is not None and not self._closed
        ):  # what comes before the association has begun is sent again
            self.path.received(data)  # answered in one go when everything that has come was read
            if not self._done_soon:
                self._done_soon = True
                self._loop.call_soon(self._done)

    def _done(self) -> None:
        self._done_soon = False
        if not self._closed:
            self.path.done()

    def writable(self) -> None:
        below, queue = self._flow, self._queue
        while queue and below.writable:
            self._put(queue.popleft())

    def soft_error(self, error: TransportServicesError) -> None:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EMSGSIZE:
            self._lower_mtu()
        self._soft(error)

    def _lower_mtu(self) -> None:
        """Smaller packets from now on. Data that are already in larger chunks go in fragments of IP."""
        largest = self._largest()
        if not self._closed and largest < self.path.mtu:
            self.path.mtu = largest
            for association in self.path.associations:
                with suppress(OSError):  # it is ending
                    options.set_path_mtu(ENGINE.library, association.sock, self.path)

    def finished(self) -> None:
        if self._below is not None and not self._closed:
            self.path.done()  # the association's own end may have come just before
        self._end(ConnectionResetError(errno.ECONNRESET, "the peer has ended DTLS"), b"it has ended DTLS")

    def closed(self, error: TransportServicesError | None) -> None:
        if error is None:
            self.finished()
        elif error.reason is Reason.CONNECTION_ABORTED:
            self._end(ConnectionResetError(errno.ECONNRESET, str(error)), str(error).encode())
        else:
            self._end(OSError(str(error)), b"")

    def _end(self, error: OSError, reason: bytes) -> None:
        if self._lingering:
            self.close()
        elif not self._closed:
            self._broken(error, reason)
