"""The stack's own identity: the token that its workers demand, the certificate that they show.

Both are made once, and stay until their resource is replaced, which replaces the workers that were
given them.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider

from stemfleet.clouds.base import Certificate
from stemfleet.clouds.trust import WORKER_NAME


class IdentityProvider(ResourceProvider):
    """Makes a token once. It stays until the resource is replaced."""

    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Nothing changes a token but its replacement."""
        return DiffResult(changes=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """256 random bits; the id is their fingerprint."""
        token = secrets.token_urlsafe(32)
        return CreateResult(fingerprint(token), {"token": token})


class Identity(Resource, module="stemfleet", name="Identity"):
    """Output: ``token`` (secret)."""

    token: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(
            IdentityProvider(),
            name,
            {"token": None},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["token"])
            ),
        )


class CertificateProvider(ResourceProvider):
    """Makes an authority and its one certificate. They stay until the resource is replaced."""

    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Nothing changes a certificate but its replacement."""
        return DiffResult(changes=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """A new certificate; the key of the authority that has signed it is in no output."""
        made = make_certificate()
        outs = {"certificate": made.certificate, "key": made.key, "ca": made.ca}
        return CreateResult(fingerprint(made.certificate), outs)


class WorkerCertificate(Resource, module="stemfleet", name="Certificate"):
    """Outputs: PEM texts ``ca``, ``certificate`` and ``key`` (secret)."""

    ca: pulumi.Output[str]
    certificate: pulumi.Output[str]
    key: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(
            CertificateProvider(),
            name,
            dict.fromkeys(("ca", "certificate", "key")),
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["key"])
            ),
        )


def make_certificate() -> Certificate:
    """A certificate for `WORKER_NAME` by an authority that can sign no other: its key is gone.

    It has no end, as it lives and dies with the workers that show it (RFC 5280, 4.1.2.5).
    """
    # Imported here: only this resource needs it, not every slot.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def usage(**allowed: bool) -> x509.KeyUsage:
        none = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        return x509.KeyUsage(**{**none, **allowed})

    authority = named(f"stemfleet {secrets.token_hex(8)}")
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.now(UTC) - timedelta(days=1)  # clocks differ
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    def unsigned(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(authority)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )

    ca = (
        unsigned(authority, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(key_cert_sign=True), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        unsigned(named(WORKER_NAME), key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(WORKER_NAME)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return Certificate(
        certificate=certificate.public_bytes(pem).decode(),
        key=key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        ca=ca.public_bytes(pem).decode(),
    )


def fingerprint(text: str) -> str:
    """What may be shown and stored of a token or a certificate, and changes with it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
