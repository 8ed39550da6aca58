"""Certificates with their chains and private keys (RFC 9622 section 6.3.2), as PEM.

A :class:`Certificate` is data; the libraries of the stacks take from it what they need. This room knows nothing of
stacks; ``cryptography`` is used where it is installed to check and to make certificates.
"""

from __future__ import annotations

import binascii
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

PathOrPem = str | bytes | bytearray | os.PathLike[str]

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_SELF_SIGNED_DAYS = 30


class Certificate:
    """A certificate chain, the own certificate first, and its private key where there is one.

    ``certificate_chain`` and ``private_key`` are PEM; ``private_key`` is empty where only the certificate is known
    (a root, a pin). ``password`` decrypts an encrypted private key. Two with the same contents are equal.
    """

    __slots__ = ("certificate_chain", "password", "private_key")

    certificate_chain: bytes
    private_key: bytes
    password: bytes | None

    def __init__(
        self, certificate_chain: bytes, private_key: bytes = b"", password: bytes | None = None
    ) -> None:
        """Normally made by :meth:`from_files` or :meth:`from_pem`, which check what they are given."""
        self.certificate_chain = certificate_chain
        self.private_key = private_key
        self.password = password

    @classmethod
    def from_files(
        cls,
        certificate_chain: str | os.PathLike[str],
        private_key: str | os.PathLike[str] | None = None,
        password: str | bytes | None = None,
    ) -> Certificate:
        """A certificate from PEM files; the key may stand in the first one.

        Raises ValueError, naming the file, if one cannot be read, is not PEM, or if key and certificate do not belong
        together."""
        chain = _read(certificate_chain)
        key = None if private_key is None else _read(private_key)
        where = f" ({os.fspath(certificate_chain)})"
        where_key = where if private_key is None else f" ({os.fspath(private_key)})"
        return cls._checked(chain, key, password, where, where_key)

    @classmethod
    def from_pem(
        cls,
        certificate_chain: str | bytes | bytearray,
        private_key: str | bytes | bytearray | None = None,
        password: str | bytes | None = None,
    ) -> Certificate:
        """A certificate from PEM in memory; the key may stand in the first argument. Raises ValueError as
        :meth:`from_files`."""
        key = None if private_key is None else _as_bytes(private_key)
        return cls._checked(_as_bytes(certificate_chain), key, password)

    @classmethod
    def read(cls, source: PathOrPem) -> Certificate:
        """A certificate (without its key) from PEM or from the path of a PEM file. Raises ValueError."""
        if isinstance(source, os.PathLike):
            return cls.from_files(source).without_private_key()
        pem = _as_bytes(source)
        if b"-----BEGIN" in pem:
            return cls.from_pem(pem).without_private_key()
        if isinstance(source, str):
            return cls.from_files(source).without_private_key()
        raise ValueError("not a certificate in PEM: '-----BEGIN CERTIFICATE-----' is missing")

    @classmethod
    def self_signed(cls, *names: str, days: int = _SELF_SIGNED_DAYS) -> Certificate:
        """A new self-signed certificate for DNS names and IP addresses, for tests and demonstrations.

        Good for servers and clients, from an hour ago for ``days`` days; without names it is for ``localhost``,
        127.0.0.1 and ::1; a name may begin with ``*.``. Needs ``cryptography``; raises ImportError, with what to
        install, without it, and ValueError for what is neither a host name nor an address."""
        return _self_signed(names or ("localhost", "127.0.0.1", "::1"), days)

    def without_private_key(self) -> Certificate:
        """The same certificate chain alone."""
        return Certificate(self.certificate_chain) if self.private_key else self

    def der(self) -> tuple[bytes, ...]:
        """The certificates of the chain in DER, the own one first."""
        return tuple(_decode(block) for block in _blocks(self.certificate_chain, b"CERTIFICATE"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Certificate):
            return NotImplemented
        return self._contents() == other._contents()

    def __hash__(self) -> int:
        return hash(self._contents())

    def __repr__(self) -> str:
        import hashlib

        key = "with" if self.private_key else "without"
        return f"Certificate(sha256 {hashlib.sha256(self.der()[0]).hexdigest()[:16]}…, {key} private key)"

    def _contents(self) -> tuple[bytes, bytes, bytes | None]:
        return (self.certificate_chain, self.private_key, self.password)

    @classmethod
    def _checked(
        cls,
        chain: bytes,
        key: bytes | None,
        password: str | bytes | None,
        where: str = "",
        where_key: str = "",
    ) -> Certificate:
        certificates = _blocks(chain, b"CERTIFICATE")
        if not certificates:
            raise ValueError(f"no certificate in PEM{where}: '-----BEGIN CERTIFICATE-----' is missing")
        keys = _blocks(chain if key is None else key, b"PRIVATE KEY")
        if key is not None and not keys:
            raise ValueError(f"no private key in PEM{where_key}: '-----BEGIN PRIVATE KEY-----' is missing")
        if len(keys) > 1:
            raise ValueError(f"{len(keys)} private keys{where_key}; a certificate has one")
        secret = password.encode() if isinstance(password, str) else password
        encrypted = bool(keys) and (b"ENCRYPTED" in keys[0])
        if encrypted and secret is None:
            raise ValueError(f"the private key is encrypted{where_key}; give its password")
        result = cls(
            b"\n".join(certificates) + b"\n",
            keys[0] + b"\n" if keys else b"",
            secret if encrypted else None,
        )
        try:
            result.der()
        except ValueError as error:
            raise ValueError(f"the certificate is damaged{where}: {error}") from None
        _check_contents(result, where, where_key)
        return result


def _as_bytes(pem: str | bytes | bytearray) -> bytes:
    if isinstance(pem, str):
        return pem.encode()
    if isinstance(pem, (bytes, bytearray)):
        return bytes(pem)
    raise TypeError(f"PEM is str or bytes, not {type(pem).__name__}")


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"cannot read {os.fspath(path)}: {error.strerror}") from error


