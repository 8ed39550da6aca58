"""Security parameters (RFC 9622 section 6.3): what a program asks of transport security, as plain data.

Everything is checked when it is set; each stack then says whether its library can honour it, and is ruled out with
the reason where it cannot. This room knows the names of protocols, ciphersuites, groups and signature algorithms, but
no TLS library and no stack.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

if TYPE_CHECKING:
    from neatpy.certificate import Certificate

T = TypeVar("T")


class SecurityMode(Enum):
    """How much security a Preconnection insists on."""

    SECURE = "secure"
    """Only stacks with verified security; nothing ever falls back."""
    OPPORTUNISTIC = "opportunistic"
    """Unauthenticated security where the peer has it, none where it has not (RFC 9622 section 6.3)."""
    DISABLED = "disabled"
    """No transport security at all."""


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


class _Parameter(Generic[T]):
    """One parameter: how a value is checked, what stands for "not set". Reads as T, takes whatever check takes."""

    __slots__ = ("check", "default", "doc", "name")

    def __init__(self, check: Callable[[str, Any], T], default: T, doc: str) -> None:
        self.check = check
        self.default = default
        self.doc = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> _Parameter[T]: ...
    @overload
    def __get__(self, instance: SecurityParameters, owner: type) -> T: ...
    def __get__(self, instance: SecurityParameters | None, owner: type) -> T | _Parameter[T]:
        if instance is None:
            return self
        value: T = instance._values.get(self.name, self.default)
        return value

    def __set__(self, instance: SecurityParameters, value: Any) -> None:
        instance.set(self.name, value)


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


class SecurityParameters:
    """What a Preconnection asks of transport security (RFC 9622 section 6.3). All parameters are optional.

    Without any, only verified security is used: the system's trust store, verified host names, the best protocols
    that the libraries have. Each parameter is an attribute, a keyword of the constructor and a name for :meth:`set`;
    None is "not set". A wrong value or a contradiction raises TypeError or ValueError at once and changes nothing.
    """

    __slots__ = ("_mode", "_values")

    _mode: SecurityMode
    _values: dict[str, Any]

    allowed_security_protocols: _Parameter[tuple[SecurityProtocol, ...]] = _Parameter(
        _protocols,
        (),
        "The only protocols and versions that may be used (section 6.3.1); empty: the best that there are.",
    )
    server_certificate: _Parameter[tuple[Certificate, ...]] = _Parameter(
        _own_certificates,
        (),
        "What a Listener proves its identity with (section 6.3.2); several for peers that want another kind of key.",
    )
    client_certificate: _Parameter[tuple[Certificate, ...]] = _Parameter(
        _own_certificates,
        (),
        "What an initiated Connection proves its identity with, when asked (section 6.3.2).",
    )
    pinned_server_certificate: _Parameter[tuple[Certificate, ...]] = _Parameter(
        _peer_certificates,
        (),
        "The certificates of which the server must present one (section 6.3.3). Only the first of each chain, the "
        "server's own, is compared. A pin adds to verification: name and dates still count; but a pinned certificate "
        "needs no other issuer, so that a self-signed one can be pinned. Takes Certificate, PEM or paths.",
    )
    alpn: _Parameter[tuple[str, ...]] = _Parameter(
        _alpn,
        (),
        "The application protocols to negotiate, best first (section 6.3.4, RFC 7301). Once set, the peer must have "
        "one of them: whoever has none in common, or offers or chooses none at all, is refused.",
    )
    supported_group: _Parameter[tuple[str, ...]] = _Parameter(
        _names(SUPPORTED_GROUPS, {"secp256r1": "prime256v1"}),
        (),
        "The only groups for the key exchange (section 6.3.5): names of SUPPORTED_GROUPS.",
    )
    ciphersuite: _Parameter[tuple[str, ...]] = _Parameter(
        _names(CIPHERSUITES, CIPHERSUITES),
        (),
        "The only ciphersuites (section 6.3.5): names of CIPHERSUITES. A protocol version that has none of them is "
        "not used at all.",
    )
    signature_algorithm: _Parameter[tuple[str, ...]] = _Parameter(
        _names(SIGNATURE_ALGORITHMS),
        (),
        "The only signature algorithms (section 6.3.5): names of SIGNATURE_ALGORITHMS.",
    )
    max_cached_sessions: _Parameter[int | None] = _Parameter(
        _count, None, "How many sessions are kept for resumption (section 6.3.6); 0: none, None: a few."
    )
    cached_session_lifetime_seconds: _Parameter[float | None] = _Parameter(
        _lifetime, None, "After how many seconds a kept session is no longer resumed (section 6.3.6)."
    )
    pre_shared_key: _Parameter[PreSharedKey | None] = _Parameter(
        _pre_shared_key, None, "A pair (key, identity) agreed outside the protocol (section 6.3.7)."
    )
    trust_verification_callback: _Parameter[TrustCallback | None] = _Parameter(
        _callback,
        None,
        "``callback(trust: TrustVerification)``, plain or async, decides whether the peer is trusted (section 6.3.8). "
        "Its answer replaces the system's verdict, which it is told. It holds the handshake; what it raises refuses "
        "the peer. On a Listener it asks clients for certificates.",
    )
    identity_challenge_callback: _Parameter[IdentityCallback | None] = _Parameter(
        _callback, None, "Called when a private key operation is needed (section 6.3.8)."
    )
    trusted_certificates: _Parameter[tuple[Certificate, ...]] = _Parameter(
        _peer_certificates,
        (),
        "Roots that are trusted beside the system's: Certificate, PEM or a path, which is read at once. On a Listener "
        "it requires clients to present a certificate that one of these roots (only these) has issued.",
    )

    def __init__(self, **parameters: Any) -> None:
        self._mode = SecurityMode.SECURE
        self._values = {}
        self._set_all(parameters)

    @classmethod
    def disabled(cls) -> SecurityParameters:
        """No transport security: data is sent in the clear, to whoever answers. Takes no parameters."""
        result = cls()
        result._mode = SecurityMode.DISABLED
        return result

    @classmethod
    def opportunistic(cls, **parameters: Any) -> SecurityParameters:
        """Encryption where the peer has it, without verifying who it is; otherwise none (RFC 9622 section 6.3).

        Every handshake that fails counts as a peer without encryption, also one that fails for want of a common
        ``alpn``: then data is sent in the clear, and nothing is negotiated.

        A Listener makes a certificate for itself unless one is given."""
        result = cls()
        result._mode = SecurityMode.OPPORTUNISTIC
        result._set_all(parameters)
        return result

    @property
    def mode(self) -> SecurityMode:
        """Whether security is a must (SECURE), a wish (OPPORTUNISTIC) or off (DISABLED)."""
        return self._mode

    def set(self, name: str, value: Any, *more: Any) -> SecurityParameters:
        """Set one parameter by its snake_case or RFC 9622 name, in any case; None unsets it. Returns self.

        ``set("preSharedKey", key, identity)`` takes two values, as in the RFC."""
        parameter = _find(name)
        self._set_all({parameter.name: (value, *more) if more else value})
        return self

    def get(self, name: str) -> Any:
        """One parameter by its snake_case or RFC 9622 name, in any case."""
        parameter = _find(name)
        return self._values.get(parameter.name, parameter.default)

    def explicit(self) -> Mapping[str, Any]:
        """What was set, by snake_case name."""
        return MappingProxyType(self._values)

    def snapshot(self) -> SecurityParameters:
        """An independent copy; a later change to this object does not touch it."""
        result = type(self).__new__(type(self))
        result._mode = self._mode
        result._values = dict(self._values)
        return result

    def __eq__(self, other: object) -> bool:
        """Equal are those that were set alike; certificates and callbacks count as themselves."""
        if not isinstance(other, SecurityParameters):
            return NotImplemented
        return self._mode is other._mode and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # they change

    def allows(self, protocol: SecurityProtocol) -> bool:
        """Whether ``allowed_security_protocols`` and ``ciphersuite`` leave room for this protocol."""
        allowed = self.allowed_security_protocols
        if allowed and protocol not in allowed:
            return False
        modern = protocol in (SecurityProtocol.TLS_1_3, SecurityProtocol.QUIC)
        return not self.ciphersuite or any(
            is_tls_1_3_ciphersuite(name) is modern for name in self.ciphersuite
        )

    def _set_all(self, parameters: Mapping[str, Any]) -> None:
        """All or nothing: neither a wrong value nor a contradiction leaves half of them behind."""
        if not parameters:
            return
        if self._mode is SecurityMode.DISABLED:
            raise ValueError(f"security is disabled, so {', '.join(parameters)} would have no effect")
        before = self._values
        self._values = dict(before)
        try:
            for given, value in parameters.items():
                parameter = _find(given)
                if value is None:
                    self._values.pop(parameter.name, None)
                else:
                    self._values[parameter.name] = parameter.check(parameter.name, value)
            self._refuse_contradictions()
        except BaseException:
            self._values = before
            raise

    def _refuse_contradictions(self) -> None:
        if self._mode is SecurityMode.OPPORTUNISTIC:
            for name in _AUTHENTICATING:
                if self._values.get(name):
                    raise ValueError(
                        f"{name} has no effect on opportunistic security, which does not authenticate the peer; "
                        "use SecurityParameters()"
                    )
        if not any(self.allows(protocol) for protocol in SecurityProtocol):
            raise ValueError(
                "none of the ciphersuites belongs to one of the allowed_security_protocols: "
                f"{', '.join(self.ciphersuite)} against "
                f"{', '.join(protocol.value for protocol in self.allowed_security_protocols)}"
            )

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        prefix = (
            "SecurityParameters"
            if self._mode is SecurityMode.SECURE
            else f"SecurityParameters.{self._mode.value}"
        )
        return f"{prefix}({shown})"


_AUTHENTICATING = (
    "trusted_certificates",
    "pinned_server_certificate",
    "trust_verification_callback",
    "pre_shared_key",
)
_PARAMETERS: Mapping[str, _Parameter[Any]] = MappingProxyType(
    {name: value for name, value in vars(SecurityParameters).items() if isinstance(value, _Parameter)}
)
PARAMETER_NAMES: tuple[str, ...] = tuple(_PARAMETERS)
"""The parameters in the RFC's order, by snake_case name."""
_BY_ANY_NAME: Mapping[str, _Parameter[Any]] = MappingProxyType(
    {name.replace("_", ""): parameter for name, parameter in _PARAMETERS.items()}
)


def _find(name: str) -> _Parameter[Any]:
    if not isinstance(name, str):
        raise TypeError(f"the name of a security parameter is a str, not {type(name).__name__}")
    try:
        return _BY_ANY_NAME[name.replace("_", "").casefold()]
    except KeyError:
        raise ValueError(f"no security parameter {name!r}; there are {', '.join(PARAMETER_NAMES)}") from None
