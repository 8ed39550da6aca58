"""What the TLS layer asks of a TLS library: an engine turns ciphertext into plaintext and back, in memory.

There is one adapter for the standard library's ``ssl`` and one for pyOpenSSL, for the parameters that ``ssl`` cannot
set. This room knows no socket and no Flow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neatpy.security import SecurityParameters
    from neatpy.stacks.contract import Data


class TlsFailure(Exception):
    """The handshake or the protocol failed; the text says why and, where there is something, what to do."""


class Engine(ABC):
    """One TLS connection in memory."""

    __slots__ = ("ended", "failure", "server_name")

    server_name: str | None
    """The name or address that the peer must prove to be; None on the server's side."""
    ended: bool
    """Whether the peer's close_notify has come."""
    failure: TlsFailure | None
    """Why the protocol failed while reading; what was read before is good."""

    def __init__(self, server_name: str | None) -> None:
        self.server_name = server_name
        self.ended = False
        self.failure = None

    @abstractmethod
    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete. Raises TlsFailure; an alert may be in the output."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take ciphertext of the peer."""

    @abstractmethod
    def output(self) -> bytes:
        """The ciphertext for the peer since the last call."""

    @abstractmethod
    def read(self) -> bytes:
        """All plaintext that is complete, and note ``ended`` or ``failure``."""

    @abstractmethod
    def write(self, data: Data) -> None:
        """Encrypt. Raises TlsFailure if the protocol has failed."""

    @abstractmethod
    def shutdown(self) -> None:
        """Put a close_notify into the output; reading goes on."""

    @abstractmethod
    def verdict(self) -> str | None:
        """Why the peer is not to be trusted, or None. What the library has refused itself has
        already failed the handshake."""

    def can_judge(self) -> bool:
        """Whether ``verdict`` and ``peer_chain`` already hold although the handshake is not complete."""
        return False

    @abstractmethod
    def peer_chain(self) -> tuple[bytes, ...]:
        """What the peer presented, in DER, its own certificate first."""

    @abstractmethod
    def alpn(self) -> str | None:
        """The application protocol that was negotiated."""

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """What was negotiated, as ``Flow.security`` gives it."""

    def release(self) -> None:  # noqa: B027 - not every library has something to give back
        """Nothing is encrypted or decrypted any more; what was negotiated can still be asked for."""

    def remember(self) -> bool:
        """Keep the session for resumption; True when there is nothing left to keep."""
        return True


class Settings(ABC):
    """The library's context for one set of security parameters: dear to make, and shared by many engines."""

    __slots__ = ("security",)

    security: SecurityParameters

    @abstractmethod
    def client(self, server_name: str, peer: tuple[str, int] | None) -> Engine:
        """An engine for the client's side. ``peer`` is whose sessions may be resumed, or None for none."""

    @abstractmethod
    def server(self) -> Engine:
        """An engine for the server's side."""


def explained(reason: str) -> TlsFailure:
    """OpenSSL's reason for a failure (``TLSV1_ALERT_UNKNOWN_CA``) in words."""
    words = reason.lower().replace("_", " ")
    _, alert, text = words.partition(" alert ")
    if alert:
        advice = _ALERTS.get(text, "")
        return TlsFailure(f"the peer refused: {text}{f' ({advice})' if advice else ''}")
    for sign, meaning in _MEANINGS.items():
        if sign in words:
            return TlsFailure(f"{meaning} ({words})")
    return TlsFailure(f"TLS failed: {words}")


def no_common_alpn(ours: Sequence[str], offered: bool) -> TlsFailure:
    """What a server says of a client that has offered others, or none at all."""
    theirs = "others" if offered else "none"
    return TlsFailure(
        f"no application protocol (alpn) that both sides have: the client offers {theirs}; ours: {', '.join(ours)}"
    )


def distrust(server_name: str | None, code: int, message: str) -> TlsFailure:
    """A verification that failed, by OpenSSL's code and message, with what to do about it."""
    whose = f"of {server_name}" if server_name else "of the client"
    advice = _ADVICE.get(code, "")
    return TlsFailure(
        f"the certificate {whose} is not trusted: {message.rstrip('.')}{f'; {advice}' if advice else ''}"
    )


HOSTNAME_MISMATCH = 62
IP_MISMATCH = 64
_ISSUER = "if it is the right one, give its root in trusted_certificates"
_NAME = "connect by a name that the certificate has"
_ADVICE = {
    2: _ISSUER,
    9: "it is not valid yet, or the clock of this host is wrong",
    10: "it must be renewed, or the clock of this host is wrong",
    18: _ISSUER,
    19: _ISSUER,
    20: _ISSUER,
    21: _ISSUER,
    HOSTNAME_MISMATCH: _NAME,
    IP_MISMATCH: _NAME,
}
_ALERTS = {
    "unknown ca": "it does not know the issuer of our certificate, or we gave it none it knows",
    "certificate required": "it wants a client_certificate",
    "bad certificate": "it does not accept our certificate, or wants a client_certificate",
    "handshake failure": "nothing that both sides support, or it wants a client_certificate",
    "protocol version": "no protocol version that both sides allow",
    "no application protocol": "no alpn that both sides have",
}
_MEANINGS = {
    "wrong version number": "the peer does not speak TLS",
    "http request": "the peer does not speak TLS",
    "record layer failure": "the peer does not speak TLS, or its data was changed on the way",
    "packet length too long": "the peer does not speak TLS, or its data was changed on the way",
    "bad record mac": "the peer's data was changed on the way",
    "unsupported protocol": "no protocol version that both sides allow",
    "no shared cipher": "no ciphersuite that both sides allow",
    "peer did not return a certificate": "the client presented no certificate, and one is required",
    "no suitable key share": "no group that both sides allow",
    "no suitable groups": "no group that both sides allow",
}
