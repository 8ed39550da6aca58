"""What earlier attempts taught: round-trip times and failures (RFC 9623 section 8.2).

Remembered results only order and pace candidates; they never remove one. A memory belongs to one event loop, because
loops live in different threads and share nothing; it is bounded, and forgets failures after some minutes, because
networks change. It knows nothing about stacks or candidates but their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio

Key = tuple[str, int, str, str | None]
"""Host name or IP address, port, name of the stack, interface."""

FAILURE_LIFETIME = 600.0
"""Seconds for which a failure demotes its branch."""
_MAXIMUM_ENTRIES = 1024
ADDRESS_DELAY = 0.25
"""Seconds between the starts of sibling addresses when nothing is known of them (RFC 8305 section 5)."""
MINIMUM_DELAY = 0.1
MAXIMUM_DELAY = 2.0

_DELAY_PER_RTT = 2.0


class Remembered:
    """What is known of one key: the smoothed duration of its handshakes in seconds, and when it last failed."""

    __slots__ = ("failed_at", "handshake_time")

    def __init__(self) -> None:
        self.handshake_time: float | None = None
        self.failed_at: float | None = None


class Memory:
    """The remembered results of one event loop, the least recently updated forgotten first."""

    __slots__ = ("__weakref__", "_entries", "_limit")

    def __init__(self, limit: int = _MAXIMUM_ENTRIES) -> None:
        self._entries: dict[Key, Remembered] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._entries)

    def succeeded(self, key: Key, handshake_time: float) -> None:
        """An attempt took this many seconds to complete; earlier failures are forgiven."""
        entry = self._touch(key)
        known = entry.handshake_time
        entry.handshake_time = handshake_time if known is None else 0.75 * known + 0.25 * handshake_time
        entry.failed_at = None

    def failed(self, key: Key, now: float) -> None:
        """An attempt failed at this time."""
        self._touch(key).failed_at = now

    def demotes(self, key: Key, now: float) -> bool:
        """Whether a failure is remembered that has not expired."""
        entry = self._entries.get(key)
        return entry is not None and entry.failed_at is not None and now - entry.failed_at < FAILURE_LIFETIME

    def delay(self, key: Key) -> float:
        """How long to wait for this address before the next one starts, in seconds (RFC 8305 section 5)."""
        entry = self._entries.get(key)
        if entry is None or entry.handshake_time is None:
            return ADDRESS_DELAY
        return min(max(_DELAY_PER_RTT * entry.handshake_time, MINIMUM_DELAY), MAXIMUM_DELAY)

    def _touch(self, key: Key) -> Remembered:
        entries = self._entries
        entry = entries.pop(key, None)
        if entry is None:
            entry = Remembered()
            if len(entries) >= self._limit:
                del entries[next(iter(entries))]
        entries[key] = entry
        return entry


class Memories:
    """Hands out the memory of each loop; a loop that is gone takes its memory along."""

    __slots__ = ("_by_loop",)

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Memory] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._by_loop)

    def of(self, loop: asyncio.AbstractEventLoop) -> Memory:
        """The memory of this loop."""
        memory = self._by_loop.get(loop)
        if memory is None:
            memory = self._by_loop[loop] = Memory()
        return memory


memories = Memories()
