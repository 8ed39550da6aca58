"""The engine on pyOpenSSL's Connection over memory BIOs, for what ``ssl`` cannot set.

The system's verdict is made here without refusing at once, since a trust verification callback may overrule it: the
library notes what is wrong, the name is compared by :mod:`~neatpy.stacks._tls.names`, and the flight that would
complete the handshake is not sent before the verdict. This room knows nothing of Flows.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL, crypto

from neatpy.errors import EstablishmentError, Reason
from neatpy.security import SecurityMode, SecurityProtocol
from neatpy.stacks._tls import plan
from neatpy.stacks._tls.engine import (
    HOSTNAME_MISMATCH,
    Engine,
    Settings,
    TlsFailure,
    distrust,
    explained,
    no_common_alpn,
)
from neatpy.stacks._tls.memory_file import memory_file
from neatpy.stacks._tls.names import ascii_name, packed_address, wrong_name

if TYPE_CHECKING:
    from neatpy.security import SecurityParameters
    from neatpy.stacks.contract import Data

_RECORD = 16384
_OUTPUT = 1 << 18
_VERSIONS = {SecurityProtocol.TLS_1_2: SSL.TLS1_2_VERSION, SecurityProtocol.TLS_1_3: SSL.TLS1_3_VERSION}


class PyOpenSslEngine(Engine):
    """One TLS connection on pyOpenSSL."""

    __slots__ = ("_security", "_tls", "problem")

    problem: tuple[int, str] | None
    """The first thing that was wrong with the peer's chain: OpenSSL's code and message."""

    def __init__(self, settings: PyOpenSslSettings, server_name: str | None) -> None:
        super().__init__(server_name)
        self._security = settings.security
        self.problem = None
        self._tls = SSL.Connection(settings.context, None)
        self._tls.set_app_data(self)
        if server_name is None:
            self._tls.set_accept_state()
            return
        self._tls.set_connect_state()
        if packed_address(server_name) is None:
            self._tls.set_tlsext_host_name(ascii_name(server_name).encode("ascii"))

    def handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise self._explained(error) from error
        return True

    def feed(self, data: bytes) -> None:
        while data:
            taken = self._tls.bio_write(data)
            data = data[taken:]

    def output(self) -> bytes:
        pieces = []
        try:
            while True:
                pieces.append(self._tls.bio_read(_OUTPUT))
        except SSL.WantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read(self) -> bytes:
        pieces = []
        try:
            while True:
                pieces.append(self._tls.recv(_RECORD))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            self.failure = self._explained(error)
            self.failure.__cause__ = error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: Data) -> None:
        try:
            written = self._tls.send(data)
            while written < len(data):
                written += self._tls.send(memoryview(data)[written:])
        except SSL.Error as error:
            raise self._explained(error) from error

    def shutdown(self) -> None:
        with suppress(SSL.Error):  # the protocol has failed already; there is nothing to close
            self._tls.shutdown()

    def verdict(self) -> str | None:
        if self.server_name is None and not plan.asks_clients(self._security):
            return None
        if self._security.mode is SecurityMode.OPPORTUNISTIC:
            return None
        chain = self.peer_chain()
        if not chain:
            return f"{'the client' if self.server_name is None else 'the server'} presented no certificate"
        if self.problem is not None:
            return str(distrust(self.server_name, *self.problem))
        if self.server_name is None:
            return None
        text = wrong_name(chain[0], self.server_name)
        if text is not None:
            return str(distrust(self.server_name, HOSTNAME_MISMATCH, text))
        return plan.wrong_pin(self._security, chain)

    def can_judge(self) -> bool:
        # In TLS 1.2 the server takes our last flight for the end of the handshake: it waits for the verdict.
        return self.server_name is not None and self._leaf() is not None

    def peer_chain(self) -> tuple[bytes, ...]:
        leaf = self._leaf()
        presented = self._tls.get_peer_cert_chain(as_cryptography=True) or []
        chain = [_der(certificate) for certificate in presented]
        # A server is given the chain without the client's own certificate; a client gets all of it.
        return tuple(chain if leaf is None or leaf in chain[:1] else [leaf, *chain])

    def alpn(self) -> str | None:
        return self._tls.get_alpn_proto_negotiated().decode("ascii", "replace") or None

    def facts(self) -> dict[str, object]:
        return {
            "protocol": self._tls.get_protocol_version_name(),
            "ciphersuite": plan.iana_name(self._tls.get_cipher_name()),
            "alpn": self.alpn(),
            "peer_certificate": self._leaf(),
            "resumed": False,
        }

    def release(self) -> None:
        self._tls.set_app_data(None)  # else only a collection of cycles would free OpenSSL's buffers

    def _leaf(self) -> bytes | None:
        certificate = self._tls.get_peer_certificate(as_cryptography=True)
        return None if certificate is None else _der(certificate)

    def _explained(self, error: SSL.Error) -> TlsFailure:
        if self.problem is not None:
            return distrust(self.server_name, *self.problem)
        details: Any = error.args[0] if error.args else ""
        if isinstance(details, list) and details:
            return explained(str(details[-1][-1]))
        return explained(str(details) or type(error).__name__)


class PyOpenSslSettings(Settings):
    """One ``SSL.Context``."""

    __slots__ = ("context",)

    def __init__(self, security: SecurityParameters, listening: bool) -> None:
        self.security = security
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD if listening else SSL.TLS_CLIENT_METHOD)
        allowed = plan.versions(security)
        self.context.set_min_proto_version(_VERSIONS[allowed[0]])
        self.context.set_max_proto_version(_VERSIONS[allowed[-1]])
        configure(self.context, security, listening, plan.new_ciphersuites(security))

    def client(self, server_name: str, peer: tuple[str, int] | None) -> Engine:
        return PyOpenSslEngine(self, server_name)

    def server(self) -> Engine:
        return PyOpenSslEngine(self, None)


def configure(
    context: SSL.Context, security: SecurityParameters, listening: bool, new_ciphersuites: list[str]
) -> None:
    """Make a context do what the parameters say; it must have its versions. ``new_ciphersuites`` are those of TLS 1.3.
    Raises EstablishmentError."""
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    _set_verification(context, security, listening)
    _load_own(context, security, listening)
    old_ciphersuites = plan.old_ciphersuites(security)
    _restrict(context, old_ciphersuites, new_ciphersuites)
    if security.alpn:
        protocols = [protocol.encode("ascii") for protocol in security.alpn]
        if listening:
            context.set_alpn_select_callback(lambda _, offered: _chosen(protocols, offered))
        else:
            context.set_alpn_protos(protocols)
    if listening:
        _set_sessions(context, security)
    _check_ciphersuites(context, [*old_ciphersuites, *new_ciphersuites])


def _set_verification(context: SSL.Context, security: SecurityParameters, listening: bool) -> None:
    if security.mode is SecurityMode.OPPORTUNISTIC or (listening and not plan.asks_clients(security)):
        context.set_verify(SSL.VERIFY_NONE)
        return
    overruled = security.trust_verification_callback is not None

    def note(tls: SSL.Connection, certificate: crypto.X509, code: int, depth: int, good: int) -> bool:
        engine = tls.get_app_data()
        if not good and engine.problem is None:
            engine.problem = (code, _MESSAGES.get(code, f"verification error {code}"))
        return bool(good) or overruled

    required = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if listening and security.trusted_certificates else 0
    context.set_verify(SSL.VERIFY_PEER | required, note)
    if not listening:
        _load_system_roots(context)
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    try:
        for der in plan.anchors(security, listening):
            store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
    except (crypto.Error, ValueError) as error:
        raise _wrong("trusted_certificates or pinned_server_certificate cannot be used", error) from error


def _load_system_roots(context: SSL.Context) -> None:
    """The same roots that ``ssl`` takes; pyOpenSSL's own defaults are those of its wheel's build host."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None or paths.capath is not None:
        context.load_verify_locations(paths.cafile, paths.capath)
        return
    system = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    system.load_default_certs()
    store = context.get_cert_store()
    assert store is not None
    for der in system.get_ca_certs(binary_form=True):
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, der))


