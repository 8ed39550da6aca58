"""Datagram sockets driven by the event loop: bursts, ECN, ICMP errors, segmentation offload.

asyncio's own datagram transports read one datagram a wake-up and can read neither control messages nor the error
queue. This room knows addresses and control messages; it knows no protocol above UDP.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence

from neatpy.system import icmp
from neatpy.system.datagram_options import (
    IP_PKTINFO,
    IPV6_PKTINFO,
    LARGEST_V4,
    SOL_UDP,
    TOS_TYPES,
    UDP_GRO,
    UDP_SEGMENT,
    Control,
    Data,
    SocketAddress,
    ask_for_control_messages,
    set_fragmentation,
)
from neatpy.system.open_ports import open_ports

BURST = 64
"""Most reads in one wake-up, so that a flood on one socket does not starve the loop."""

QUEUE_DATAGRAMS, QUEUE_BYTES = 256, 1 << 20
"""What :meth:`DatagramSocket.send` holds at most while the kernel's send buffer is full."""

_LINUX = sys.platform.startswith("linux")
_SEGMENTS = 64  # the limit of kernels before 6.9
_RECEIVE_SPACE = 65536
_CONTROL_SPACE = 256
_INT = struct.Struct("=i")
_SEGMENT_SIZE = struct.Struct("=H")

# A send may fail with the error of an earlier datagram; the datagram at hand has not been looked at then.
_OF_EARLIER_DATAGRAMS = frozenset(
    getattr(errno, name)
    for name in ("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EHOSTDOWN", "ENETDOWN", "ENOPROTOOPT", "EPROTO",
                 "EOPNOTSUPP", "EACCES", "ENONET", "EMSGSIZE", "ECONNRESET")
    if hasattr(errno, name)
)  # fmt: skip


class DatagramObserver:
    """Who takes what a datagram socket, or one four-tuple of a shared one, has to tell. The methods here do nothing."""

    __slots__ = ()

    batches: bool = False
    """Whether :meth:`datagrams_done` is wanted."""

    def datagram_received(self, data: bytes, source: SocketAddress, ecn: int, destination: bytes) -> None:
        """One datagram, empty ones too. ``ecn`` is the ECN field (0 to 3). ``destination`` is the packed own address
        that it was sent to, which a reply should leave from; empty if the socket is bound to one address."""

    def datagrams_done(self) -> None:
        """No more datagrams come in this wake-up: the moment to answer all of them at once."""

    def datagram_error(self, error: OSError) -> None:
        """One sent earlier did not arrive; an :class:`~neatpy.system.icmp.IcmpError` knows more. Nothing ends."""

    def datagrams_writable(self) -> None:
        """After :meth:`DatagramSocket.wait_writable`: the kernel takes datagrams again, and nothing is queued."""


