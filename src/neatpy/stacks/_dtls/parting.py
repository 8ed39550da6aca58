"""Who gets an association on a port where stacks above DTLS listen too: its first decrypted record tells.

A stack above is one such as SCTP over DTLS, which recognises its own packets. This room knows none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from neatpy.stacks._tls.waiting import Waiting
from neatpy.stacks.contract import Accepted, Address, Flow, FlowObserver, StackListener

if TYPE_CHECKING:
    from neatpy.errors import TransportServicesError
    from neatpy.message import MessageContext
    from neatpy.stacks._dtls.accepting import DtlsPort

SILENCE = 1.5
"""Seconds after which a silent client is taken for one of DTLS alone, which waits for us to speak first. A client of
SCTP whose first packet was lost repeats it after one (RFC 9260 section 16)."""

UNDECIDED = 1024
"""How many silent clients are kept at once; one more, and the one that has been silent longest is given up."""

Recognises = Callable[[bytes], bool]


class Taker(NamedTuple):
    """A stack that takes Flows: those whose first record it recognises, or (None) all that nobody else wants."""

    recognises: Recognises | None
    accepted: Accepted


class Parting:
    """The takers of one port; true while there are any."""

    __slots__ = ("_takers", "_waiting")

    def __init__(self) -> None:
        self._takers: list[Taker] = []
        self._waiting = Waiting(UNDECIDED)

    def __bool__(self) -> bool:
        return bool(self._takers)

    def add(self, taker: Taker) -> None:
        """From now on it takes its share."""
        self._takers.append(taker)

    def remove(self, taker: Taker) -> None:
        """It takes no more."""
        self._takers.remove(taker)

    def close(self) -> None:
        """Give up everybody who has not said what they want."""
        self._waiting.give_up_all()

    def accept(self, flow: Flow) -> None:
        """An association whose handshake is complete."""
        if any(taker.recognises is not None for taker in self._takers):
            undecided = _Undecided(self, flow)
            flow.observer = undecided
            self._waiting.add(undecided, SILENCE, undecided.silent)
        else:
            self._give(flow, None)

    def decided(self, undecided: _Undecided, flow: Flow, first: bytes | None) -> None:
        """Give it to whom it belongs, by its first record if it has sent one."""
        self._waiting.forget(undecided)
        self._give(flow, first)

    def gone(self, undecided: _Undecided) -> None:
        """It ended before it said anything."""
        self._waiting.forget(undecided)

    def _give(self, flow: Flow, first: bytes | None) -> None:
        others: Taker | None = None
        for taker in self._takers:
            if taker.recognises is None:
                others = taker
            elif first is not None and taker.recognises(first):
                taker.accepted(flow)
                return
        if others is not None:
            others.accepted(flow)
        else:
            flow.abort()


class DtlsListener(StackListener):
    """One stack's share of a port. ``plain`` listens there too, for peers that do not speak DTLS."""

    __slots__ = ("_taker", "plain", "shared")

    def __init__(self, shared: DtlsPort, taker: Taker) -> None:
        self.shared = shared
        self._taker: Taker | None = taker
        self.plain: StackListener | None = None
        shared.parting.add(taker)

    @property
    def local_address(self) -> Address:
        return self.shared.local_address

    def close(self) -> None:
        taker, self._taker = self._taker, None
        if taker is not None:
            if self.plain is not None:
                self.plain.close()
            self.shared.parting.remove(taker)
            self.shared.release()


class _Undecided(FlowObserver):
    """Waits for the first record."""

    __slots__ = ("_flow", "_parting")

    def __init__(self, parting: Parting, flow: Flow) -> None:
        self._parting = parting
        self._flow = flow

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        self._parting.decided(self, self._flow, data)
        self._flow.observer.received(data, context, end_of_message)

    def finished(self) -> None:
        self.silent()
        self._flow.observer.finished()

    def closed(self, error: TransportServicesError | None) -> None:
        self._parting.gone(self)

    def silent(self) -> None:
        """It has had its time."""
        self._parting.decided(self, self._flow, None)

    def abort(self) -> None:
        """End it."""
        self._flow.abort()
