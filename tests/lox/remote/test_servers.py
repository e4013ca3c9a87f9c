"""Where `lox login` keeps tokens, and what becomes of a server that is not there or not trusted."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from lox.remote.servers import Server, Servers, address
from model.errors import ConfigError, UsageError
from tests.lox.running import Shell


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOX_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("backup.example.com", "https://backup.example.com"),
        ("https://Backup.example.com:443/", "https://backup.example.com"),
        ("backup:8443", "https://backup:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert address(text) == url


@pytest.mark.parametrize(
    "text", ["http://backup", "https://", "https://user@backup", "https://backup/x", "backup:port"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not the address"):
        address(text)


def test_the_last_login_is_asked_and_only_its_owner_can_read_the_token(folder: Path) -> None:
    servers = Servers()
    with pytest.raises(UsageError, match="not logged in"):
        servers.chosen(None)
    servers.add(Server("https://one", "token-of-one"))
    servers.add(Server("https://two:8443", "token-of-two", "PEM"))
    assert stat.S_IMODE(servers.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert Servers().chosen(None) == Server("https://two:8443", "token-of-two", "PEM")
    assert Servers().chosen("one").token == "token-of-one"
    servers.remove("https://two:8443")
    assert Servers().chosen(None).url == "https://one"
    with pytest.raises(UsageError, match="not logged in to this server"):
        servers.chosen("https://two:8443")
    assert "token-of-one" not in repr(servers.all())


def test_tokens_that_others_can_read_are_not_used(folder: Path) -> None:
    servers = Servers()
    servers.add(Server("https://one", "token-of-one"))
    servers.path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        servers.chosen(None)


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"last": "", "servers": {"https://x": {"no": 1}}})])
def test_a_spoilt_file_is_named(folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / "servers.json").write_text(content)
    (folder / "servers.json").chmod(0o600)
    with pytest.raises(ConfigError, match="not a file of servers"):
        Servers().chosen(None)


def test_programs_need_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("token-of-a-program\n")
    monkeypatch.setenv("LOX_SERVER", "backup:8443")
    monkeypatch.setenv("LOX_SERVER_TOKEN_FILE", str(tmp_path / "token"))
    assert Servers().chosen(None) == Server("https://backup:8443", "token-of-a-program")


def test_a_server_that_is_away_is_exit_code_14(empty: Shell) -> None:
    Servers().add(Server("https://127.0.0.1:1", "token-of-one"))
    done = empty("--json", "agent", "list").ok(14)
    assert json.loads(done.err)["exit_code"] == 14
    assert "cannot be reached" in json.loads(done.err)["message"]


def test_nothing_is_asked_of_nobody(empty: Shell) -> None:
    assert "lox login" in empty("job", "list").ok(2).err


def test_a_job_in_a_file_is_checked_where_it_stands(empty: Shell, tmp_path: Path) -> None:
    Servers().add(Server("https://127.0.0.1:1", "token-of-one"))
    (tmp_path / "job.yaml").write_text("name: web\njob_type: file\nsource_path: [/srv]\n")
    done = empty("job", "apply", "-f", tmp_path / "job.yaml").ok(2)
    assert "job.yaml:3:1" in done.err and "did you mean source_paths?" in done.err
