"""Who takes part in the TLS tests: certificates, a client's and a Listener's security, and both TLS engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from neatpy.security import SecurityParameters, TrustVerification
from pki import Authority

AUTHORITY = Authority()
IDENTITY = AUTHORITY.issue("localhost", "127.0.0.1")
CLIENT = AUTHORITY.issue("client.example")
VERSIONS = ["tls_1_2", "tls_1_3"]
BULK = bytes(range(256)) * 12345


def trusting(**parameters: Any) -> SecurityParameters:
    """A client's parameters that trust the test's authority."""
    return SecurityParameters(trusted_certificates=AUTHORITY.root, **parameters)


def offering(**parameters: Any) -> SecurityParameters:
    """A Listener's parameters with the test's certificate."""
    return SecurityParameters(**{"server_certificate": IDENTITY, **parameters})


def always(trust: TrustVerification) -> bool:
    """Trust the peer; it also makes pyOpenSSL the engine."""
    return True


ENGINES: list[Callable[..., SecurityParameters]] = [
    trusting,
    lambda **parameters: trusting(trust_verification_callback=always, **parameters),
]
engines = pytest.mark.parametrize("client", ENGINES, ids=["ssl", "pyopenssl"])
versions = pytest.mark.parametrize("version", VERSIONS)
