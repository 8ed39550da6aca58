"""SecurityParameters and Certificate: what they take, what they refuse, and what they say then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neatpy.certificate import Certificate
from neatpy.security import (
    PARAMETER_NAMES,
    PreSharedKey,
    SecurityMode,
    SecurityParameters,
    SecurityProtocol,
    TrustVerification,
)
from pki import Authority

AUTHORITY = Authority()
IDENTITY = AUTHORITY.issue("localhost")


def test_security_is_on_by_default() -> None:
    parameters = SecurityParameters()
    assert parameters.mode is SecurityMode.SECURE
    assert parameters.explicit() == {}
    assert parameters.max_cached_sessions is None
    assert parameters.trusted_certificates == ()


@pytest.mark.parametrize("name", ["preSharedKey", "pre_shared_key", "PRESHAREDKEY", "Pre_Shared_Key"])
def test_names_are_snake_case_or_the_rfcs_in_any_case(name: str) -> None:
    parameters = SecurityParameters().set(name, (b"key", "me"))
    assert parameters.pre_shared_key == PreSharedKey(b"key", b"me")
    assert parameters.get(name) == (b"key", b"me")


def test_a_pre_shared_key_can_be_set_with_two_values_as_in_the_rfc() -> None:
    assert SecurityParameters().set("preSharedKey", b"key", "me").pre_shared_key == (b"key", b"me")


def test_a_pre_shared_key_is_not_shown() -> None:
    assert "sesame" not in repr(SecurityParameters(pre_shared_key=(b"sesame", "me")))


def test_a_private_key_is_not_shown() -> None:
    shown = repr(SecurityParameters(server_certificate=IDENTITY))
    assert "PRIVATE" not in shown
    assert "with private key" in shown


@pytest.mark.parametrize("name", ["tls_1_3", "TLS_1_3", "TLSv1.3", "tls 1.3", SecurityProtocol.TLS_1_3])
def test_protocols_are_named_as_people_write_them(name: Any) -> None:
    assert SecurityParameters(allowed_security_protocols=name).allowed_security_protocols == (
        SecurityProtocol.TLS_1_3,
    )


def test_ciphersuites_are_named_by_iana_or_by_openssl() -> None:
    parameters = SecurityParameters(ciphersuite=["tls_aes_128_gcm_sha256", "ECDHE-RSA-AES128-GCM-SHA256"])
    assert parameters.ciphersuite == ("TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")


@pytest.mark.parametrize(
    ("name", "value", "kind", "words"),
    [
        ("allowed_security_protocols", "ssl_3", ValueError, "allowed: tls_1_2, tls_1_3"),
        ("allowed_security_protocols", [], ValueError, "may not be empty"),
        ("allowed_security_protocols", 3, TypeError, "names"),
        ("server_certificate", "cert.pem", TypeError, "Certificate.from_files"),
        ("server_certificate", AUTHORITY.root.without_private_key(), ValueError, "private key"),
        ("client_certificate", IDENTITY.without_private_key(), ValueError, "private key"),
        ("pinned_server_certificate", 3, TypeError, "PEM or a path"),
        ("trusted_certificates", "/nowhere/root.pem", ValueError, "cannot read /nowhere/root.pem"),
        ("trusted_certificates", b"no PEM", ValueError, "BEGIN CERTIFICATE"),
        ("alpn", "", ValueError, "1 to 255 bytes"),
        ("alpn", "x" * 256, ValueError, "1 to 255 bytes"),
        ("alpn", b"h2", TypeError, "str"),
        ("alpn", "ü", ValueError, "ASCII"),
        ("supported_group", "sect163k1", ValueError, "allowed: x25519"),
        ("ciphersuite", "TLS_RSA_WITH_RC4_128_MD5", ValueError, "allowed: TLS_AES_128_GCM_SHA256"),
        ("signature_algorithm", "rsa_md5", ValueError, "allowed: ecdsa_secp256r1_sha256"),
        ("max_cached_sessions", -1, ValueError, "0 or more"),
        ("max_cached_sessions", True, TypeError, "int"),
        ("cached_session_lifetime_seconds", 0, ValueError, "more than 0"),
        ("cached_session_lifetime_seconds", float("nan"), ValueError, "more than 0"),
        ("cached_session_lifetime_seconds", "1h", TypeError, "seconds"),
        ("pre_shared_key", b"key", TypeError, "pair"),
        ("pre_shared_key", ("key", "me"), TypeError, "bytes"),
        ("pre_shared_key", (b"", "me"), ValueError, "empty"),
        ("trust_verification_callback", True, TypeError, "function"),
        ("identity_challenge_callback", "f", TypeError, "function"),
        ("session_cache", 3, ValueError, "there are allowed_security_protocols, "),
    ],
)
def test_a_wrong_value_is_refused_at_once_and_changes_nothing(
    name: str, value: Any, kind: type[Exception], words: str
) -> None:
    parameters = SecurityParameters(alpn="h2")
    with pytest.raises(kind, match=words.replace(".", r"\.")):
        parameters.set(name, value)
    assert parameters.explicit() == {"alpn": ("h2",)}


def test_none_unsets_any_parameter() -> None:
    parameters = SecurityParameters(alpn="h2", max_cached_sessions=3)
    for name in PARAMETER_NAMES:
        parameters.set(name, None)
    assert parameters.explicit() == {}


def test_attributes_set_and_check_as_set_does() -> None:
    parameters = SecurityParameters()
    parameters.alpn = ["h2", "http/1.1", "h2"]
    assert parameters.alpn == ("h2", "http/1.1")
    with pytest.raises(ValueError, match="1 to 255"):
        parameters.alpn = ""


def test_ciphersuites_that_no_allowed_protocol_has_are_a_contradiction() -> None:
    with pytest.raises(ValueError, match="none of the ciphersuites"):
        SecurityParameters(ciphersuite="TLS_AES_128_GCM_SHA256", allowed_security_protocols="tls_1_2")


def test_ciphersuites_rule_out_the_versions_that_have_none_of_them() -> None:
    parameters = SecurityParameters(ciphersuite="TLS_AES_128_GCM_SHA256")
    assert parameters.allows(SecurityProtocol.TLS_1_3)
    assert parameters.allows(SecurityProtocol.QUIC)
    assert not parameters.allows(SecurityProtocol.TLS_1_2)
    assert not parameters.allows(SecurityProtocol.DTLS_1_2)


def test_disabled_takes_no_parameters() -> None:
    parameters = SecurityParameters.disabled()
    assert parameters.mode is SecurityMode.DISABLED
    with pytest.raises(ValueError, match="disabled"):
        parameters.set("alpn", "h2")


def test_opportunistic_may_have_a_certificate_but_trusts_nobody_in_particular() -> None:
    parameters = SecurityParameters.opportunistic(server_certificate=IDENTITY)
    assert parameters.mode is SecurityMode.OPPORTUNISTIC
    with pytest.raises(ValueError, match="does not authenticate"):
        parameters.trusted_certificates = AUTHORITY.root
    assert parameters.explicit() == {"server_certificate": (IDENTITY,)}


def test_a_snapshot_is_independent() -> None:
    parameters = SecurityParameters.opportunistic(alpn="h2")
    snapshot = parameters.snapshot()
    parameters.alpn = "h3"
    assert snapshot.alpn == ("h2",)
    assert snapshot.mode is SecurityMode.OPPORTUNISTIC


def test_trusted_certificates_come_as_certificate_pem_or_path(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    path.write_bytes(AUTHORITY.root.certificate_chain)
    pem = AUTHORITY.root.certificate_chain
    parameters = SecurityParameters(trusted_certificates=[AUTHORITY.root, pem, pem.decode(), path, str(path)])
    assert set(parameters.trusted_certificates) == {AUTHORITY.root.without_private_key()}


def test_setting_parameters_loads_no_tls_library() -> None:
    program = (
        "import sys; before = set(sys.modules); from neatpy.security import SecurityParameters; "
        "SecurityParameters(alpn='h2').snapshot(); "
        "print({'ssl', 'OpenSSL', 'cryptography', 'ipaddress'} & (set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_trust_verification_says_what_was_found() -> None:
    trust = TrustVerification("localhost", (b"der",), "certificate has expired")
    assert not trust.verified
    assert len(trust.fingerprint) == 64
    assert TrustVerification(None, ()).fingerprint == ""
    assert TrustVerification(None, ()).verified


# Certificates


def test_a_certificate_comes_from_files_or_from_one_file(tmp_path: Path) -> None:
    chain, key, both = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "both.pem"
    chain.write_bytes(IDENTITY.certificate_chain)
    key.write_bytes(IDENTITY.private_key)
    both.write_bytes(IDENTITY.private_key + IDENTITY.certificate_chain)
    assert Certificate.from_files(chain, key) == Certificate.from_files(str(both)) == IDENTITY


def test_a_private_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="does not belong"):
        Certificate.from_pem(AUTHORITY.root.certificate_chain, IDENTITY.private_key)


def test_a_file_that_is_not_pem_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.pem"
    path.write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"broken\.pem"):
        Certificate.from_files(path)
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match=r"damaged.*broken\.pem"):
        Certificate.from_files(path)


def test_an_encrypted_private_key_needs_its_password() -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(IDENTITY.private_key, None)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"sesame"),
    )
    with pytest.raises(ValueError, match="password"):
        Certificate.from_pem(IDENTITY.certificate_chain, pem)
    with pytest.raises(ValueError, match="wrong password"):
        Certificate.from_pem(IDENTITY.certificate_chain, pem, "wrong")
    assert Certificate.from_pem(IDENTITY.certificate_chain, pem, "sesame").password == b"sesame"


def test_errors_name_the_file_that_is_wrong(tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(IDENTITY.certificate_chain)
    key.write_bytes(IDENTITY.certificate_chain)
    with pytest.raises(ValueError, match=r"no private key in PEM \(.*key\.pem\)"):
        Certificate.from_files(chain, key)


@pytest.mark.parametrize("name", ["foo bar", "", "*.", "a.*.org", "-a", "1.2.3", "localhost:4433"])
def test_a_self_signed_certificate_is_for_host_names_and_addresses_only(name: str) -> None:
    with pytest.raises(ValueError, match=r"neither a host name nor|is not a host name"):
        Certificate.self_signed("localhost", name)


def test_a_self_signed_certificate_may_be_for_all_hosts_of_a_domain_and_for_other_scripts() -> None:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(
        Certificate.self_signed("*.example.org", "bücher.example", "example.net.").certificate_chain
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    dns = names.get_values_for_type(x509.DNSName)
    assert dns == ["*.example.org", "xn--bcher-kva.example", "example.net"]


def test_a_self_signed_certificate_has_the_names_asked_for() -> None:
    from cryptography import x509

    certificate = Certificate.self_signed("example.org", "192.0.2.1", "2001:db8::1")
    leaf = x509.load_der_x509_certificate(certificate.der()[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == [
        "192.0.2.1",
        "2001:db8::1",
    ]
