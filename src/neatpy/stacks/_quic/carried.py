"""What all Flows on a QUIC connection have in common, whatever they carry there."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from neatpy.errors import ConnectionError, Reason
from neatpy.stacks._sharing import read_ahead
from neatpy.stacks.contract import Address, Flow, FlowObserver
from neatpy.system.datagram_options import wants_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neatpy.endpoint import LocalEndpoint, RemoteEndpoint
    from neatpy.errors import TransportServicesError
    from neatpy.properties import TransportProperties
    from neatpy.stacks._quic.connection import QuicTransport
    from neatpy.stacks.contract import Stack

NO_ERROR, ABORTED = 0, 1
"""The codes with which we close connections and streams: well, and by ``abort``."""

UNBOUND = FlowObserver()
"""The observer of a Flow that nobody has taken yet, or that nobody is to hear of any more."""


class CarriedFlow(Flow):
    """A Flow that a connection carries, by the number under which the connection knows it."""

    __slots__ = ("_lingers", "_paused", "_properties", "_transport", "closing", "over", "stream", "writable")

    closing: bool
    """``close`` was called: what arrives is discarded."""
    over: bool
    """Nothing is to be told any more."""

    def __init__(
        self, transport: QuicTransport, stream: int, observer: FlowObserver, properties: TransportProperties
    ) -> None:
        self._transport = transport
        self.stream = stream
        self.observer = observer
        self._properties = properties
        self.writable = True
        self.closing = self.over = self._paused = False
        self._lingers = False

    # What it is

    @property
    def stack(self) -> Stack:
        return self._transport.stack

    @property
    def local_address(self) -> Address:
        return self._transport.path.local_address

    @property
    def remote_address(self) -> Address:
        return self._transport.path.remote_address

    @property
    def paths(self) -> Sequence[tuple[Address, Address]]:
        return ((self.local_address, self.remote_address),)

    def apply(self, name: str, value: object) -> None:
        changed = self._properties.snapshot()
        changed.set(name, value)
        self._properties = changed
        self._transport.apply(self.stream, name, value)

    def change_paths(self, action: str, endpoint: LocalEndpoint | RemoteEndpoint) -> None:
        self._transport.change_paths(action, endpoint)

    def statistics(self) -> dict[str, float]:
        return self._transport.statistics()

    def security(self) -> dict[str, object]:
        return self._transport.security()

    @property
    def reads_ahead(self) -> int:
        return read_ahead(len(self._transport.flows))

    def pause_receiving(self) -> None:
        self._paused = True

    # What the connection tells

    @abstractmethod
    def opened(self) -> None:
        """The handshake is complete."""

    @abstractmethod
    def has_room(self) -> bool:
        """Whether the engine should have more of ours, after it was full."""

    @abstractmethod
    def write_on(self) -> bool:
        """Give the engine more; whether it is not full now."""

    @abstractmethod
    def connection_closed(self, error: TransportServicesError) -> None:
        """The connection is over; ``error`` is what to make of it if that was too early."""

    def soft_error(self, error: OSError) -> None:
        """The network has said something of our packets."""
        if not self.over and wants_errors(self._properties):
            soft = ConnectionError(str(error), Reason.PROTOCOL_FAILED)
            soft.__cause__ = error
            self.observer.soft_error(soft)

    def peer_left(self) -> None:
        """The network says that nobody listens where the peer was."""

    def path_changed(self) -> None:
        """Packets take another way."""
        if not self.over:
            self.observer.path_changed()

    # Ending

    def abort(self) -> None:
        if not self.over:
            self.observer = UNBOUND
            self._mark_over()
            self._transport.abandon(self)

    def discard(self) -> None:
        """Nobody has taken it."""
        self._mark_over()

    def ended(self, error: TransportServicesError | None) -> None:
        """Report Closed, or what broke."""
        if self.over:
            return
        if not self.closing:
            self._tell_rest()
        observer, self.observer = self.observer, UNBOUND
        self._mark_over()
        observer.closed(error)

    def _tell_rest(self) -> None:
        """Nothing more comes: what is held goes up, though it was not asked for yet."""

    def _mark_over(self) -> None:
        self.over = True
        self.writable = False
        if self._lingers:
            self._end_linger()

    def _linger(self, seconds: float, give_up: Callable[[], None]) -> None:
        """Wait for the peer, but no longer than this."""
        self._lingers = True
        self._transport.patience.begin(self, seconds, give_up)

    def _end_linger(self) -> None:
        self._lingers = False
        self._transport.patience.end(self)


def is_bound(flow: Flow) -> bool:
    """Whether somebody has put an observer on a Flow that was offered."""
    return flow.observer is not UNBOUND
