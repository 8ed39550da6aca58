"""The server's side of TLS: handshakes in progress, bounded in number and in time.

An opportunistic Listener also tells here, by the first byte, who speaks TLS from who does not. This room knows the
contract of stacks and no TLS library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neatpy.stacks._tls.flow import Below, TlsFlow
from neatpy.stacks._tls.handshake import refused
from neatpy.stacks._tls.waiting import Waiting, tell_loop
from neatpy.stacks.contract import Accepted, Address, Flow, FlowObserver, ListenRequest, StackListener

if TYPE_CHECKING:
    from neatpy.errors import EstablishmentError, TransportServicesError
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

    __slots__ = ("_accepted", "_plain_allowed", "_refused", "_settings", "_stack", "_waiting", "lower")

    lower: StackListener

    def __init__(
        self, stack: TlsStack, settings: Settings, request: ListenRequest, accepted: Accepted
    ) -> None:
        self._stack = stack
        self._settings = settings
        self._plain_allowed = request.plain_allowed
        self._refused = request.refused
        self._accepted = accepted
        self._waiting = Waiting(HANDSHAKES, self._given_up)

    @property
    def local_address(self) -> Address:
        return self.lower.local_address

    def close(self) -> None:
        self.lower.close()
        self._waiting.give_up_all()

    def begin(self, lower: Flow) -> None:
        """Take a Flow that the stack below has accepted."""
        if self._plain_allowed:
            sniffer = _Sniffer(self, lower)
            lower.observer = sniffer
            self._waiting.add(sniffer, SILENCE, sniffer.plain)
        else:
            self.shake(lower)

    def shake(self, lower: Flow, first: bytes = b"") -> None:
        """Begin the handshake over this Flow, whose first bytes may have come already."""
        flow = TlsFlow(self._stack, self._settings.security, self._settings.server(), _NOBODY, self._outcome)
        lower.observer = below = Below(flow)
        self._waiting.add(flow, HANDSHAKE_TIME)
        flow.start(lower)
        if first:
            below.received(first, None, False)

    def accept_plain(self, sniffer: _Sniffer, lower: Flow) -> None:
        """Hand on a Flow without TLS."""
        self._waiting.forget(sniffer)
        self._accepted(lower)

    def go_on(self, sniffer: _Sniffer, lower: Flow, first: bytes) -> None:
        """Go on with TLS."""
        self._waiting.forget(sniffer)
        self.shake(lower, first)

    def gone(self, sniffer: _Sniffer, error: TransportServicesError | None) -> None:
        """The peer went before it said anything."""
        self._waiting.forget(sniffer)
        text = "the connection ended before the peer said anything"
        self._refused(self._stack, sniffer.lower.remote_address, refused(text, error))

    def speaks_tls(self, first: bytes) -> bool:
        """Whether these first bytes are TLS."""
        return self._stack.sniff(first)

    def _outcome(self, flow: TlsFlow, error: BaseException | None) -> None:
        self._waiting.forget(flow)
        if error is None:
            self._accepted(flow)
        else:
            self._refused(self._stack, flow.remote_address, error)
            tell_loop(error)

    def _given_up(self, item: TlsFlow | _Sniffer, error: EstablishmentError) -> None:
        self._refused(self._stack, item.lower.remote_address, error)


class _Sniffer(FlowObserver):
    """Waits for the first bytes of a client, to see whether it speaks TLS."""

    __slots__ = ("_listener", "lower")

    def __init__(self, listener: TlsListener, lower: Flow) -> None:
        self._listener = listener
        self.lower = lower

    def received(
        self, data: bytes, context: MessageContext | None, end_of_message: bool, last: bool = False
    ) -> None:
        if self._listener.speaks_tls(data):
            self._listener.go_on(self, self.lower, data)
        else:
            self.plain()
            self.lower.observer.received(data, context, end_of_message)

    def finished(self) -> None:
        self.plain()
        self.lower.observer.finished()

    def closed(self, error: TransportServicesError | None) -> None:
        self._listener.gone(self, error)

    def plain(self) -> None:
        """This client does not speak TLS."""
        self._listener.accept_plain(self, self.lower)

    def abort(self) -> None:
        """End it."""
        self.lower.abort()
