"""Whether the peer's certificates are to be trusted. The engine proves only that the peer has the key.

This room knows certificates, names and security parameters; no engine and no network.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from cryptography import x509
from OpenSSL import crypto

from neatpy.errors import EstablishmentError, Reason
from neatpy.security import SecurityMode
from neatpy.stacks._tls import plan
from neatpy.stacks._tls.engine import HOSTNAME_MISMATCH, TlsFailure, distrust
from neatpy.stacks._tls.names import wrong_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neatpy.security import SecurityParameters

_WRONG_PURPOSE = 26
_SERVER, _CLIENT = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
_ANY = x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


class Trust:
    """The roots that one set of security parameters trusts, and the verdict on a chain."""

    __slots__ = ("_listening", "_security", "_store")

    def __init__(self, security: SecurityParameters, listening: bool) -> None:
        self._security = security
        self._listening = listening
        self._store: crypto.X509Store | None = None
        if self.judges:
            self._store = _store(security, listening)

    @property
    def judges(self) -> bool:
        """Whether there is anything to judge."""
        if self._security.mode is SecurityMode.OPPORTUNISTIC:
            return False
        return not self._listening or plan.asks_clients(self._security)

    @property
    def demands(self) -> bool:
        """Whether a peer that presents no certificate at all is refused, whatever a callback would say of it."""
        return self._listening and bool(self._security.trusted_certificates)

    def verdict(self, chain: Sequence[bytes], server_name: str | None) -> TlsFailure | None:
        """Why the peer, which presented this chain (DER), is not trusted; None if it is."""
        store = self._store
        if store is None:
            return None
        whose = None if self._listening else server_name
        if not chain:
            return TlsFailure(f"{'the client' if self._listening else 'the server'} presented no certificate")
        leaf, *others = (crypto.load_certificate(crypto.FILETYPE_ASN1, der) for der in chain)
        try:
            crypto.X509StoreContext(store, leaf, others).verify_certificate()
        except crypto.X509StoreContextError as error:
            code, _, message = error.errors if len(error.errors) == 3 else (0, 0, str(error))
            return distrust(whose, code, message)
        if not self._is_for_this(chain[0]):
            return distrust(whose, _WRONG_PURPOSE, "unsuitable certificate purpose")
        if whose is None:
            return None
        text = wrong_name(chain[0], whose)
        if text is not None:
            return distrust(whose, HOSTNAME_MISMATCH, text)
        pin = plan.wrong_pin(self._security, tuple(chain))
        return None if pin is None else TlsFailure(pin)

    def _is_for_this(self, leaf: bytes) -> bool:
        """Whether the certificate's extended key usage, where it has one, allows to be used as what it is used."""
        extensions = x509.load_der_x509_certificate(leaf).extensions
        try:
            usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return True
        return (_CLIENT if self._listening else _SERVER) in usages or _ANY in usages


def _store(security: SecurityParameters, listening: bool) -> crypto.X509Store:
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    if not listening:
        _load_system_roots(store)
    try:
        for der in plan.anchors(security, listening):
            store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
    except (crypto.Error, ValueError) as error:
        text = f"trusted_certificates or pinned_server_certificate cannot be used: {error}"
        raise EstablishmentError(text, Reason.INVALID_CONFIGURATION) from error
    return store


def _load_system_roots(store: crypto.X509Store) -> None:
    """The same roots that ``ssl`` takes."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None or paths.capath is not None:
        store.load_locations(paths.cafile, paths.capath)
        return
    system = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    system.load_default_certs()
    for der in system.get_ca_certs(binary_form=True):
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
