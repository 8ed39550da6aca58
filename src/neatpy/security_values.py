"""What security parameters can hold: protocols, names, keys and callbacks, and how each value is checked.

Loaded when a parameter is set. This room knows the names of protocols, ciphersuites, groups and signature algorithms,
but no TLS library and no stack.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from neatpy.certificate import Certificate

T = TypeVar("T")


class SecurityProtocol(Enum):
    """The security protocols that ``allowed_security_protocols`` can name (RFC 9622 section 6.3.1)."""

    TLS_1_2 = "tls_1_2"
    TLS_1_3 = "tls_1_3"
    DTLS_1_2 = "dtls_1_2"
    QUIC = "quic"
    """QUIC's own security (RFC 9001). It takes its handshake from TLS 1.3 but is a protocol of its own here."""


class PreSharedKey(NamedTuple):
    """A key agreed outside the protocol and the identity that tells the peer which one it is."""

    key: bytes
    identity: bytes

    def __repr__(self) -> str:
        return f"PreSharedKey(key=<hidden>, identity={self.identity!r})"


class TrustVerification:
    """What a trust verification callback decides on.

    ``server_name`` is the name (or address) that was dialled, None on a Listener. ``certificate_chain`` is what the
    peer presented, as DER, its own certificate first; empty if it presented none. ``verified`` is the system's own
    verdict, names and pins included, and ``error`` says what it found wrong.
    """

    __slots__ = ("certificate_chain", "error", "server_name")

    server_name: str | None
    certificate_chain: tuple[bytes, ...]
    error: str | None

    def __init__(
        self, server_name: str | None, certificate_chain: tuple[bytes, ...], error: str | None = None
    ) -> None:
        self.server_name = server_name
        self.certificate_chain = certificate_chain
        self.error = error

    @property
    def verified(self) -> bool:
        """Whether the system itself would trust the peer."""
        return self.error is None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the peer's own certificate in lower-case hexadecimal; empty without a certificate."""
        import hashlib

        return hashlib.sha256(self.certificate_chain[0]).hexdigest() if self.certificate_chain else ""

    def __repr__(self) -> str:
        return (
            f"TrustVerification({self.server_name!r}, {self.fingerprint or 'no certificate'}, {self.error!r})"
        )


TrustCallback = Callable[[TrustVerification], bool | Awaitable[bool]]
IdentityCallback = Callable[..., Any]

CIPHERSUITES: Mapping[str, str] = MappingProxyType(
    {
        "TLS_AES_128_GCM_SHA256": "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384": "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256": "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_AES_128_CCM_SHA256": "TLS_AES_128_CCM_SHA256",
        "TLS_AES_128_CCM_8_SHA256": "TLS_AES_128_CCM_8_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256": "DHE-RSA-AES128-GCM-SHA256",
        "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384": "DHE-RSA-AES256-GCM-SHA384",
        "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "DHE-RSA-CHACHA20-POLY1305",
        "TLS_PSK_WITH_AES_128_GCM_SHA256": "PSK-AES128-GCM-SHA256",
        "TLS_PSK_WITH_AES_256_GCM_SHA384": "PSK-AES256-GCM-SHA384",
        "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256": "PSK-CHACHA20-POLY1305",
        "TLS_DHE_PSK_WITH_AES_128_GCM_SHA256": "DHE-PSK-AES128-GCM-SHA256",
        "TLS_DHE_PSK_WITH_AES_256_GCM_SHA384": "DHE-PSK-AES256-GCM-SHA384",
        "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-PSK-CHACHA20-POLY1305",
    }
)
"""The ciphersuites that ``ciphersuite`` can name: IANA's name -> OpenSSL's. Either is accepted."""

SUPPORTED_GROUPS: tuple[str, ...] = (
    "x25519",
    "secp256r1",
    "secp384r1",
    "secp521r1",
    "x448",
    "brainpoolP256r1tls13",
    "brainpoolP384r1tls13",
    "brainpoolP512r1tls13",
    "ffdhe2048",
    "ffdhe3072",
    "ffdhe4096",
    "ffdhe6144",
    "ffdhe8192",
    "X25519MLKEM768",
    "SecP256r1MLKEM768",
    "SecP384r1MLKEM1024",
)
"""The groups that ``supported_group`` can name (IANA's TLS Supported Groups)."""

SIGNATURE_ALGORITHMS: tuple[str, ...] = (
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "ecdsa_secp521r1_sha512",
    "ed25519",
    "ed448",
    "rsa_pss_rsae_sha256",
    "rsa_pss_rsae_sha384",
    "rsa_pss_rsae_sha512",
    "rsa_pss_pss_sha256",
    "rsa_pss_pss_sha384",
    "rsa_pss_pss_sha512",
    "rsa_pkcs1_sha256",
    "rsa_pkcs1_sha384",
    "rsa_pkcs1_sha512",
    "mldsa44",
    "mldsa65",
    "mldsa87",
)
"""The algorithms that ``signature_algorithm`` can name (IANA's TLS SignatureScheme)."""


def is_tls_1_3_ciphersuite(name: str) -> bool:
    """Whether a ciphersuite (IANA's name) belongs to TLS 1.3 and QUIC; the others belong to TLS and DTLS 1.2."""
    return "_WITH_" not in name


# The checks: each takes the parameter's name and a value, and gives the value as it is kept.


