"""Standard input and output of the process, without ever blocking the loop.

A thread reads: it works for terminals, pipes and files alike, and leaves the mode of a shared terminal alone.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections import deque

_CHUNK = 64 * 1024
_AHEAD = 4
"""Chunks that are read before anybody takes them."""


class Input:
    """What comes in on a file descriptor, in chunks or lines, to its end. Reads can be cancelled without loss."""

    __slots__ = ("_descriptor", "_ended", "_lines", "_loop", "_partial", "_queue", "_room")

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._lines: deque[bytes] = deque()
        self._partial = b""
        self._ended = False

    @property
    def is_terminal(self) -> bool:
        """Whether somebody types it."""
        return os.isatty(self._descriptor)

    async def chunk(self) -> bytes:
        """The next bytes; empty at the end."""
        if self._ended:
            return b""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._read, name="neatpy-input", daemon=True).start()
        data = await self._queue.get()
        self._room.release()
        self._ended = not data
        return data

    async def line(self) -> bytes | None:
        """The next line without its end; None after the last one. Not to be mixed with ``chunk``."""
        while not self._lines:
            data = await self.chunk()
            if not data:
                last, self._partial = self._partial, b""
                return last or None
            *whole, self._partial = (self._partial + data).split(b"\n")
            self._lines.extend(whole)
        return self._lines.popleft()

    def _read(self) -> None:
        assert self._loop is not None
        data = b"..."
        while data:
            self._room.acquire()
            data = self._next()
            try:
                self._loop.call_soon_threadsafe(self._queue.put_nowait, data)
            except RuntimeError:  # the loop is closed: nobody wants to know any more
                return

    def _next(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, _CHUNK)
            except BlockingIOError:  # somebody who shares it made it non-blocking
                select.select([self._descriptor], [], [])
            except OSError:  # closed, or a terminal that is gone
                return b""


class Output:
    """Where received data go. A reader that is slow slows the peer down, not the loop."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises BrokenPipeError when nobody reads any more."""
        if data:
            await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
