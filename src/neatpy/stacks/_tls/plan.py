"""Which library can honour which security parameters, and which cannot at all.

The standard library's ``ssl`` is used wherever it can; pyOpenSSL where a parameter needs it. This room reads security
parameters and imports no TLS library before it has to.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from neatpy.security import (
    CIPHERSUITES,
    SecurityMode,
    SecurityParameters,
    SecurityProtocol,
    is_tls_1_3_ciphersuite,
)

if TYPE_CHECKING:
    from neatpy.certificate import Certificate

TLS_1_2, TLS_1_3 = SecurityProtocol.TLS_1_2, SecurityProtocol.TLS_1_3
_EXTRA = "pyOpenSSL, which is not installed: install NEATPy with its extra tls"


def obstacle(security: SecurityParameters, listening: bool) -> str | None:
    """Why no library here can honour these parameters in TLS, or None."""
    import ssl

    if not versions(security):
        return "allowed_security_protocols leaves neither tls_1_2 nor tls_1_3"
    if security.signature_algorithm:
        return "neither Python's ssl nor pyOpenSSL can set signature_algorithm"
    if security.identity_challenge_callback is not None:
        return "neither Python's ssl nor pyOpenSSL has an identity_challenge_callback"
    if len(security.supported_group) > 1:
        return "Python's ssl can set one supported_group, not several"
    if security.pre_shared_key is not None and not hasattr(ssl.SSLContext, "set_psk_client_callback"):
        return "pre_shared_key needs the ssl of Python 3.13"
    why = needs_pyopenssl(security, listening)
    if why is not None:
        for name in ("supported_group", "pre_shared_key"):
            if security.get(name):
                return f"{why} needs pyOpenSSL, and {name} needs Python's ssl; they cannot be combined"
        if find_spec("OpenSSL") is None:
            return f"{why} needs {_EXTRA}"
    if makes_own_certificate(security, listening) and find_spec("cryptography") is None:
        return "a certificate must be made, which needs cryptography: install NEATPy with its extra tls"
    return None


def dtls_obstacle(security: SecurityParameters, listening: bool) -> str | None:
    """Why pyOpenSSL cannot honour these parameters in DTLS 1.2, or None."""
    if not security.allows(SecurityProtocol.DTLS_1_2):
        allowed = security.allowed_security_protocols
        name = (
            "ciphersuite"
            if not allowed or SecurityProtocol.DTLS_1_2 in allowed
            else "allowed_security_protocols"
        )
        return f"{name} leaves no dtls_1_2"
    for name in ("signature_algorithm", "supported_group", "pre_shared_key", "identity_challenge_callback"):
        if security.get(name):
            return f"pyOpenSSL has no {name}"
    return None


def needs_pyopenssl(security: SecurityParameters, listening: bool) -> str | None:
    """The parameter that Python's ssl cannot honour and pyOpenSSL can, or None."""
    if any(map(is_tls_1_3_ciphersuite, security.ciphersuite)) and TLS_1_3 in versions(security):
        return "a ciphersuite of TLS 1.3"
    if security.trust_verification_callback is not None:
        return "trust_verification_callback"
    if listening and security.cached_session_lifetime_seconds is not None:
        return "cached_session_lifetime_seconds of a Listener"
    return None


def misconfiguration(security: SecurityParameters, listening: bool) -> str | None:
    """What is missing from these parameters, whatever the library; None if nothing is."""
    if not listening or security.mode is not SecurityMode.SECURE:
        return None
    if not security.server_certificate and security.pre_shared_key is None:
        return "a secure Listener needs a server_certificate or a pre_shared_key"
    kinds = [kind for kind in map(_kind_of_key, security.server_certificate) if kind is not None]
    if len(set(kinds)) < len(kinds):
        return "of several server_certificates each needs another kind of key (RSA, EC, Ed25519)"
    return None


def _kind_of_key(certificate: Certificate) -> str | None:
    """OpenSSL keeps one certificate for each kind of key, and the last one of a kind would replace the others."""
    if find_spec("cryptography") is None:
        return None
    from cryptography import x509

    return type(x509.load_der_x509_certificate(certificate.der()[0]).public_key()).__name__


def makes_own_certificate(security: SecurityParameters, listening: bool) -> bool:
    """Whether an opportunistic Listener has to make a certificate for itself."""
    return listening and security.mode is SecurityMode.OPPORTUNISTIC and not security.server_certificate


def versions(security: SecurityParameters) -> tuple[SecurityProtocol, ...]:
    """The versions of TLS that the parameters leave, oldest first."""
    return tuple(protocol for protocol in (TLS_1_2, TLS_1_3) if security.allows(protocol))


def old_ciphersuites(security: SecurityParameters) -> list[str]:
    """OpenSSL's names of the ciphersuites for TLS 1.2 that were asked for."""
    return [CIPHERSUITES[name] for name in security.ciphersuite if not is_tls_1_3_ciphersuite(name)]


def iana_name(ciphersuite: str | None) -> str | None:
    """IANA's name of a ciphersuite that OpenSSL names in its own way; what is not in the table stays as it is."""
    return next((name for name, own in CIPHERSUITES.items() if own == ciphersuite), ciphersuite)


def new_ciphersuites(security: SecurityParameters) -> list[str]:
    """The names of the ciphersuites for TLS 1.3 that were asked for."""
    return [name for name in security.ciphersuite if is_tls_1_3_ciphersuite(name)]


def own_certificates(security: SecurityParameters, listening: bool) -> tuple[Certificate, ...]:
    """What to prove the own identity with."""
    if makes_own_certificate(security, listening):
        from neatpy.certificate import Certificate

        return (Certificate.self_signed(),)
    return security.server_certificate if listening else security.client_certificate


def asks_clients(security: SecurityParameters) -> bool:
    """Whether a Listener with these parameters requires certificates of its clients."""
    return bool(security.trusted_certificates) or security.trust_verification_callback is not None


def anchors(security: SecurityParameters, listening: bool) -> list[bytes]:
    """The certificates (DER) that are trusted beside the system's: the given roots, and what is pinned."""
    result = [der for certificate in security.trusted_certificates for der in certificate.der()]
    if not listening:
        result.extend(certificate.der()[0] for certificate in security.pinned_server_certificate)
    return result


def wrong_pin(security: SecurityParameters, chain: tuple[bytes, ...]) -> str | None:
    """Why the pins refuse this certificate of a server, or None."""
    pins = security.pinned_server_certificate
    if not pins or (chain and any(chain[0] == pin.der()[0] for pin in pins)):
        return None
    import hashlib

    presented = hashlib.sha256(chain[0]).hexdigest() if chain else "none"
    return f"the server's certificate is not the pinned one: it presented SHA-256 {presented}"
