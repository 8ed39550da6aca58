"""Certificates that tests prove identities with, in memory and as files for programs that read files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neatpy import Certificate, SecurityParameters
from pki import Authority

NAME = "peer.example"
"""The name of every server here; endpoints dial loopback and verify this."""


class Identities:
    """A trusted authority with a server and a client, and another authority that nobody trusts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        authority, stranger = Authority(), Authority("somebody else's root")
        self.root = authority.root
        self.server = authority.issue(NAME, "127.0.0.1", "::1")
        self.rsa_server = authority.issue(NAME, "127.0.0.1", "::1", rsa_key=True)
        self.other_name = authority.issue("other.example")
        self.expired = authority.issue(NAME, expired=True)
        self.not_yet_valid = authority.issue(NAME, not_yet=True)
        self.client = authority.issue("client.example", common_name="the client")
        self.unknown_server = stranger.issue(NAME, "127.0.0.1")
        self.unknown_client = stranger.issue("client.example")
        self.self_signed = Certificate.self_signed(NAME)

    def file(self, name: str) -> str:
        """The path of a file with the chain and then the key of the identity with this name."""
        path = self._directory / f"{name}.pem"
        if not path.exists():
            certificate: Certificate = getattr(self, name)
            path.write_bytes(certificate.certificate_chain + certificate.private_key)
        return str(path)

    def trusting(self, **parameters: Any) -> SecurityParameters:
        """A client's parameters that trust the authority."""
        return SecurityParameters(trusted_certificates=self.root, **parameters)

    def serving(self, **parameters: Any) -> SecurityParameters:
        """A Listener's parameters with the server's certificate."""
        return SecurityParameters(**{"server_certificate": self.server, **parameters})