def _blocks(pem: bytes, kind: bytes) -> list[bytes]:
    return [match.group() for match in _BLOCK.finditer(pem) if match.group(1).endswith(kind)]


def _decode(block: bytes) -> bytes:
    lines = block.split(b"\n")[1:-1]
    try:
        return binascii.a2b_base64(b"".join(line.strip() for line in lines))
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _check_contents(certificate: Certificate, where: str, where_key: str) -> None:
    """Whether these are certificates and whether the key is theirs; without ``cryptography`` the stacks find out."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        return
    try:
        leaf = x509.load_pem_x509_certificates(certificate.certificate_chain)[0]
    except ValueError as error:
        raise ValueError(f"the certificate is damaged{where}: {error}") from None
    if not certificate.private_key:
        return
    try:
        key = load_pem_private_key(certificate.private_key, certificate.password)
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot load the private key{where_key} (a wrong password?): {error}") from None
    if key.public_key() != leaf.public_key():
        raise ValueError(f"the private key{where_key} does not belong to the certificate{where}")


def _self_signed(names: tuple[str, ...], days: int) -> Certificate:
    import datetime

    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ImportError(
            "making certificates needs cryptography: install NEATPy with its extra tls"
        ) from error
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "NEATPy self-signed")])
    now = datetime.datetime.now(datetime.UTC)
    usages = (x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _general_name(name: str) -> x509.GeneralName:
    import ipaddress

    from cryptography import x509

    from neatpy.endpoint import checked_hostname

    if not isinstance(name, str) and not hasattr(name, "packed"):
        raise TypeError(f"a name in a certificate is a str, not {name!r}")
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        any_host = "*." if name.startswith("*.") else ""
        return x509.DNSName(any_host + checked_hostname(name.removeprefix("*.")).removesuffix("."))
