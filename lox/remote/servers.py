"""Servers the user logged in to: their addresses, and for each a token and whom to trust.

They lie in ``servers.json`` in LOX_CONFIG_DIR, else ``~/.config/lox``, readable by the user only. Programs need no
login: LOX_SERVER names the server, LOX_SERVER_TOKEN_FILE and LOX_SERVER_CA_FILE say the rest.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from model.errors import ConfigError, UsageError

SERVER, TOKEN_FILE, CA_FILE = "LOX_SERVER", "LOX_SERVER_TOKEN_FILE", "LOX_SERVER_CA_FILE"
TENANT = "LOX_TENANT"
_SIZE_MAX = 1 << 20
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{8,4096}")


@dataclass(frozen=True, slots=True)
class Server:
    """`url` is ``https://host[:port]``; `ca` the PEM text of the authority to trust, empty: those the host trusts.

    `tenant` is the UUID of the one to act within, for those who stand above tenants.
    """

    url: str
    token: str = field(repr=False)
    ca: str = ""
    tenant: str = ""


def address(text: str) -> str:
    """``host``, ``host:port`` or a URL as ``https://host[:port]``. Raises UsageError."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port
    except ValueError as error:
        raise UsageError("not the address of a server", subject=text, hint="write https://host:port") from error
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.path.strip("/") or parts.query:
        raise UsageError("not the address of a server", subject=text, hint="write https://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}" if port in (None, 443) else f"https://{host}:{port}"


def checked_token(text: str, origin: str) -> str:
    """The first line of `text` if it can be a token. Raises ConfigError, which does not repeat it."""
    token = text.partition("\n")[0].strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigError("no token", subject=origin, why="its first line is none")
    return token


def read_text(path: str, what: str) -> str:
    """A small text file. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8", errors="strict") as file:
            return file.read(_SIZE_MAX)
    except OSError as error:
        raise ConfigError(f"cannot read {what}", subject=path, why=(error.strerror or "").lower()) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {what}", subject=path, why="it is no text") from error


class Servers:
    """The file of them. Raises ConfigError if it cannot be read or written."""

    def __init__(self) -> None:
        folder = os.environ.get("LOX_CONFIG_DIR")
        if not folder:
            folder = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "lox")
        self.path = Path(folder) / "servers.json"

    def chosen(self, named: str | None) -> Server:
        """The server that was `named`, else that of LOX_SERVER, else the one logged in to last. Raises UsageError."""
        wanted = named or os.environ.get(SERVER)
        known, last = self._read()
        if wanted:
            url = address(wanted)
            if token_file := os.environ.get(TOKEN_FILE):
                ca_file = os.environ.get(CA_FILE)
                ca = read_text(ca_file, "the certificate") if ca_file else ""
                return Server(url, checked_token(read_text(token_file, "the token"), token_file), ca)
            last = url
        if last in known:
            return known[last]
        what = "not logged in" if not last else "not logged in to this server"
        raise UsageError(what, subject=last, hint="lox login https://host:port")

    def known_ca(self, url: str) -> str:
        """What was trusted at the last login to this server; empty if nothing but what the host trusts."""
        known, _ = self._read()
        return known[url].ca if url in known else ""

    def all(self) -> list[Server]:
        """Every server, the one logged in to last at the end."""
        known, last = self._read()
        return sorted(known.values(), key=lambda server: (server.url == last, server.url))

    def add(self, server: Server) -> None:
        """Remember a server, as the one logged in to last."""
        known, _ = self._read()
        self._write({**known, server.url: server}, server.url)

    def remove(self, url: str) -> None:
        """Forget a server."""
        known, last = self._read()
        known.pop(url, None)
        self._write(known, last if last in known else next(reversed(known), ""))

    def _read(self) -> tuple[dict[str, Server], str]:
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    hint = f"chmod 600 {self.path}, and think of the tokens in it as known to others"
                    raise ConfigError("others can read the tokens of servers", subject=str(self.path), hint=hint)
                found = json.loads(file.read(_SIZE_MAX))
            known = {url: Server(**fields) for url, fields in found["servers"].items()}
            return known, str(found["last"])
        except FileNotFoundError:
            return {}, ""
        except OSError as error:
            raise ConfigError("cannot read", subject=str(self.path), why=(error.strerror or "").lower()) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "delete the file and log in again"
            raise ConfigError("not a file of servers", subject=str(self.path), hint=hint) from error

    def _write(self, known: dict[str, Server], last: str) -> None:
        text = json.dumps({"last": last, "servers": {url: asdict(server) for url, server in known.items()}}, indent=1)
        temporary = self.path.with_name(f".{self.path.name}-{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            temporary.replace(self.path)
        except OSError as error:
            raise ConfigError("cannot write", subject=str(self.path), why=(error.strerror or "").lower()) from error
