"""Which security parameters the engine can honour. This room imports no engine: every program asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neatpy.security import SecurityProtocol

if TYPE_CHECKING:
    from neatpy.security import SecurityParameters

_SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
_GROUPS = frozenset({"x25519", "secp256r1", "secp384r1", "x448"})
_SIGNATURES = frozenset(
    {
        "ecdsa_secp256r1_sha256",
        "ecdsa_secp384r1_sha384",
        "ed25519",
        "ed448",
        "rsa_pss_rsae_sha256",
        "rsa_pss_rsae_sha384",
        "rsa_pkcs1_sha256",
        "rsa_pkcs1_sha384",
    }
)


def obstacle(security: SecurityParameters, listening: bool) -> str | None:
    """Why the engine cannot honour these parameters, or None."""
    if not security.allows(SecurityProtocol.QUIC):
        allowed = security.allowed_security_protocols
        fits = not allowed or SecurityProtocol.QUIC in allowed
        return f"{'ciphersuite' if fits else 'allowed_security_protocols'} leaves no quic"
    for name in ("pre_shared_key", "identity_challenge_callback"):
        if security.get(name):
            return f"aioquic has no {name}"
    if security.ciphersuite and not suites(security):
        return f"aioquic knows of ciphersuites only {', '.join(_SUITES)}"
    for name, known in (("supported_group", _GROUPS), ("signature_algorithm", _SIGNATURES)):
        unknown = [each for each in security.get(name) if each not in known]
        if unknown:
            return f"aioquic does not know this as {name}: {', '.join(unknown)}"
    if len(security.server_certificate if listening else security.client_certificate) > 1:
        return f"aioquic shows one {'server' if listening else 'client'}_certificate, not several"
    return None


def suites(security: SecurityParameters) -> list[str]:
    """The ciphersuites asked for that there are."""
    return [name for name in security.ciphersuite if name in _SUITES]
