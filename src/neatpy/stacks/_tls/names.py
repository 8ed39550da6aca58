"""Whether a certificate is for a name or an address (RFC 9525), for a library that does not check it itself.

Only subject alternative names count, never the common name. This room knows certificates and no connection.
"""

from __future__ import annotations

import socket


def wrong_name(certificate: bytes, server_name: str) -> str | None:
    """Why this certificate (DER) is not for the server, or None if it is."""
    from cryptography import x509

    try:
        extension = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return f"it has no names at all and so is not valid for '{server_name}'"
    address = packed_address(server_name)
    if address is not None:
        addresses = extension.value.get_values_for_type(x509.IPAddress)
        if any(getattr(found, "packed", None) == address for found in addresses):
            return None
    elif any(matches(pattern, server_name) for pattern in extension.value.get_values_for_type(x509.DNSName)):
        return None
    return f"it is not valid for '{server_name}'"


def matches(pattern: str, name: str) -> bool:
    """Whether a DNS name of a certificate covers a host name. A wildcard is all of the first label and nothing else."""
    pattern, name = pattern.lower().rstrip("."), ascii_name(name).lower()
    if not pattern.startswith("*."):
        return pattern == name
    rest = pattern[2:]
    first, dot, parent = name.partition(".")
    return bool(first and dot) and "." in rest and "*" not in rest and parent == rest


def ascii_name(name: str) -> str:
    """A host name as it stands in certificates and in SNI: without a final dot, IDNA where it is not ASCII."""
    name = name.rstrip(".")
    return name if name.isascii() else name.encode("idna").decode("ascii")


def packed_address(name: str) -> bytes | None:
    """An IP address literal as bytes; None if it is a name."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in name else socket.AF_INET, name.partition("%")[0])
    except OSError:
        return None
