"""Security parameters (RFC 9622 section 6.3): what a program asks of transport security, as plain data.

Everything is checked when it is set; each stack then says whether its library can honour it, and is ruled out with
the reason where it cannot. What parameters can hold is defined in :mod:`neatpy.security_values`, found here as well,
and loaded when a parameter is set. This room knows no TLS library and no stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from neatpy.certificate import Certificate
    from neatpy.security_values import CIPHERSUITES as CIPHERSUITES
    from neatpy.security_values import SIGNATURE_ALGORITHMS as SIGNATURE_ALGORITHMS
    from neatpy.security_values import SUPPORTED_GROUPS as SUPPORTED_GROUPS
    from neatpy.security_values import IdentityCallback as IdentityCallback
    from neatpy.security_values import PreSharedKey as PreSharedKey
    from neatpy.security_values import SecurityProtocol as SecurityProtocol
    from neatpy.security_values import TrustCallback as TrustCallback
    from neatpy.security_values import TrustVerification as TrustVerification
    from neatpy.security_values import is_tls_1_3_ciphersuite as is_tls_1_3_ciphersuite

T = TypeVar("T")


class SecurityMode(Enum):
    """How much security a Preconnection insists on."""

    SECURE = "secure"
    """Only stacks with verified security; nothing ever falls back."""
    OPPORTUNISTIC = "opportunistic"
    """Unauthenticated security where the peer has it, none where it has not (RFC 9622 section 6.3)."""
    DISABLED = "disabled"
    """No transport security at all."""


class _Parameter(Generic[T]):
    """One parameter: what stands for "not set", and what it means. Reads as T, takes whatever its check takes."""

    __slots__ = ("default", "doc", "name")

    def __init__(self, default: T, doc: str) -> None:
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
        (),
        "The only protocols and versions that may be used (section 6.3.1); empty: the best that there are.",
    )
    server_certificate: _Parameter[tuple[Certificate, ...]] = _Parameter(
        (),
        "What a Listener proves its identity with (section 6.3.2); several for peers that want another kind of key.",
    )
    client_certificate: _Parameter[tuple[Certificate, ...]] = _Parameter(
        (),
        "What an initiated Connection proves its identity with, when asked (section 6.3.2).",
    )
    pinned_server_certificate: _Parameter[tuple[Certificate, ...]] = _Parameter(
        (),
        "The certificates of which the server must present one (section 6.3.3). Only the first of each chain, the "
        "server's own, is compared. A pin adds to verification: name and dates still count; but a pinned certificate "
        "needs no other issuer, so that a self-signed one can be pinned. Takes Certificate, PEM or paths.",
    )
    alpn: _Parameter[tuple[str, ...]] = _Parameter(
        (),
        "The application protocols to negotiate, best first (section 6.3.4, RFC 7301). Once set, the peer must have "
        "one of them: whoever has none in common, or offers or chooses none at all, is refused.",
    )
    supported_group: _Parameter[tuple[str, ...]] = _Parameter(
        (),
        "The only groups for the key exchange (section 6.3.5): names of SUPPORTED_GROUPS.",
    )
    ciphersuite: _Parameter[tuple[str, ...]] = _Parameter(
        (),
        "The only ciphersuites (section 6.3.5): names of CIPHERSUITES. A protocol version that has none of them is "
        "not used at all.",
    )
    signature_algorithm: _Parameter[tuple[str, ...]] = _Parameter(
        (),
        "The only signature algorithms (section 6.3.5): names of SIGNATURE_ALGORITHMS.",
    )
    max_cached_sessions: _Parameter[int | None] = _Parameter(
        None, "How many sessions are kept for resumption (section 6.3.6); 0: none, None: a few."
    )
    cached_session_lifetime_seconds: _Parameter[float | None] = _Parameter(
        None, "After how many seconds a kept session is no longer resumed (section 6.3.6)."
    )
    pre_shared_key: _Parameter[PreSharedKey | None] = _Parameter(
        None, "A pair (key, identity) agreed outside the protocol (section 6.3.7)."
    )
    trust_verification_callback: _Parameter[TrustCallback | None] = _Parameter(
        None,
        "``callback(trust: TrustVerification)``, plain or async, decides whether the peer is trusted (section 6.3.8). "
        "Its answer replaces the system's verdict, which it is told. It holds the handshake; what it raises refuses "
        "the peer. On a Listener it asks clients for certificates.",
    )
    identity_challenge_callback: _Parameter[IdentityCallback | None] = _Parameter(
        None, "Called when a private key operation is needed (section 6.3.8)."
    )
    trusted_certificates: _Parameter[tuple[Certificate, ...]] = _Parameter(
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
        from neatpy.security_values import SecurityProtocol, is_tls_1_3_ciphersuite

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
        from neatpy.security_values import CHECKS

        before = self._values
        self._values = dict(before)
        try:
            for given, value in parameters.items():
                parameter = _find(given)
                if value is None:
                    self._values.pop(parameter.name, None)
                else:
                    self._values[parameter.name] = CHECKS[parameter.name](parameter.name, value)
            self._refuse_contradictions()
        except BaseException:
            self._values = before
            raise

    def _refuse_contradictions(self) -> None:
        from neatpy.security_values import SecurityProtocol

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


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # the import system asks for __path__
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from neatpy import security_values

    return getattr(security_values, name)
