"""Certificates and keys of the sandbox's cluster, in files that only their owner can read."""

import ipaddress
import os
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def issue(pki: Path, name: str, user: str, groups: Sequence[str] = ()) -> None:
    """Writes a certificate and its key: the authority's own, the servers', or else a client's."""
    is_ca, key = name == "ca", ec.generate_private_key(ec.SECP256R1())
    # Kubernetes reads the user from CN and the groups from O.
    names = [*((NameOID.ORGANIZATION_NAME, group) for group in groups), (NameOID.COMMON_NAME, user)]
    with warnings.catch_warnings(action="ignore"):  # X.520 allows 64 letters, Kubernetes more: an ARN is longer
        subject = issuer = x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in names])
    signer = key
    if not is_ca:
        issuer = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes()).subject
        signer = cast(Any, serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None))
    now = datetime.now(UTC)
    usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
    certificate = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=3650))
        # The key identifiers and usages are what Python 3.13's stricter verification asks for.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if name == "server":
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = certificate.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    # Not PKCS #8: the API server reads the public half out of the traditional form only.
    pem, traditional = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    write_private(pki / f"{name}.key", key.private_bytes(pem, traditional, serialization.NoEncryption()))
    write_private(pki / f"{name}.crt", certificate.sign(signer, hashes.SHA256()).public_bytes(pem))


def write_private(path: Path, content: bytes) -> None:
    """Writes the file whole or not at all, readable by its owner only."""
    unfinished = path.with_name(f".{path.name}-unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(0o600)
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
