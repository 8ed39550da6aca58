"""Security as a program of 2020 gets it: off, on without verification, or as today's parameters say."""

from neatpy import Certificate, SecurityParameters

__all__ = ["Certificate", "SecurityParameters"]


def security(needed: bool | SecurityParameters, listening: bool) -> SecurityParameters:
    """True encrypts and trusts whatever certificate the peer presents, as 1.0 did; a Listener makes a certificate,
    which needs the package cryptography."""
    if isinstance(needed, SecurityParameters):
        return needed
    if not needed:
        return SecurityParameters.disabled()
    if listening:
        return SecurityParameters(server_certificate=Certificate.self_signed("localhost"))
    return SecurityParameters(trust_verification_callback=lambda _: True)
