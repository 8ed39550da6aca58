"""The server's side of TLS: handshakes in progress, bounded in number and in time.

An opportunistic Listener also tells here, by the first byte, who speaks TLS from who does not. This room knows the
contract of stacks and no TLS library.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from neatpy.stacks._tls.flow import Below, CallbackFailed, TlsFlow
from neatpy.stacks.contract import Accepted, Address, Flow, FlowObserver, StackListener

if TYPE_CHECKING:
    from neatpy.errors import TransportServicesError
    from neatpy.message import MessageContext
    from neatpy.stacks._tls.engine import Settings
    from neatpy.stacks.tls import TlsStack

HANDSHAKE_TIME = 15.0
"""Seconds that a client has for its handshake, our callbacks included."""

HANDSHAKES = 1024
"""How many handshakes may be in progress at once; one more, and the oldest is given up."""

SILENCE = 3.0
"""Seconds after which a silent client of an opportunistic Listener is taken for one that waits for us to speak first,
as some protocols without TLS do; a client with TLS speaks at once."""

_NOBODY = FlowObserver()


class TlsListener(StackListener):
    """Makes TLS Flows of what the stack below accepts."""

    __slots__ = ("_accepted", "_plain_allowed", "_settings", "_stack", "_waiting", "lower")

    lower: StackListener

    def __init__(self, stack: TlsStack, settings: Settings, plain_allowed: bool, accepted: Accepted) -> None:
        self._stack = stack
        self._settings = settings
        self._plain_allowed = plain_allowed
        self._accepted = accepted
        self._waiting: dict[TlsFlow | _Sniffer, asyncio.TimerHandle] = {}

    @property
    def local_address(self) -> Address:
        return self.lower.local_address

    def close(self) -> None:
        self.lower.close()
        for flow in list(self._waiting):
            self._forget(flow)
            flow.abort()

    def begin(self, lower: Flow) -> None:
        """Take a Flow that the stack below has accepted."""
        if self._plain_allowed:
            sniffer = _Sniffer(self, lower)
            lower.observer = sniffer
            self._watch(sniffer, SILENCE, sniffer.plain)
        else:
            self.shake(lower)

    def shake(self, lower: Flow, first: bytes = b"") -> None:
        """Begin the handshake over this Flow, whose first bytes may have come already."""
        flow = TlsFlow(self._stack, self._settings.security, self._settings.server(), _NOBODY, self._outcome)
        lower.observer = below = Below(flow)
        self._watch(flow, HANDSHAKE_TIME, lambda: self._give_up(flow))
        flow.start(lower)
        if first:
            below.received(first, None, False)

    def accept_plain(self, sniffer: _Sniffer, lower: Flow) -> None:
        """Hand on a Flow without TLS."""
        self._forget(sniffer)
        self._accepted(lower)

    def go_on(self, sniffer: _Sniffer, lower: Flow, first: bytes) -> None:
        """Go on with TLS."""
        self._forget(sniffer)
        self.shake(lower, first)

    def gone(self, sniffer: _Sniffer) -> None:
        """The peer went before it said anything."""
        self._forget(sniffer)

    def speaks_tls(self, first: bytes) -> bool:
        """Whether these first bytes are TLS."""
        return self._stack.sniff(first)

    def _watch(self, flow: TlsFlow | _Sniffer, seconds: float, late: Callable[[], None]) -> None:
        if len(self._waiting) >= HANDSHAKES:
            self._give_up(next(iter(self._waiting)))
        self._waiting[flow] = asyncio.get_running_loop().call_later(seconds, late)

    def _forget(self, flow: TlsFlow | _Sniffer) -> None:
        timer = self._waiting.pop(flow, None)
        if timer is not None:
            timer.cancel()

    def _give_up(self, flow: TlsFlow | _Sniffer) -> None:
        self._forget(flow)
        flow.abort()

    def _outcome(self, flow: TlsFlow, error: BaseException | None) -> None:
        self._forget(flow)
        if error is None:
            self._accepted(flow)
        elif isinstance(error, CallbackFailed) and error.__cause__ is not None:
            _tell_loop(error.__cause__)


class _Sniffer(FlowObserver):
    """Waits for the first bytes of a client, to see whether it speaks TLS."""

    __slots__ = ("_listener", "_lower")

    def __init__(self, listener: TlsListener, lower: Flow) -> None:
        self._listener = listener
        self._lower = lower

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        if self._listener.speaks_tls(data):
            self._listener.go_on(self, self._lower, data)
        else:
            self.plain()
            self._lower.observer.received(data, context, end_of_message)

    def finished(self) -> None:
        self.plain()
        self._lower.observer.finished()

    def closed(self, error: TransportServicesError | None) -> None:
        self._listener.gone(self)

    def plain(self) -> None:
        """This client does not speak TLS."""
        self._listener.accept_plain(self, self._lower)

    def abort(self) -> None:
        """End it."""
        self._lower.abort()


def _tell_loop(error: BaseException) -> None:
    """A callback of the program raised, and no Connection is there to tell it."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": "the trust verification callback of a Listener raised", "exception": error}
    )
