"""TLS: a certificate of one's own authority for a first start, and contexts that speak TLS 1.3 only.

The authority is made once (ECDSA P-256, ten years) and signs certificates of 90 days, which are renewed in time without
a restart. Who has real certificates names their files; then nothing of this is made.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.db.base import now
from control.settings import ServerSettings
from model.errors import ConfigError

CA_DAYS, DAYS, RENEW_DAYS = 3650, 90, 30
SKEW = timedelta(hours=1)  # clients whose clock is behind


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM. `authority` is None if the certificate is not of our making."""

    certificate: Path
    key: Path
    authority: Path | None


def certificates(settings: ServerSettings) -> Certificates:
    """What to serve with; made or renewed if need be. Raises ConfigError."""
    if settings.tls is not None:
        return Certificates(settings.tls.certificate, settings.tls.key, None)
    folder = settings.data_dir / "tls"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = Certificates(folder / "server.crt", folder / "server.key", folder / "ca.crt")
        if not (folder / "ca.key").exists():
            _make_authority(folder)
        if not _is_good(files, settings):
            _make_certificate(folder, names_of(settings))
    except (OSError, ValueError) as error:
        raise ConfigError("cannot make a certificate", subject=str(folder), why=str(error)) from error
    return files


def names_of(settings: ServerSettings) -> list[str]:
    """Names and addresses for which the certificate is to be good."""
    names = [urlsplit(settings.url).hostname or "", socket.gethostname(), socket.getfqdn()]
    names += ["localhost", "127.0.0.1", "::1"]
    return list(dict.fromkeys(name for name in names if name))


def server_context(files: Certificates, *, old: bool = False) -> ssl.SSLContext:
    """A context that speaks TLS 1.3 only; `old`: 1.2 too, for the installer's files. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if old else ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError("cannot use the certificate", subject=str(files.certificate), why=why) from error
    return context


def fingerprint(path: Path) -> str:
    """SHA-256 of a certificate, as ``sha256sum`` of its DER form: what installers pin."""
    return x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256()).hex()


def _is_good(files: Certificates, settings: ServerSettings) -> bool:
    if not (files.certificate.exists() and files.key.exists()):
        return False
    found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    if found.not_valid_after_utc - now() < timedelta(days=RENEW_DAYS):
        return False
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return set(_general(names_of(settings))) <= set(names)


def _make_authority(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"LOX Backup authority of {socket.gethostname()}"[:64])])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    _write(folder / "ca.key", _pem(key), 0o600)


def _make_certificate(folder: Path, names: list[str]) -> None:
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("ca.key is no key of ours")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _builder(name, authority.subject, key, DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(_general(names)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write(folder / "server.key", _pem(key), 0o600)
    _write(folder / "server.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    moment = now()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - SKEW)
        .not_valid_after(moment + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _general(names: list[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    temporary.rename(path)
