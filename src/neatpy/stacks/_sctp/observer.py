"""What an association tells whoever drives it, and what it measures. Declarations alone."""

from __future__ import annotations

from dataclasses import dataclass


class AssociationObserver:
    """What an Association tells whoever drives it. The methods here do nothing."""

    __slots__ = ()

    def connected(self, streams_out: int, streams_in: int, interleaving: bool) -> None:
        """The association is established. ``interleaving``: messages of different streams can be under way at the
        same time (RFC 8260); without it, a message that was begun must be sent to its end before another stream is
        used."""

    def data(self, stream: int, payload: bytes, unordered: bool, ppid: int, complete: bool) -> None:
        """A piece of a message, which ``complete`` ends. Pieces of one stream are never mixed; with interleaving,
        pieces of different streams come in any order."""

    def data_abandoned(self, stream: int) -> None:
        """The peer gave the message up of which this stream has delivered pieces; nothing ends."""

    def writable(self) -> None:
        """``send`` took less than it was given, and may now take more."""

    def send_failed(self, context: int, error: int) -> None:
        """A piece of the message sent with this context was given up: its lifetime is over, or the association is.
        Called for each piece."""

    def dry(self) -> None:
        """After ``ask_dry``: the peer has acknowledged everything that was sent."""

    def stream_reset(self, incoming: tuple[int, ...], outgoing: tuple[int, ...]) -> None:
        """Streams start anew: ``incoming`` the peer has reset, ``outgoing`` one's own ``reset`` has, and the peer
        knows. ``(-1,)`` is all of them."""

    def stream_reset_failed(self, denied: bool) -> None:
        """A ``reset`` came to nothing; ``denied``: the peer would not."""

    def streams_added(self, streams_in: int, streams_out: int) -> None:
        """So many streams are there now, in each direction."""

    def streams_denied(self) -> None:
        """An ``add_streams`` came to nothing."""

    def path_changed(self, reachable: bool) -> None:
        """The peer does not answer any more, or again."""

    def remote_error(self, cause: int) -> None:
        """The peer sent an ERROR chunk with this cause code (RFC 9260 section 3.3.10); nothing ends."""

    def peer_shutdown(self) -> None:
        """The peer will send no more; what was sent is still delivered, but nothing more can be. ``closed`` follows."""

    def closed(self, error: OSError | None, reason: bytes) -> None:
        """The association is over, and nothing else is called. None after a shutdown of either side that delivered
        everything. ConnectionRefusedError or TimeoutError: it was not established. ConnectionResetError: the peer
        aborted, for the ``reason`` it gave. ConnectionAbortedError: the peer does not answer any more, or was started
        anew."""


@dataclass(frozen=True, slots=True)
class Status:
    """What an association measures. Times are in seconds, but usrsctp counts whole milliseconds: a
    round trip below one, as on loopback, is 0.0. ``unacknowledged`` counts chunks in flight, ``incomplete``
    chunks that were received and wait for others; what waits to be sent is not known."""

    established: bool
    rtt: float
    rto: float
    congestion_window: int
    peer_window: int
    mtu: int
    fragmentation_point: int
    unacknowledged: int
    incomplete: int
    streams_in: int
    streams_out: int
