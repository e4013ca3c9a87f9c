"""What the operator of a host says in config.yaml. What is not there has the default that stands here."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pipelines.settings_file import load_settings

LEVELS = ("debug", "info", "warn", "error")
_TOKEN = re.compile(r"lox_agt_[A-Za-z0-9_-]{8,256}\Z", re.ASCII)


def default_path() -> Path:
    """Where the configuration lies: ``LOX_AGENT_CONFIG``, else the place of this system."""
    if given := os.environ.get("LOX_AGENT_CONFIG"):
        return Path(given)
    if sys.platform == "win32":
        return Path(r"C:\ProgramData\LOX Agent\config.yaml")
    return Path("/etc/lox-agent/config.yaml")


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise ValueError("write an absolute path without ..")
    return path


def _server(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("write https://HOST or https://HOST:PORT; the agent speaks TLS 1.3 and nothing else")
    _ = parts.port  # ValueError: it is out of range
    return url.rstrip("/")


def _token(text: str) -> str:
    if not _TOKEN.match(text):
        raise ValueError("not a registration token: copy it, with its lox_agt_, from the install command")
    return text


def _listen(text: str) -> str:
    from model.errors import UsageError
    from pipelines.metrics.endpoint import parse_listen

    try:
        parse_listen(text.removeprefix(":") if text.startswith(":") else text)
    except UsageError as error:
        raise ValueError(f"{error.what}; {error.hint}") from None
    return text


FilePath = Annotated[Path, AfterValidator(_absolute)]


class Metrics(BaseModel):
    """Where metrics are served: ``:9100`` is every address of the host; null: nowhere. And a file for node_exporter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(_listen)] | None = ":9100"
    textfile: FilePath | None = None


class AgentConfig(BaseModel):
    """config.yaml. Times are in seconds, ``bandwidth_limit_mbps`` in megabits a second (null: no limit).

    `restore_paths` are folders outside of `restore_root` into which the server may have files restored;
    `allow_restore_in_place` lets it put them where they came from; `allow_unencrypted` lets it name a repository
    without encryption; `allow_ping_this_host` lets it name a monitor on this host.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_url: Annotated[str, AfterValidator(_server)]
    agent_uuid: UUID
    registration_token: Annotated[str, AfterValidator(_token)] | None = Field(default=None, repr=False)
    heartbeat_interval: int = Field(default=60, ge=5, le=3600)
    log_level: Annotated[Literal["debug", "info", "warn", "error"], BeforeValidator(str)] = "info"
    work_dir: FilePath = Path("/var/lib/lox-agent")
    max_concurrent_jobs: int = Field(default=2, ge=1, le=64)
    bandwidth_limit_mbps: float | None = Field(default=100, ge=0.01, le=1_000_000)
    retry_count: int = Field(default=3, ge=0, le=100)
    retry_delay_seconds: int = Field(default=30, ge=1, le=86_400)
    ca_file: FilePath | None = None
    log_dir: FilePath | None = Path("/var/log/lox-agent")
    hooks_dir: FilePath = Path("/etc/lox-agent/hooks.d")
    restore_root: FilePath | None = None
    restore_paths: tuple[FilePath, ...] = ()
    allow_restore_in_place: bool = False
    allow_unencrypted: bool = False
    allow_ping_this_host: bool = False
    metrics: Metrics = Metrics()

    @property
    def restore_folder(self) -> Path:
        """Where restores go that are not asked to go elsewhere."""
        return self.restore_root or self.work_dir / "restore"


def load(path: Path | None = None) -> AgentConfig:
    """The configuration. Raises ConfigError with file, line and column."""
    return load_settings(AgentConfig, path or default_path())
