"""The settings of the server: the file, over it LOX_SERVER_* of the environment, over that the command line."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from model.addresses import Network, network
from model.errors import ConfigError
from pipelines.settings_file import load_settings

CONFIG = Path("/etc/lox-server/config.yaml")
PREFIX = "LOX_SERVER_"
_LISTEN = re.compile(r"(?P<host>[^:\[\]]*|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})\Z")


def address_of(listen: str) -> tuple[str | None, int]:
    """Host (None: all) and port of ``[HOST]:PORT``. Raises ValueError."""
    found = _LISTEN.match(listen)
    if found is None or int(found["port"]) > 65_535:
        raise ValueError("write HOST:PORT, or :PORT for all addresses")
    return found["host"].strip("[]") or None, int(found["port"])


class TlsFiles(BaseModel):
    """A certificate (with its chain) and its key, PEM. Without them the server is its own authority."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path
    key: Path


class ServerSettings(BaseModel):
    """How a server is set up. Durations are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = ":8443"
    public_url: str = ""
    """What agents and people call it; by default https://THIS-HOST:PORT."""
    data_dir: Path = Path("/var/lib/lox-server")
    database_url: str = ""
    """By default SQLite in `data_dir`."""
    tls: TlsFiles | None = None
    installer_listen: str | None = None
    """Serves the installer and its files only, to clients with TLS 1.2 as well."""
    files_dir: Path | None = None
    """Wheels that the installer hands out; by default ``files`` in `data_dir`."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    log_level: Annotated[str, Field(pattern="^(debug|info|warn|error)$")] = "info"
    log_format: Annotated[str, Field(pattern="^(auto|json|text)$")] = "auto"
    rate_limits: bool = True
    removed_days: Annotated[int, Field(ge=0, le=3650)] = 7
    """For how long a removed repository can be brought back before its objects in the vault are deleted."""
    run_log_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    """For how long the log of a run is kept."""
    run_days: Annotated[int, Field(ge=1, le=36_500)] = 400
    """For how long a run is kept of which no backup is left."""
    session_hours: Annotated[int, Field(ge=1, le=720)] = 12
    alert_networks: tuple[Network, ...] = ()
    """Where alert targets may be besides the internet."""

    @field_validator("listen", "installer_listen")
    @classmethod
    def _listens(cls, value: str | None) -> str | None:
        if value is not None:
            address_of(value)
        return value

    @field_validator("alert_networks", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, list | tuple):
            raise ValueError("write a list of networks, as [10.0.0.0/8]")
        return tuple(network(str(text)) for text in texts if str(text).strip())

    @field_validator("public_url")
    @classmethod
    def _is_https(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme != "https" or not parts.hostname or parts.query or parts.path not in ("", "/")):
            raise ValueError("write https://HOST or https://HOST:PORT")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_writer(self) -> ServerSettings:
        if self.processes > 1 and not self.database.startswith("postgresql"):
            raise ValueError("more than one process needs PostgreSQL (database_url)")
        return self

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir / 'server.sqlite3'}"

    @property
    def url(self) -> str:
        """The URL by which the server is known, without a slash at its end."""
        port = address_of(self.listen)[1]
        return self.public_url or f"https://{socket.getfqdn()}" + ("" if port == 443 else f":{port}")


def load(path: Path | None, given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> ServerSettings:
    """The settings; `given` are those of the command line, None if not said. Raises ConfigError."""
    wanted = path or Path(environ.get(PREFIX + "CONFIG", CONFIG))
    explicit = path is not None or PREFIX + "CONFIG" in environ
    base: dict[str, Any] = {}
    if explicit or wanted.exists():
        base = load_settings(ServerSettings, wanted).model_dump(exclude_unset=True)
    for name in ServerSettings.model_fields:
        if PREFIX + name.upper() in environ and name != "tls":
            base[name] = environ[PREFIX + name.upper()]
    certificate, key = environ.get(PREFIX + "TLS_CERTIFICATE"), environ.get(PREFIX + "TLS_KEY")
    if certificate and key:
        base["tls"] = {"certificate": certificate, "key": key}
    base |= {name: value for name, value in given.items() if value is not None}
    try:
        return ServerSettings.model_validate(base)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or "settings"
        raise ConfigError("the settings are invalid", subject=name, why=_reason(first["msg"])) from None


def _reason(text: str) -> str:
    text = text.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
