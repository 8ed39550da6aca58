"""Messages that seem to end, and may not.

usrsctp hands out a message in pieces before its end has come. Where the end never comes, since the peer has given
the message up or is gone, it lets the last piece look like the end. If the association goes on, the next thing to read
says that the message was not completed. If it is broken nothing does, so that there only something that follows on the
same stream shows that the message has ended before: all else has been read before the association broke.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neatpy.stacks._sctp import notifications

if TYPE_CHECKING:
    from collections.abc import Callable

Piece = tuple[int, bytes, bool, int]
"""Stream, payload, whether it is unordered, and the payload protocol identifier."""


class Doubtful:
    """The last pieces that wait until it is known whether they are the last, at most one of each stream. ``tell`` is
    called with each, and whether its message is complete."""

    __slots__ = ("_broken", "_pieces", "_tell")

    def __init__(self, tell: Callable[[int, bytes, bool, int, bool], None], *, broken: bool) -> None:
        self._tell = tell
        self._broken = broken
        self._pieces: dict[int, Piece] = {}

    def add(self, piece: Piece) -> None:
        """This one seems to end a message."""
        self._pieces[piece[0]] = piece

    def data_follow(self, stream: int) -> None:
        """More data were read, on this stream."""
        if self._broken:
            self._settle(stream, complete=True)
        else:
            self.nothing_follows()

    def news_follow(self, notification: bytes) -> None:
        """A notification was read."""
        unended = notifications.unended(notification)
        if unended is not None:
            self._settle(unended, complete=False)
        for stream in notifications.reset_by_peer(notification):
            self._settle(stream, complete=True)
        if not self._broken or notifications.changes_association(notification):
            self.nothing_follows()

    def nothing_follows(self) -> None:
        """There is nothing more to read."""
        for stream in list(self._pieces):
            self._settle(stream, complete=not self._broken)

    def _settle(self, stream: int, *, complete: bool) -> None:
        piece = self._pieces.pop(stream, None)
        if piece is not None:
            self._tell(*piece, complete)
