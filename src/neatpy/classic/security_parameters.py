"""Security as a program of 2020 gets it: off, on without verification, or as today's parameters say."""

from __future__ import annotations

from neatpy import Certificate, SecurityParameters

__all__ = ["Certificate", "SecurityParameters"]


def for_connections(security_needed: bool | SecurityParameters) -> SecurityParameters:
    """For ``initiate``. True encrypts and trusts whatever certificate the peer presents, as 1.0 did."""
    if isinstance(security_needed, SecurityParameters):
        return security_needed
    if not security_needed:
        return SecurityParameters.disabled()
    return SecurityParameters(trust_verification_callback=lambda _: True)


def for_listeners(security_needed: bool | SecurityParameters) -> SecurityParameters:
    """For ``listen``. True makes a certificate that nobody can verify, which needs the package cryptography."""
    if isinstance(security_needed, SecurityParameters):
        return security_needed
    if not security_needed:
        return SecurityParameters.disabled()
    return SecurityParameters(server_certificate=Certificate.self_signed("localhost"))
