"""The password comes from the first source that is set, exactly as written there."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from lox import passwords
from model.errors import ConfigError


def test_order_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passwords.from_environment() is None
    monkeypatch.setenv("LOX_PASSWORD", "third")
    assert passwords.from_environment() == "third"
    monkeypatch.setenv("LOX_PASSWORD_COMMAND", "echo second")
    assert passwords.from_environment() == "second"
    file = tmp_path / "password"
    file.write_bytes(b"first\n")
    monkeypatch.setenv("LOX_PASSWORD_FILE", str(file))
    assert passwords.from_environment() == "first"


def test_new_passwords_have_their_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOX_PASSWORD", "old")
    assert passwords.from_environment(passwords.NEW) is None
    monkeypatch.setenv("LOX_NEW_PASSWORD_COMMAND", "echo new")
    assert passwords.from_environment(passwords.NEW) == "new"


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"plain", "plain"),
        (b"with spaces \n", "with spaces "),
        (b"windows\r\n", "windows"),
        (b"first\nsecond\n", "first"),
        ("gr\u00fc\u00dfe\n".encode(), "gr\u00fc\u00dfe"),
    ],
)
def test_only_the_line_break_is_taken_off(
    content: bytes, password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p").write_bytes(content)
    monkeypatch.setenv("LOX_PASSWORD_FILE", str(tmp_path / "p"))
    assert passwords.from_environment() == password


@pytest.mark.parametrize("content", [b"", b"\n", b"\nsecond", b"\xff\xfe", b"x" * 100_000])
def test_useless_password_files_are_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p").write_bytes(content)
    monkeypatch.setenv("LOX_PASSWORD_FILE", str(tmp_path / "p"))
    with pytest.raises(ConfigError):
        passwords.from_environment()


def test_a_source_that_fails_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOX_PASSWORD", "fallback")
    monkeypatch.setenv("LOX_PASSWORD_FILE", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="missing"):
        passwords.from_environment()


def test_no_shell_runs_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        f"{shlex.quote(sys.executable)} -c 'import sys; print(sys.argv[1:])' a;touch {tmp_path}/owned '$HOME' \"b c\""
    )
    monkeypatch.setenv("LOX_PASSWORD_COMMAND", script)
    assert passwords.from_environment() == str(["a;touch", f"{tmp_path}/owned", "$HOME", "b c"])
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "command", ["false", "/no/such/program", "echo 'unbalanced", "true", "   ", "sh -c 'kill -9 $$'"]
)
def test_commands_that_give_nothing_are_errors(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOX_PASSWORD_COMMAND", command)
    with pytest.raises(ConfigError):
        passwords.from_environment()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users")
@pytest.mark.parametrize(
    ("owner", "mode", "good"),
    [
        (1000, 0o600, True),
        (1000, 0o640, False),
        (0, 0o440, True),
        (0, 0o444, False),
        (0, 0o460, False),
        (7, 0o600, False),
    ],
)
def test_whose_key_file_a_user_may_take(
    owner: int, mode: int, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_text("lox-key-file-1:x")
    path.chmod(mode)
    os.chown(path, owner, 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if good:
        assert passwords.from_file(str(path), "X") == "lox-key-file-1:x"
    else:
        with pytest.raises(ConfigError):
            passwords.from_file(str(path), "X")
