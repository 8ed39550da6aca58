"""The engine on the standard library's ``ssl``: SSLObject over memory BIOs.

This room knows the parameters of :mod:`neatpy.security` and nothing of Flows.
"""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from neatpy.errors import EstablishmentError, Reason
from neatpy.security import SecurityMode, SecurityProtocol
from neatpy.stacks._tls import plan
from neatpy.stacks._tls.client_hello import NO_APPLICATION_PROTOCOL, offered_alpn
from neatpy.stacks._tls.engine import Engine, Settings, TlsFailure, distrust, explained, no_common_alpn
from neatpy.stacks._tls.memory_file import memory_file

if TYPE_CHECKING:
    from neatpy.certificate import Certificate
    from neatpy.security import SecurityParameters
    from neatpy.stacks.contract import Data

_RECORD = 16384
_VERSIONS = {
    SecurityProtocol.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    SecurityProtocol.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}
_GROUPS = {"secp256r1": "prime256v1", "x25519": "X25519", "x448": "X448"}
_DEFAULT_SESSIONS = 32


class StandardEngine(Engine):
    """One TLS connection on ``ssl``."""

    __slots__ = ("_hello", "_incoming", "_outgoing", "_peer", "_settings", "_tls")

    def __init__(
        self, settings: StandardSettings, server_name: str | None, peer: tuple[str, int] | None
    ) -> None:
        super().__init__(server_name)
        self._settings = settings
        self._peer = peer
        self._hello: bytes | None = b"" if server_name is None and settings.security.alpn else None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = settings.context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
            session=settings.sessions.take(peer) if peer is not None else None,
        )

    def handshake(self) -> bool:
        if self._hello is not None and not self._offers_alpn(self._hello):
            return False
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise self._explained(error) from error
        return True

    def feed(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._hello is not None:
            self._hello += data

    def output(self) -> bytes:
        return self._outgoing.read()

    def read(self) -> bytes:
        read = self._tls.read
        first = b""
        more: list[bytes] | None = None
        try:
            while piece := read(_RECORD):
                if not first:
                    first = piece
                elif more is None:
                    more = [first, piece]
                else:
                    more.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.failure = self._explained(error)
            self.failure.__cause__ = error
        return first if more is None else b"".join(more)

    def write(self, data: Data) -> None:
        try:
            written = self._tls.write(data)
            while written < len(data):
                written += self._tls.write(memoryview(data)[written:])
        except ssl.SSLError as error:
            raise self._explained(error) from error

    def shutdown(self) -> None:
        # The peer's own close_notify, or data before it, is still to come; ours is in the output.
        with suppress(ssl.SSLError):
            self._tls.unwrap()

    def verdict(self) -> str | None:
        return plan.wrong_pin(self._settings.security, self.peer_chain()) if self.server_name else None

    def peer_chain(self) -> tuple[bytes, ...]:
        leaf = self._tls.getpeercert(binary_form=True)
        return () if leaf is None else (leaf,)

    def alpn(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    def facts(self) -> dict[str, object]:
        cipher = self._tls.cipher()
        return {
            "protocol": self._tls.version(),
            "ciphersuite": plan.iana_name(cipher[0]) if cipher else None,
            "alpn": self.alpn(),
            "peer_certificate": self._tls.getpeercert(binary_form=True),
            "resumed": bool(self._tls.session_reused),
        }

    def remember(self) -> bool:
        if self._peer is None:
            return True
        session = self._tls.session
        if session is None or not (session.has_ticket or (self._tls.version() != "TLSv1.3" and session.id)):
            return False
        self._settings.sessions.keep(self._peer, session)
        return True

    def _offers_alpn(self, hello: bytes) -> bool:
        """Refuse a client without a common ALPN as RFC 7301 says; False while its ClientHello is not complete."""
        try:
            offered = offered_alpn(hello)
        except ValueError:
            self._hello = None
            return True
        if offered is None:
            return False
        self._hello = None
        if any(protocol.encode() in offered for protocol in self._settings.security.alpn):
            return True
        self._outgoing.write(NO_APPLICATION_PROTOCOL)
        raise no_common_alpn(self._settings.security.alpn, bool(offered))

    def _explained(self, error: ssl.SSLError) -> TlsFailure:
        if isinstance(error, ssl.SSLCertVerificationError):
            return distrust(self.server_name, error.verify_code, error.verify_message)
        return explained(error.reason or _words(error))


def _words(error: ssl.SSLError) -> str:
    """What OpenSSL says where Python has no name for its reason: ``[SSL] tlsv1 alert ... (_ssl.c:1006)``."""
    return str(error.strerror or error).partition("] ")[2].rpartition(" (_ssl.c")[0] or str(error)


class StandardSettings(Settings):
    """One ``ssl.SSLContext`` and, for clients, the sessions that can be resumed with it."""

    __slots__ = ("context", "sessions")

    def __init__(self, security: SecurityParameters, listening: bool) -> None:
        self.security = security
        self.sessions = Sessions(security.max_cached_sessions, security.cached_session_lifetime_seconds)
        self.context = _context(security, listening)

    def client(self, server_name: str, peer: tuple[str, int] | None) -> Engine:
        return StandardEngine(self, server_name, peer if self.sessions.limit else None)

    def server(self) -> Engine:
        return StandardEngine(self, None, None)


class Sessions:
    """The last session with each peer, the least recently kept one given up first. A session is handed out once, so
    that an observer cannot link the Connections that resume it (RFC 8446 appendix C.4)."""

    __slots__ = ("_kept", "_lifetime", "limit")

    def __init__(self, limit: int | None, lifetime: float | None) -> None:
        self.limit = _DEFAULT_SESSIONS if limit is None else limit
        self._lifetime = lifetime
        self._kept: dict[tuple[str, int], tuple[float, ssl.SSLSession]] = {}

    def keep(self, peer: tuple[str, int], session: ssl.SSLSession) -> None:
        """Keep this session for the next Connection to the peer."""
        lifetime: float = session.timeout
        if session.has_ticket and session.ticket_lifetime_hint:
            lifetime = min(lifetime, session.ticket_lifetime_hint)
        if self._lifetime is not None:
            lifetime = min(lifetime, self._lifetime)
        self._kept.pop(peer, None)
        while self._kept and len(self._kept) >= self.limit:
            del self._kept[next(iter(self._kept))]
        if self.limit:
            self._kept[peer] = (time.monotonic() + lifetime, session)

    def take(self, peer: tuple[str, int]) -> ssl.SSLSession | None:
        """The session to resume with this peer, if there is one that is not too old."""
        expires, session = self._kept.pop(peer, (0.0, None))
        return session if time.monotonic() < expires else None


def _context(security: SecurityParameters, listening: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if listening else ssl.PROTOCOL_TLS_CLIENT)
    allowed = plan.versions(security)
    context.minimum_version, context.maximum_version = _VERSIONS[allowed[0]], _VERSIONS[allowed[-1]]
    try:
        _set_verification(context, security, listening)
    except (ssl.SSLError, ValueError) as error:
        raise _wrong("trusted_certificates or pinned_server_certificate cannot be used", error) from error
    for certificate in plan.own_certificates(security, listening):
        try:
            _load(context, certificate)
        except (ssl.SSLError, OSError, ValueError) as error:
            name = "server_certificate" if listening else "client_certificate"
            raise _wrong(f"the {name} or its private key cannot be used", error) from error
    _restrict(context, security)
    if security.alpn:
        context.set_alpn_protocols(list(security.alpn))
    if listening and security.max_cached_sessions == 0:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    if security.pre_shared_key is not None:
        _use_pre_shared_key(context, security, listening)
    return context


def _set_verification(context: ssl.SSLContext, security: SecurityParameters, listening: bool) -> None:
    if security.mode is SecurityMode.OPPORTUNISTIC:
        if not listening:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return
    if listening:
        if not security.trusted_certificates:
            return
        context.verify_mode = ssl.CERT_REQUIRED
    else:
        context.load_default_certs()
        context.hostname_checks_common_name = False
    # What the program trusts by name is an anchor even if it is no root itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for der in plan.anchors(security, listening):
        context.load_verify_locations(cadata=der)


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    with memory_file(certificate.certificate_chain + certificate.private_key) as path:
        context.load_cert_chain(path, password=certificate.password)


def _restrict(context: ssl.SSLContext, security: SecurityParameters) -> None:
    names = plan.old_ciphersuites(security)
    if names:
        try:
            context.set_ciphers(":".join(names))
        except ssl.SSLError as error:
            raise _wrong(
                f"OpenSSL here knows none of these as ciphersuite: {', '.join(names)}", error
            ) from error
        known = {str(cipher["name"]) for cipher in context.get_ciphers()}
        if missing := [name for name in names if name not in known]:
            raise _wrong(f"OpenSSL here does not know this as ciphersuite: {', '.join(missing)}")
    for name in security.supported_group:
        try:
            context.set_ecdh_curve(_GROUPS.get(name, name))
        except (ssl.SSLError, ValueError) as error:
            raise _wrong(f"OpenSSL here cannot use {name} as supported_group", error) from error


def _use_pre_shared_key(context: Any, security: SecurityParameters, listening: bool) -> None:
    assert security.pre_shared_key is not None
    key, identity = security.pre_shared_key
    try:
        name = identity.decode()
    except UnicodeDecodeError as error:
        raise _wrong("Python's ssl takes only UTF-8 as the identity of a pre_shared_key", error) from error
    if listening:
        context.set_psk_server_callback(lambda given: key if given == name else b"")
    else:
        context.set_psk_client_callback(lambda hint: (name, key))
    # Verification stays on: a server that does not take the key has to prove itself by a certificate.
    if not security.ciphersuite:
        context.set_ciphers("DEFAULT:PSK" if security.server_certificate else "PSK")


def _wrong(text: str, error: Exception | None = None) -> EstablishmentError:
    detail = (
        f": {error.reason if isinstance(error, ssl.SSLError) and error.reason else error}" if error else ""
    )
    return EstablishmentError(text + detail, Reason.INVALID_CONFIGURATION)
