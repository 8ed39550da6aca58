"""What an engine has to tell whoever drives it."""

from __future__ import annotations

from aioquic.quic.packet import QuicErrorCode


class EngineObserver:
    """What the protocol has to tell. The methods here do nothing."""

    __slots__ = ()

    def handshake_complete(self, early_data_accepted: bool, resumed: bool) -> bool:
        """Both sides have finished; the peer's certificate is not judged yet. True if what came after it may be told
        too; else it is kept for the next time."""
        return True

    def stream_data(self, stream: int, data: bytes, ended: bool) -> None:
        """The next bytes of a stream, in order. ``ended``: there are no more."""

    def stream_opened(self, stream: int) -> None:
        """The peer opened this stream, perhaps without any data."""

    def stream_reset(self, stream: int, code: int) -> None:
        """The peer gave up sending on this stream; what was not received is lost."""

    def stop_asked(self, stream: int, code: int) -> None:
        """The peer wants nothing more of this stream, whose sending side is reset for that."""

    def stream_delivered(self, stream: int) -> None:
        """The peer has acknowledged all of this stream, its end included, or our reset of it."""

    def datagram(self, data: bytes) -> None:
        """An unreliable datagram (RFC 9221)."""

    def connection_id_issued(self, connection_id: bytes) -> None:
        """The peer may use this connection id for us from now on."""

    def connection_id_retired(self, connection_id: bytes) -> None:
        """The peer will not use this connection id any more."""

    def peer_id_changed(self, reset_token: bytes) -> None:
        """The peer is addressed by another connection id from now on; the token is what resets it."""

    def pong(self) -> None:
        """A ping was acknowledged."""


class Closing:
    """Why a connection ends. ``application``: by the peer's program, or ours, and not the protocol's doing. ``lost``:
    the peer knows nothing of it any more, and has said so by a stateless reset."""

    __slots__ = ("application", "code", "lost", "reason")

    def __init__(self, code: int, application: bool, reason: str, lost: bool = False) -> None:
        self.code = code
        self.application = application
        self.reason = reason
        self.lost = lost

    @property
    def alert(self) -> int | None:
        """The TLS alert that this code stands for (RFC 9001 section 4.8), or None."""
        base = int(QuicErrorCode.CRYPTO_ERROR)
        return self.code - base if not self.application and base <= self.code < base + 256 else None

    @property
    def idle(self) -> bool:
        """Whether nothing was heard for too long."""
        return self.reason == "Idle timeout"
