"""Received bytes that a framer has not consumed yet. Nothing here knows what they mean."""

from __future__ import annotations

from collections import deque


class Buffer:
    """Bytes in the chunks in which they came, with a cursor. A chunk is joined with others at most once, and only
    where somebody wants to look across its end."""

    __slots__ = ("cursor", "data", "later", "size")

    def __init__(self) -> None:
        self.data = b""
        """The first chunk; its bytes before ``cursor`` are consumed."""
        self.cursor = 0
        self.later: deque[bytes] | None = None
        self.size = 0
        """Bytes not consumed."""

    def append(self, chunk: bytes) -> None:
        """Add a chunk at the end."""
        if not self.size:
            self.data = chunk
            self.cursor = 0
        elif chunk:
            if self.later is None:
                self.later = deque()
            self.later.append(chunk)
        self.size += len(chunk)

    def peek(self, length: int) -> bytes:
        """The first ``length`` bytes, of which there must be so many."""
        if self.cursor + length > len(self.data):
            self._join(length)
        if self.cursor == 0 and length == len(self.data):
            return self.data
        return self.data[self.cursor : self.cursor + length]

    def take(self, length: int) -> bytes:
        """Consume and give the first ``length`` bytes, of which there must be so many."""
        taken: list[bytes] | None = None
        if self.cursor + length > len(self.data):
            taken = []
            while length:
                chunk = self.take_chunk(length)
                length -= len(chunk)
                taken.append(chunk)
            return b"".join(taken)
        return self.take_chunk(length)

    def take_chunk(self, most: int) -> bytes:
        """Consume and give up to ``most`` bytes of the first chunk; a whole chunk is given as it is."""
        begin = self.cursor
        chunk = self.data[begin : begin + most]
        self.skip(len(chunk))
        return chunk

    def skip(self, length: int) -> int:
        """Consume ``length`` bytes; gives how many of them are not there."""
        missing = max(0, length - self.size)
        left = length - missing
        self.size -= left
        self.cursor += left
        while self.cursor >= len(self.data) and self.later:
            self.cursor -= len(self.data)
            self.data = self.later.popleft()
        if not self.size:
            self.data = b""
            self.cursor = 0
        return missing

    def _join(self, length: int) -> None:
        """Make the first ``length`` bytes lie in one chunk."""
        assert self.later
        first = self.data[self.cursor :]
        joined = [first]
        have = len(first)
        while have < length:
            chunk = self.later.popleft()
            joined.append(chunk)
            have += len(chunk)
        self.data = b"".join(joined)
        self.cursor = 0