def _load_own(context: SSL.Context, security: SecurityParameters, listening: bool) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    for certificate in plan.own_certificates(security, listening):
        try:
            with memory_file(certificate.certificate_chain) as path:
                context.use_certificate_chain_file(path)
            key: Any = load_pem_private_key(certificate.private_key, certificate.password)
            context.use_privatekey(key)
            context.check_privatekey()
        except (SSL.Error, crypto.Error, ValueError, TypeError) as error:
            name = "server_certificate" if listening else "client_certificate"
            raise _wrong(f"the {name} or its private key cannot be used", error) from error


def _restrict(context: SSL.Context, old: list[str], new: list[str]) -> None:
    try:
        if old:
            context.set_cipher_list(":".join(old).encode("ascii"))
        if new:
            context.set_tls13_ciphersuites(":".join(new).encode("ascii"))
    except SSL.Error as error:
        raise _wrong(
            f"OpenSSL here cannot use this as ciphersuite: {', '.join([*old, *new])}", error
        ) from error


def _check_ciphersuites(context: SSL.Context, wanted: list[str]) -> None:
    """OpenSSL skips names that it does not know if it knows another. A context cannot be changed after this."""
    known = SSL.Connection(context, None).get_cipher_list() if wanted else []
    if missing := [name for name in wanted if name not in known]:
        raise _wrong(f"OpenSSL here does not know this as ciphersuite: {', '.join(missing)}")


def _chosen(protocols: list[bytes], offered: list[bytes]) -> bytes:
    for protocol in protocols:
        if protocol in offered:
            return protocol
    raise no_common_alpn([protocol.decode() for protocol in protocols], bool(offered))


def _set_sessions(context: SSL.Context, security: SecurityParameters) -> None:
    """A trust verification callback must see every client, so that nothing is resumed where there is one."""
    context.set_session_id(b"neatpy")
    if security.max_cached_sessions == 0 or security.trust_verification_callback is not None:
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
    if security.cached_session_lifetime_seconds is not None:
        context.set_timeout(max(1, int(security.cached_session_lifetime_seconds)))


def _der(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    result: bytes = certificate.public_bytes(Encoding.DER)
    return result


def _wrong(text: str, error: Exception | None = None) -> EstablishmentError:
    detail = f": {str(error) or type(error).__name__}" if error is not None else ""
    return EstablishmentError(text + detail, Reason.INVALID_CONFIGURATION)


_MESSAGES = {
    2: "unable to get issuer certificate",
    7: "certificate signature failure",
    9: "certificate is not yet valid",
    10: "certificate has expired",
    18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
    22: "certificate chain too long",
    23: "certificate revoked",
    24: "invalid CA certificate",
    26: "unsuitable certificate purpose",
    66: "certificate key too weak",
}
