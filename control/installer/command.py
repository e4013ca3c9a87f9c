"""The command that an operator copies, and the scripts it fetches, made for this server.

With certificates of a public authority it is the command of the product text. A server that is its own authority cannot
be checked by a host that never heard of it, so the command carries what the host is to trust: for curl the public
key of the server (``--pinnedpubkey``, checked although ``-k`` leaves the chain aside), for Windows the SHA-256 of the
script. The script then brings the certificate of the authority along.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control.installer.manifest import MANIFEST, Manifest, public_pem, read_manifest, signing_key
from control.services import Services
from control.settings import ServerSettings, address_of
from control.tls import certificates
from model import __version__


class Installer:
    """What this server hands out. Files are read anew when asked for: ``lox-server wheels`` may run beside it."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.folder = files_folder(settings)
        self._key: Ed25519PrivateKey | None = None

    @property
    def key(self) -> Ed25519PrivateKey:
        """What the manifest is signed with."""
        if self._key is None:
            self._key = signing_key(key_file(self._settings))
        return self._key

    def manifest(self) -> Manifest | None:
        """What there is to download, None if nothing was collected. Raises ConfigError if it is not signed by us."""
        return read_manifest(self.folder, self.key.public_key())

    def shell(self) -> str:
        """The script for Linux and macOS."""
        manifest = self.manifest()
        values = {
            "SERVER_URL": self._settings.url,
            "VERSION": manifest.version if manifest else __version__,
            "MANIFEST_KEY": public_pem(self.key),
            "CA_CERTIFICATE": self.authority(),
        }
        return _filled("agent.sh", values, "'\\")

    def powershell(self) -> str:
        """The script for Windows. It holds the hash of the manifest: Windows has nothing to check a signature with."""
        manifest, path = self.manifest(), self.folder / MANIFEST
        values = {
            "SERVER_URL": self.download_url,
            "VERSION": manifest.version if manifest else __version__,
            "MANIFEST_SHA256": hashlib.sha256(path.read_bytes()).hexdigest() if manifest else "",
            "CA_CERTIFICATE": self.authority(),
        }
        return _filled("agent.ps1", values, "'")

    def authority(self) -> str:
        """The certificate of the server's own authority, empty if it has none."""
        own = certificates(self._settings).authority
        return own.read_text("ascii").strip() if own else ""

    @property
    def download_url(self) -> str:
        """Where clients that know no TLS 1.3 get the installer: the separate listener, if there is one."""
        if self._settings.installer_listen is None:
            return self._settings.url
        port = address_of(self._settings.installer_listen)[1]
        host = urlsplit(self._settings.url).hostname or ""
        return f"https://{f'[{host}]' if ':' in host else host}:{port}"

    def command(self, os: str, agent: UUID, token: str) -> str:
        """The command for an agent, as the operator is to copy it."""
        if os == "windows":
            return self._windows(agent, token)
        elevated = "sudo bash" if os == "linux" else "bash"
        fetch = "curl -sSL"
        if certificates(self._settings).authority is not None:
            pin = public_key_pin(certificates(self._settings).certificate)
            fetch = f"curl -sSL --proto '=https' -k --pinnedpubkey 'sha256//{pin}'"
        url = self._settings.url
        return (
            f"{fetch} {url}/agent | {elevated} -s -- \\\n"
            f"  --api-url {url} \\\n  --agent-uuid {agent} \\\n  --token {token}"
        )

    def _windows(self, agent: UUID, token: str) -> str:
        protocol = "Tls13" if self._settings.installer_listen is None else "Tls12"
        file = '"$env:TEMP\\install-lox-agent.ps1"'
        run = f'& {file} -ApiUrl "{self._settings.url}" -AgentUuid "{agent}" -Token "{token}"'
        if certificates(self._settings).authority is None:
            return (
                f"[Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::{protocol}\n"
                f'Invoke-WebRequest -Uri "{self.download_url}/agent.ps1" -OutFile {file}\n{run}'
            )
        digest = hashlib.sha256(self.powershell().encode()).hexdigest()
        return (
            f"curl.exe -sSLk -o {file} {self.download_url}/agent.ps1\n"
            f'if ((Get-FileHash {file}).Hash -ne "{digest}") {{ throw "the script is not that of this server" }}\n{run}'
        )


def install_command(services: Services, os: str, agent: UUID, token: str) -> str:
    """The command for an agent. May read files, small ones."""
    return services.part(Installer).command(os, agent, token)


def files_folder(settings: ServerSettings) -> Path:
    """Where the wheels lie."""
    return settings.files_dir or settings.data_dir / "files"


def key_file(settings: ServerSettings) -> Path:
    """Where the key lies that signs the manifest."""
    return settings.data_dir / "installer" / "signing.key"


def public_key_pin(certificate: Path) -> str:
    """SHA-256 of the public key of a certificate, in base64, as curl wants it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode("ascii")


def _filled(name: str, values: dict[str, str], forbidden: str) -> str:
    text = resources.files("control.installer").joinpath(name).read_text("ascii")
    for key, value in values.items():
        assert not any(letter in value for letter in forbidden), "values stand between single quotes"
        text = text.replace(f"@{key}@", value)
    return text