class DatagramSocket:
    """A non-blocking UDP socket driven by the loop; owns ``sock``, and tells its observer what comes.

    Receiving starts with :meth:`resume_receiving`. ``destinations`` asks for the own address of each datagram,
    ``errors`` for the details of ICMP errors. Errors are reported and never end the socket. The observer is never
    called from inside a call it makes.
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_closed",
        "_errors",
        "_gave_way",
        "_queue",
        "_queued",
        "_reading",
        "_segmentation",
        "_sock",
        "_watch",
        "_writing",
        "loop",
        "observer",
        "only_answers",
    )

    observer: DatagramObserver
    only_answers: bool
    """Whether nobody needs it but to answer for what has ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        observer: DatagramObserver,
        *,
        destinations: bool = False,
        errors: bool = False,
    ) -> None:
        sock.setblocking(False)
        self.loop = loop
        self._sock = sock
        self.observer = observer
        self._budget = 1
        self._closed = self._gave_way = self._reading = self._writing = self.only_answers = False
        self._queue: deque[tuple[bytes, SocketAddress | None, Control]] | None = None
        self._queued = 0
        self._segmentation = _LINUX
        self._errors = errors and icmp.enable_error_queue(sock)
        self._watch: select.epoll | None = None
        ask_for_control_messages(sock, destinations)

    @property
    def socket(self) -> socket.socket:
        """The socket, for options and names; nobody else sends, receives or closes."""
        return self._sock

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    def report_errors(self) -> None:
        """Ask for the details of ICMP errors from now on. Idempotent."""
        self._errors = self._errors or icmp.enable_error_queue(self._sock)

    # Receiving

    def resume_receiving(self) -> None:
        """Start, or go on, telling the observer what comes. Idempotent."""
        if not self._closed:
            self._attend(True, self._writing)

    def pause_receiving(self) -> None:
        """Leave what comes in the kernel, which drops what exceeds its buffer. Idempotent."""
        if not self._closed:
            self._attend(False, self._writing)

    # Sending

    def try_send(self, data: Data, address: SocketAddress | None = None, control: Control = ()) -> bool:
        """Send one datagram, to ``address`` or to where the socket is connected. False: the kernel takes none now.

        Raises OSError if this datagram cannot be sent (EMSGSIZE: too large), not for errors of earlier ones.
        """
        if self._queue:
            return False
        return self._transmit(data, address, control)

    def try_send_unfragmented(
        self, data: Data, address: SocketAddress | None = None, control: Control = ()
    ) -> bool:
        """Like :meth:`try_send`, with DF set and no fragments made here: EMSGSIZE if it exceeds the path's MTU."""
        set_fragmentation(self._sock, False)
        try:
            return self.try_send(data, address, control)
        finally:
            set_fragmentation(self._sock, True)

    def send(self, data: bytes, address: SocketAddress | None = None, control: Control = ()) -> bool:
        """Like :meth:`try_send`, but what the kernel does not take waits here and follows in order.

        Returns whether the kernel has it. Raises BlockingIOError when :data:`QUEUE_DATAGRAMS` or :data:`QUEUE_BYTES`
        wait already. What fails while it waits goes to ``datagram_error``.
        """
        if self.try_send(data, address, control):
            return True
        if self._queue is None:
            self._queue = deque()
        if len(self._queue) >= QUEUE_DATAGRAMS or self._queued + len(data) > QUEUE_BYTES:
            raise BlockingIOError(errno.EAGAIN, "too many datagrams wait already")
        self._queue.append((data, address, control))
        self._queued += len(data)
        self.wait_writable()
        return False

    def send_batch(
        self, datagrams: Sequence[bytes], address: SocketAddress | None = None, control: Control = ()
    ) -> bool:
        """Like :meth:`send` for several datagrams to one place: those of equal size, and a shorter one after them, go
        in one call where the kernel can split it (UDP_SEGMENT)."""
        taken = True
        for run in _runs(datagrams) if self._segmentation else ([datagram] for datagram in datagrams):
            if (
                len(run) > 1
                and self._segmentation
                and not self._queue
                and self._send_run(run, address, control)
            ):
                continue
            for datagram in run:
                taken = self.send(datagram, address, control) and taken
        return taken

    def wait_writable(self) -> None:
        """Ask for one call of the observer's ``datagrams_writable``."""
        if not self._closed:
            self._attend(self._reading, True)

    def let_go(self) -> None:
        """From now on nobody has to close the socket: a loop that ends forgets it. Idempotent."""
        if not self._closed and not isinstance(self._sock, _ForgettableSocket):
            sock = self._sock
            self._sock = _ForgettableSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())

    def linger(self) -> None:
        """It only answers for what has ended from now on: nobody has to close it, and it gives way to whoever needs
        its port. Idempotent."""
        if not self._closed and not self.only_answers:
            self.let_go()
            self.only_answers = True
            open_ports.add(self)

    @property
    def number(self) -> int:
        """The number of its port; 0 when it is closed."""
        return 0 if self._closed else int(self._sock.getsockname()[1])

    def give_way(self) -> None:
        """Close the socket. Who uses it need not know: what is sent is lost, as it can be in any router."""
        self.close()
        self._gave_way = True

    def close(self) -> None:
        """Close the socket; what waits here is lost. Idempotent."""
        if self._closed:
            return
        self._attend(False, False)
        self._closed = True
        self._queue = None
        if self._watch is not None:
            self._watch.close()
        self._sock.close()

    # Below

    def _attend(self, reading: bool, writing: bool) -> None:
        if (reading, writing) == (self._reading, self._writing):
            return
        was_reading, was_writing = self._reading, self._writing
        self._reading, self._writing = reading, writing
        loop = self.loop
        if _needs_watch(loop):
            self._attend_by_watch(loop)
            return
        descriptor = self._sock.fileno()
        if reading != was_reading:
            if reading:
                loop.add_reader(descriptor, self._read)
            else:
                loop.remove_reader(descriptor)
        if writing != was_writing:
            if writing:
                loop.add_writer(descriptor, self._write)
            else:
                loop.remove_writer(descriptor)

    def _attend_by_watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Libuv stops watching a descriptor for good at the first error (POLLERR), which an ICMP message causes, and
        says nothing. An epoll object between the socket and the loop is only ever readable."""
        interest = (select.EPOLLIN if self._reading else 0) | (select.EPOLLOUT if self._writing else 0)
        if self._watch is None:
            self._watch = select.epoll(1)
            self._watch.register(self._sock.fileno(), interest)
            loop.add_reader(self._watch.fileno(), self._wake)
        elif interest:
            self._watch.modify(self._sock.fileno(), interest)
            loop.add_reader(self._watch.fileno(), self._wake)
        else:
            loop.remove_reader(self._watch.fileno())

    def _wake(self) -> None:
        if self._reading:
            self._read()
        if self._writing:
            self._write()

    def _read(self) -> None:
        receive = self._sock.recvmsg
        observer = self.observer
        deliver = observer.datagram_received
        budget = self._budget
        count = 0
        while count < budget and self._reading:
            try:
                data, control, _, source = receive(_RECEIVE_SPACE, _CONTROL_SPACE)
            except BlockingIOError:
                break
            except OSError as error:
                count += 1
                self._report(error)
                continue
            count += 1
            ecn = size = 0
            destination = b""
            for _, kind, value in control:
                if kind in TOS_TYPES:
                    ecn = (value[0] if len(value) == 1 else _INT.unpack(value)[0]) & 3
                elif kind == IP_PKTINFO:
                    destination = value[4:8]
                elif kind == IPV6_PKTINFO:
                    destination = value[:16] if value[0] != 0xFF else b""
                elif kind == UDP_GRO:
                    size = _INT.unpack(value)[0]
            if 0 < size < len(data):
                for start in range(0, len(data), size):
                    deliver(data[start : start + size], source, ecn, destination)
            else:
                deliver(data, source, ecn, destination)
        if count == budget:  # there may be more: the loop will say so
            self._budget = min(BURST, budget * 2)
        else:
            self._budget = max(1, count)
            if not count and self._errors:
                self._report(None)
        if observer.batches and not self._closed:
            observer.datagrams_done()

    def _write(self) -> None:
        if self._errors:
            self._report(None)
        queue = self._queue
        while queue:
            data, address, control = queue[0]
            try:
                if not self._transmit(data, address, control):
                    return
            except OSError as error:
                self.observer.datagram_error(error)
            if self._closed:
                return
            queue.popleft()
            self._queued -= len(data)
        if not self._closed:
            self._attend(self._reading, False)
            self.observer.datagrams_writable()

    def _transmit(self, data: Data, address: SocketAddress | None, control: Control) -> bool:
        try:
            self._hand_over(data, address, control)
        except BlockingIOError:
            return False
        except OSError as earlier:
            if earlier.errno == errno.ENOBUFS or self._gave_way:
                return True  # dropped in a queue of this host, as it could be in any router
            if earlier.errno not in _OF_EARLIER_DATAGRAMS:
                raise
            try:
                self._hand_over(data, address, control)
            except BlockingIOError:
                return False
            self.loop.call_soon(self._report, earlier)
        return True

    def _hand_over(self, data: Data, address: SocketAddress | None, control: Control) -> None:
        if control:
            self._sock.sendmsg((data,), control, 0, address)
        elif address is None:
            self._sock.send(data)
        else:
            self._sock.sendto(data, address)

    def _report(self, error: OSError | None) -> None:
        """Tell of errors: in detail where there is a queue, which must be emptied since it keeps waking us."""
        if self._closed:
            return
        details: Sequence[OSError] = icmp.read_error_queue(self._sock) if self._errors else ()
        if not self._errors and error is not None:
            details = (error,)
        for detail in details:
            if not self._closed:
                self.observer.datagram_error(detail)

    def _send_run(self, run: Sequence[bytes], address: SocketAddress | None, control: Control) -> bool:
        segments = (SOL_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(len(run[0])))
        try:
            self._sock.sendmsg(run, (*control, segments), 0, address)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP):
                self._segmentation = False  # the device, or the kernel, cannot
            return False  # singly they go, or fail with an error of their own
        return True


class _ForgettableSocket(socket.socket):
    """One that only serves to answer for a while what may still come."""

    __slots__ = ()

    def __del__(self) -> None:
        self.close()


def _needs_watch(loop: asyncio.AbstractEventLoop) -> bool:
    return hasattr(select, "epoll") and not isinstance(loop, asyncio.SelectorEventLoop)


def _runs(datagrams: Sequence[bytes]) -> list[list[bytes]]:
    """Cut into runs that one segmented send can carry: equal sizes, only the last may be shorter."""
    runs: list[list[bytes]] = []
    run: list[bytes] = []
    total = 0
    for datagram in datagrams:
        size = len(datagram)
        fits = (
            run
            and len(run) < _SEGMENTS
            and total + size <= LARGEST_V4
            and size
            and len(run[-1]) == len(run[0])
        )
        if fits and size <= len(run[0]):
            run.append(datagram)
            total += size
        else:
            run = [datagram]
            total = size
            runs.append(run)
    return runs
