"""How an association ends, once its last Flow is closing (RFC 9260 section 9.2).

A Flow is Closed when the peer has acknowledged all that we said. SCTP has no half-closed state: after a SHUTDOWN the
peer can begin nothing more, and one that is in the midst of a long Message, of which its SCTP has only a part yet, has
to abort. So a peer that is still speaking is listened to until it falls silent, for a bounded time: one that is heard
after we have closed, or within a round trip if it had just said more than an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from neatpy.stacks._sctp.streams import Streams

_SILENCE = 0.1
"""Seconds, or two round trips if that is more, after which a peer that says nothing has ended."""

_PAUSE = 0.02
"""Seconds, or a round trip if that is more, in which a peer that has just said more than an answer may go on."""

_LISTENING = 10.0
"""Seconds for which a peer is listened to at most."""

_LOOK = 0.5
"""Seconds after which we look whether the peer has everything: the association never runs dry of a Message that was
begun and given up."""

_PARTING = 1.0
"""Seconds that the Flows wait for the handshake of the end, before which the peer sends what it still has."""


class Leaving:
    """The end of one association, which begins at once."""

    __slots__ = ("_delivered", "_heard_at", "_may_go_on", "_streams", "_timer", "_until", "polite")

    polite: bool
    """Nothing but the handshake of the end is awaited, which the peer is trusted to end by itself."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._delivered = self.polite = False
        self._heard_at: float | None = None
        self._may_go_on = streams.unasked > 1 and streams.loop.time() - streams.heard_at < self._silence
        self._until = 0.0
        streams.association.ask_dry()
        self._timer: asyncio.TimerHandle = streams.loop.call_later(_LOOK, self._look)

    def heard(self) -> None:
        """The peer goes on speaking."""
        self._heard_at = self._streams.loop.time()

    @property
    def delivered(self) -> bool:
        """Whether the peer has all that we said."""
        return self._delivered

    def dry(self) -> None:
        """The peer had acknowledged everything when this was noted, which may be some time ago."""
        streams = self._streams
        if self._delivered:
            return
        if streams.association.undelivered():
            streams.association.ask_dry()
            return
        self._delivered = True
        self.over()
        if self._may_go_on and self._heard_at is None:
            self._timer = streams.loop.call_later(max(_PAUSE, self._round_trip), self._part)
        else:
            self._part()

    def _part(self) -> None:
        streams = self._streams
        self._may_go_on = False
        if self._heard_at is None:
            self.polite = True
            self._timer = streams.loop.call_later(_PARTING, self._part_anyway)
            streams.shut_down()
        else:
            self._until = streams.loop.time() + _LISTENING
            streams.end_flows()
            self._listen()

    def _part_anyway(self) -> None:
        """The peer has something to say that it cannot end."""
        self.polite = False
        self._streams.end_flows()

    def _look(self) -> None:
        streams = self._streams
        self._timer = streams.loop.call_later(_LOOK, self._look)
        if not streams.association.undelivered():
            self.dry()

    def _listen(self) -> None:
        streams = self._streams
        assert self._heard_at is not None
        if streams.loop.time() >= min(self._heard_at + self._silence, self._until):
            streams.shut_down()
        else:
            self._timer = streams.loop.call_later(self._silence, self._listen)

    @property
    def _round_trip(self) -> float:
        return self._streams.statistics().get("rtt", 0.0)

    @property
    def _silence(self) -> float:
        return max(_SILENCE, 2 * self._round_trip)

    def over(self) -> None:
        """Wait for nothing any more: the association has ended."""
        self._timer.cancel()