def _items(name: str, value: object, *, empty: bool = False) -> list[Any]:
    """One value or several, as a list. An empty restriction would forbid everything, which nobody means."""
    if isinstance(value, (str, bytes, bytearray, os.PathLike, Enum)) or not isinstance(value, Iterable):
        return [value]
    items = list(value)
    if not items and not empty:
        raise ValueError(f"{name} may not be empty; leave it unset (or set None) for the system's choice")
    return items


def _choice(name: str, allowed: Mapping[str, T]) -> Callable[[object], T]:
    def choose(item: object) -> T:
        if not isinstance(item, str):
            raise TypeError(f"{name} takes names (str), not {type(item).__name__}")
        try:
            return allowed[item.strip().casefold()]
        except KeyError:
            listed = ", ".join(
                str(getattr(value, "value", value)) for value in dict.fromkeys(allowed.values())
            )
            raise ValueError(f"{name} does not know {item!r}; allowed: {listed}") from None

    return choose


def _names(
    allowed: Iterable[str], aliases: Mapping[str, str] | None = None
) -> Callable[[str, Any], tuple[str, ...]]:
    table = {name.casefold(): name for name in allowed}
    for name, alias in (aliases or {}).items():
        table.setdefault(alias.casefold(), name)

    def check(name: str, value: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(_choice(name, table), _items(name, value))))

    return check


def _protocols(name: str, value: Any) -> tuple[SecurityProtocol, ...]:
    choose = _choice(name, {protocol.value: protocol for protocol in SecurityProtocol})
    items = _items(name, value)
    return tuple(
        dict.fromkeys(
            item if isinstance(item, SecurityProtocol) else choose(_underscored(item)) for item in items
        )
    )


def _underscored(item: object) -> object:
    """``TLSv1.3``, ``tls-1.3`` and ``TLS 1.3`` as ``tls_1_3``."""
    if not isinstance(item, str):
        return item
    name = item.strip().casefold().translate({ord(sign): "_" for sign in "-. "})
    return name.replace("lsv", "ls_")


def _own_certificates(name: str, value: Any) -> tuple[Certificate, ...]:
    from neatpy.certificate import Certificate

    certificates = _items(name, value, empty=True)
    for certificate in certificates:
        if not isinstance(certificate, Certificate):
            raise TypeError(
                f"{name} takes Certificate objects, as Certificate.from_files(certificate_chain, private_key) makes "
                f"them, not {type(certificate).__name__}"
            )
        if not certificate.private_key:
            raise ValueError(
                f"{name} needs a Certificate with its private key; this one has only the certificate"
            )
    return tuple(certificates)


def _peer_certificates(name: str, value: Any) -> tuple[Certificate, ...]:
    from neatpy.certificate import Certificate

    result = []
    for item in _items(name, value, empty=True):
        if isinstance(item, Certificate):
            result.append(item.without_private_key())
        elif isinstance(item, (str, bytes, bytearray, os.PathLike)):
            result.append(Certificate.read(item))
        else:
            raise TypeError(f"{name} takes Certificate, PEM or a path, not {type(item).__name__}")
    return tuple(result)


def _alpn(name: str, value: Any) -> tuple[str, ...]:
    protocols = _items(name, value)
    for protocol in protocols:
        if not isinstance(protocol, str):
            raise TypeError(f"{name} takes protocol names as str, not {type(protocol).__name__}")
        try:
            size = len(protocol.encode("ascii"))
        except UnicodeEncodeError:
            raise ValueError(f"{name} takes ASCII names, not {protocol!r}") from None
        if not 1 <= size <= 255:
            raise ValueError(f"a name in {name} has 1 to 255 bytes (RFC 7301), not {size}")
    return tuple(dict.fromkeys(protocols))


def _count(name: str, value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a number of sessions (int), not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} is 0 or more, not {value}")
    return value


def _lifetime(name: str, value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is in seconds (int or float), not {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name} is more than 0 seconds, not {value}")
    return value


def _pre_shared_key(name: str, value: Any) -> PreSharedKey | None:
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"{name} is a pair (key, identity), not {type(value).__name__}")
    key, identity = value
    if not isinstance(key, (bytes, bytearray)):
        raise TypeError(f"the key of {name} is bytes, not {type(key).__name__}")
    if isinstance(identity, str):
        identity = identity.encode()
    if not isinstance(identity, (bytes, bytearray)):
        raise TypeError(f"the identity of {name} is str or bytes, not {type(identity).__name__}")
    if not key:
        raise ValueError(f"the key of {name} is empty")
    if not identity:
        raise ValueError(f"the identity of {name} is empty")
    return PreSharedKey(bytes(key), bytes(identity))


def _callback(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"{name} is a function, plain or async, not {type(value).__name__}")
    return value


CHECKS: Mapping[str, Callable[[str, Any], object]] = MappingProxyType(
    {
        "allowed_security_protocols": _protocols,
        "server_certificate": _own_certificates,
        "client_certificate": _own_certificates,
        "pinned_server_certificate": _peer_certificates,
        "alpn": _alpn,
        "supported_group": _names(SUPPORTED_GROUPS, {"secp256r1": "prime256v1"}),
        "ciphersuite": _names(CIPHERSUITES, CIPHERSUITES),
        "signature_algorithm": _names(SIGNATURE_ALGORITHMS),
        "max_cached_sessions": _count,
        "cached_session_lifetime_seconds": _lifetime,
        "pre_shared_key": _pre_shared_key,
        "trust_verification_callback": _callback,
        "identity_challenge_callback": _callback,
        "trusted_certificates": _peer_certificates,
    }
)
"""How a value of each parameter is checked: from the parameter's name and the value to the value as it is kept."""
