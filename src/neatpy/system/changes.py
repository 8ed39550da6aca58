"""Tells that links or addresses of this host have come or gone, by the kernel's own notices (Linux: rtnetlink).

One socket for each loop, there while anybody listens. It does not say what has changed, and knows nothing of who asks:
whoever hears of it looks, or tries, whether it matters. Elsewhere it never tells anything.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

_LINKS, _IPV4_ADDRESSES, _IPV6_ADDRESSES = 0x1, 0x10, 0x100
_SOL_NETLINK, _NO_ENOBUFS = 270, 5
_SPACE = 65536


class _Notices:
    """Those who listen in one loop, and the socket that they share."""

    __slots__ = ("_loop", "_sock", "listeners")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises OSError where the kernel refuses."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            sock.setblocking(False)
            # Notices that were lost are not reported: libuv stops watching a socket that reports an error.
            sock.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
            sock.bind((0, _LINKS | _IPV4_ADDRESSES | _IPV6_ADDRESSES))
        except OSError:
            sock.close()
            raise
        self._loop = loop
        self._sock = sock
        self.listeners: dict[Callable[[], object], None] = {}
        loop.add_reader(sock.fileno(), self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._sock.recv(_SPACE)
        for listener in list(self.listeners):
            listener()

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Notices] = WeakKeyDictionary()


def hear_of_changes(loop: asyncio.AbstractEventLoop, listener: Callable[[], object]) -> None:
    """Have this called, once for each burst of changes, until ``hear_no_more``. Never raises."""
    notices = _by_loop.get(loop)
    if notices is None:
        if not hasattr(socket, "AF_NETLINK"):
            return
        try:
            notices = _by_loop[loop] = _Notices(loop)
        except OSError:  # some containers allow none
            return
    notices.listeners[listener] = None


def hear_no_more(loop: asyncio.AbstractEventLoop, listener: Callable[[], object]) -> None:
    """It is not called any more. Idempotent."""
    notices = _by_loop.get(loop)
    if notices is None:
        return
    notices.listeners.pop(listener, None)
    if not notices.listeners:
        del _by_loop[loop]
        notices.close()
