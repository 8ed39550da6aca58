"""The work on the library usrsctp itself, as little as a loop in Python can do about it: one association at each side,
the same socket options and packet size as NEATPy's, bursts sent by UDP_SEGMENT and received by UDP_GRO.

Of NEATPy only the declarations of the library and its socket options are used: no engine, Flow or Connection.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks.work import END, LARGE, PACKET, SMALL
from neatpy.stacks._sctp import library as sctp
from neatpy.stacks._sctp import options

_SEGMENTS = min(64, 65000 // PACKET)
_SCTP_PORT, _PATH = 5001, 1
_TICK = 0.010
_SPA_SIZE, _CONN_SIZE, _RCVINFO_SIZE = 32, 16, 28
_SPACE = 1 << 18
_UDP_BUFFER = 4 << 20


async def serve(work: str) -> tuple[int, object]:
    made = _Loop({"echo-framed": _echo, "bulk-framed": _answer_end}[work])
    made.listen()
    return made.udp.getsockname()[1], made


async def round_trips(port: int, framed: bool, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()
    count = 0

    def received(made: _Loop, message: bytes) -> None:
        nonlocal count
        count += 1
        now = perf_counter()
        if now < end:
            made.send(SMALL)
        elif not done.done():
            done.set_result(count / (now - start))

    made = _Loop(received)
    await made.connect(port)
    start = perf_counter()
    end = start + seconds
    made.send(SMALL)
    made.flush()
    rate = await done
    made.close()
    return rate


async def bulk(port: int, framed: bool, size: int) -> float:
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    made = _Loop(lambda made, message: answered.set_result(None))
    await made.connect(port)
    start = perf_counter()
    made.unsent = [END, *[LARGE] * (size // len(LARGE))]
    made.send_on()
    made.flush()
    await answered
    rate = size / (perf_counter() - start)
    made.close()
    return rate


def _echo(made: _Loop, message: bytes) -> None:
    made.send(message)


def _answer_end(made: _Loop, message: bytes) -> None:
    if len(message) == len(END):
        made.send(END)


class _Loop:
    """One UDP socket, one association at a time, and the library between them."""

    def __init__(self, received: Callable[[_Loop, bytes], None]) -> None:
        self.library = sctp.load()
        ffi, c = self.library.ffi, self.library.c
        self._received = received
        self.unsent: list[bytes | memoryview] = []
        self._packets: list[bytes] = []
        self._peer: Any = None
        self._news = False
        self._up: asyncio.Future[None] | None = None
        self._sock: Any = ffi.NULL
        self._listening: Any = ffi.NULL
        self._callbacks = (
            ffi.callback("conn_output", self._put_out, error=0),
            ffi.callback("upcall", self._has_news),
        )
        self._space = ffi.new("char[]", _SPACE)
        self._view = memoryview(ffi.buffer(self._space))
        self._info = ffi.new("struct sctp_rcvinfo *")
        self._info_size, self._info_type = ffi.new("socklen_t *"), ffi.new("unsigned int *")
        self._flags = ffi.new("int *")
        self._how = ffi.new("struct sctp_sendv_spa *")
        self._how.flags = sctp.SNDINFO_VALID
        self._how.sndinfo.flags = sctp.SEND_EOR
        self._parts: list[bytes] = []
        c.usrsctp_init_nothreads(0, self._callbacks[0], ffi.NULL)
        c.usrsctp_register_address(_PATH)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setblocking(False)
        self.udp.setsockopt(socket.IPPROTO_UDP, 104, 1)  # UDP_GRO
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.udp.setsockopt(socket.SOL_SOCKET, option, _UDP_BUFFER)
        self._loop = asyncio.get_running_loop()
        self._clock = time.monotonic()
        self._loop.call_later(_TICK, self._tick)

    def listen(self) -> None:
        self.udp.bind(("127.0.0.1", 0))
        self._listening = options.new_socket(self.library, options.Settings(), PACKET)
        c = self.library.c
        name = self.library.conn_address(0, _SCTP_PORT)
        options.check(self.library, c.usrsctp_bind(self._listening, name, _CONN_SIZE))
        options.check(self.library, c.usrsctp_listen(self._listening, 1))
        c.usrsctp_set_upcall(self._listening, self._callbacks[1], 0)
        self._loop.add_reader(self.udp, self._read)

    async def connect(self, port: int) -> None:
        self.udp.connect(("127.0.0.1", port))
        self._sock = options.new_socket(self.library, options.Settings(), PACKET)
        c = self.library.c
        c.usrsctp_set_upcall(self._sock, self._callbacks[1], 0)
        c.usrsctp_connect(self._sock, self.library.conn_address(_PATH, _SCTP_PORT), _CONN_SIZE)
        self._up = self._loop.create_future()
        self._loop.add_reader(self.udp, self._read)
        self.flush()
        await self._up

    def close(self) -> None:
        self._loop.remove_reader(self.udp)
        options.close_at_once(self.library, self._sock)
        self.flush()

    def send(self, message: bytes) -> None:
        self.unsent.insert(0, message)
        self.send_on()

    def send_on(self) -> None:
        c, ffi = self.library.c, self.library.ffi
        while self.unsent:
            message = self.unsent[-1]
            memory = message if isinstance(message, bytes) else ffi.from_buffer(message)
            taken = c.usrsctp_sendv(
                self._sock, memory, len(message), ffi.NULL, 0, self._how, _SPA_SIZE, sctp.SENDV_SPA, 0
            )
            if taken == len(message):
                self.unsent.pop()
            else:
                if taken > 0:
                    self.unsent[-1] = memoryview(message)[taken:]
                return

    def flush(self) -> None:
        while self._packets:
            packets, self._packets = self._packets, []
            start = 0
            while start < len(packets):
                size = len(packets[start])
                end = start + 1
                while end < len(packets) and end - start < _SEGMENTS and len(packets[end]) == size:
                    end += 1
                if end < len(packets) and end - start < _SEGMENTS and len(packets[end]) < size:
                    end += 1
                self._transmit(packets[start:end], size)
                start = end

    def _transmit(self, run: list[bytes], size: int) -> None:
        try:
            if len(run) == 1 and self._peer is None:
                self.udp.send(run[0])
            elif len(run) == 1:
                self.udp.sendto(run[0], self._peer)
            else:
                segment = [(socket.IPPROTO_UDP, 103, struct.pack("=H", size))]
                self.udp.sendmsg([b"".join(run)], segment, 0, *([] if self._peer is None else [self._peer]))
        except BlockingIOError:
            pass  # lost, and sent again

    def _put_out(self, path: int, packet: Any, length: int, tos: int, set_df: int) -> int:
        self._packets.append(self.library.ffi.buffer(packet, length)[:])
        return 0

    def _has_news(self, sock: Any, argument: int, flags: int) -> None:
        self._news = True

    def _tick(self) -> None:
        now = time.monotonic()
        elapsed = int((now - self._clock) * 1000)
        self._clock += elapsed / 1000
        self.library.c.usrsctp_handle_timers(elapsed)
        self._attend()
        self._loop.call_later(_TICK, self._tick)

    def _read(self) -> None:
        put_in = self.library.c.usrsctp_conninput
        for _ in range(64):
            try:
                data, control, _, source = self.udp.recvmsg(65536, 64)
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                continue
            if self._listening:
                self._peer = source
            size = 0
            for _, kind, value in control:
                if kind == 104:
                    size = int.from_bytes(value[:4], "little")
            if 0 < size < len(data):
                for start in range(0, len(data), size):
                    piece = data[start : start + size]
                    put_in(_PATH, piece, len(piece), 0)
            else:
                put_in(_PATH, data, len(data), 0)
        self._attend()

    def _attend(self) -> None:
        self.flush()
        while self._news:
            self._news = False
            if self._listening:
                self._accept()
            if self._sock:
                self._attend_association()
            self.flush()

    def _accept(self) -> None:
        c = self.library.c
        name, size = self.library.conn_address(0, 0), self.library.ffi.new("socklen_t *", _CONN_SIZE)
        sock = c.usrsctp_accept(self._listening, name, size)
        if sock:
            if self._sock:
                options.close_at_once(self.library, self._sock)
            self._sock = sock
            self.unsent.clear()
            self._parts.clear()
            c.usrsctp_set_non_blocking(sock, 1)
            c.usrsctp_set_upcall(sock, self._callbacks[1], 0)

    def _attend_association(self) -> None:
        c, ffi = self.library.c, self.library.ffi
        while True:
            self._info_size[0] = _RCVINFO_SIZE
            self._flags[0] = 0
            size = c.usrsctp_recvv(
                self._sock,
                self._space,
                _SPACE,
                ffi.NULL,
                ffi.NULL,
                self._info,
                self._info_size,
                self._info_type,
                self._flags,
            )
            if size <= 0:
                if size < 0 and ffi.errno not in (errno.EAGAIN, errno.ENOTCONN):
                    options.close_at_once(self.library, self._sock)
                    self._sock = ffi.NULL
                break
            if self._flags[0] & sctp.MSG_NOTIFICATION:
                if self._up is not None and not self._up.done():
                    self._up.set_result(None)
                continue
            message = bytes(self._view[:size])
            if not self._flags[0] & sctp.MSG_EOR:
                self._parts.append(message)
                continue
            if self._parts:
                message = b"".join([*self._parts, message])
                self._parts.clear()
            self._received(self, message)
        if self.unsent and self._sock and c.usrsctp_get_events(self._sock) & sctp.EVENT_WRITE:
            self.send_on()
