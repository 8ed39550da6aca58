"""How many outgoing streams an association has, and asking the peer for more (RFC 6525)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neatpy.errors import CloneError, Reason

if TYPE_CHECKING:
    import asyncio

    from neatpy.stacks._sctp.association import Association

MOST_STREAMS = 4096
"""Streams that an association has at most in each direction."""


class Supply:
    """The outgoing streams of one association, which is known when it is established."""

    __slots__ = ("_asked", "_association", "_loop", "_waiting", "count")

    count: int
    """How many there are."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._association: Association | None = None
        self._asked = False
        self._waiting: list[asyncio.Future[None]] = []
        self.count = 0

    def begin(self, association: Association, count: int) -> None:
        """The association is established, with so many."""
        self._association = association
        self.count = count

    async def more(self, stream: int) -> None:
        """Wait for more, so that there may be one of this number. Raises CloneError."""
        if stream >= MOST_STREAMS:
            raise CloneError(f"an association has at most {MOST_STREAMS} streams", Reason.NOT_CLONEABLE)
        more: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(more)
        self.ask(stream)
        await more

    def ask(self, stream: int) -> None:
        """Ask for twice as many as there are, or as many as it takes for this one."""
        if self._asked or self._association is None:
            return
        wanted = min(max(2 * self.count, stream + 1), MOST_STREAMS)
        try:
            self._association.add_streams(wanted - self.count)
            self._asked = True
        except OSError:
            self._loop.call_soon(self.denied)

    def added(self, count: int) -> None:
        """So many are there now."""
        self._asked = False
        self.count = max(self.count, count)
        self._answer(None)

    def denied(self) -> None:
        """The peer gives no more."""
        self._asked = False
        self._answer(CloneError("the peer refuses more streams", Reason.NOT_CLONEABLE))

    def over(self) -> None:
        """The association has ended."""
        self._answer(CloneError("the association has ended", Reason.CONNECTION_CLOSED))

    def _answer(self, error: CloneError | None) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
