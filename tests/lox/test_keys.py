"""Creating a repository and changing who can open it."""

from __future__ import annotations

import re

import pytest

import lox
from model.errors import NoRepository, WrongPassword
from model.exits import ExitCode
from tests.lox.running import PASSWORD, Shell


def test_init_prints_a_recovery_code_that_opens_the_repository(empty: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = empty("init").ok().out
    found = re.search(r"^    ([A-Z2-7]{7}(?:-[A-Z2-7]{7}){7})$", text, re.MULTILINE)
    assert found is not None
    monkeypatch.setenv("LOX_PASSWORD", found[1].lower().replace("-", " "))
    rows = empty.json("key", "list")
    assert [row["current"] for row in rows if row["kind"] == "recovery"] == [True]


def test_init_refuses_a_second_time(shell: Shell) -> None:
    assert "already" in shell("init").ok(ExitCode.USAGE).err


def test_init_without_encryption(empty: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "LOX_PASSWORD" in empty("init", "--encryption", "none").ok(ExitCode.USAGE).err
    monkeypatch.delenv("LOX_PASSWORD")
    (summary,) = empty.json("init", "--encryption", "none", "--chunk-average", "64KiB")
    assert summary["recovery_code"] is None and summary["chunk_average"] == 64 << 10
    assert lox.open(str(empty.repository)).chunker.average == 64 << 10
    assert "no keys" in empty("key", "list").ok().err


def test_no_terminal_means_no_waiting(empty: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOX_PASSWORD")
    assert "LOX_PASSWORD_FILE" in empty("init").ok(ExitCode.USAGE).err


def test_the_prompt_asks_twice_at_init_and_again_for_a_typing_error(
    empty: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOX_PASSWORD")
    monkeypatch.setattr("lox.passwords.can_prompt", lambda: True)
    typed = iter(["first", "second", PASSWORD, PASSWORD, "mistyped", PASSWORD, "a", "b", "c"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    assert "differ" in empty("init").ok(ExitCode.USAGE).err
    empty("init").ok()
    assert "try again" in empty("key", "list").ok().err
    empty("key", "list").ok(ExitCode.WRONG_PASSWORD)


def test_keys_are_added_changed_and_removed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no password" in shell("key", "add").ok(ExitCode.USAGE).err
    monkeypatch.setenv("LOX_NEW_PASSWORD", "of a colleague")
    (added,) = shell.json("key", "add", "--label", "colleague")
    monkeypatch.setenv("LOX_NEW_PASSWORD", "changed")
    shell("key", "passwd").ok()
    shell("key", "list").ok(ExitCode.WRONG_PASSWORD)
    monkeypatch.setenv("LOX_PASSWORD", "changed")
    rows = shell.json("key", "list")
    assert "colleague" in [row["label"] for row in rows]
    shell("key", "remove", added["id"][:10]).ok()
    monkeypatch.setenv("LOX_PASSWORD", "of a colleague")
    shell("key", "list").ok(ExitCode.WRONG_PASSWORD)


def test_the_last_key_stays(shell: Shell) -> None:
    ids = [row["id"] for row in shell.json("key", "list")]
    for identity in ids[1:]:
        shell("key", "remove", identity).ok()
    assert "last key" in shell("key", "remove", ids[0]).ok(ExitCode.USAGE).err


def test_a_damaged_slot_is_told_and_the_others_work(shell: Shell) -> None:
    rows = shell.json("key", "list")
    recovery = next(row["id"] for row in rows if row["kind"] == "recovery")
    slot = shell.repository / "keys" / recovery
    slot.chmod(0o600)
    slot.write_bytes(slot.read_bytes()[:-20])
    outcome = shell("key", "list").ok(ExitCode.DAMAGE_FOUND)
    assert "keys/" in outcome.err and "password" in outcome.out


def test_exit_codes_of_opening(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOX_PASSWORD", "wrong")
    assert "recovery code" in shell("key", "list").ok(ExitCode.WRONG_PASSWORD).err
    shell("key", "list", "--repo", "/no/such/place").ok(ExitCode.NO_REPOSITORY)


def test_the_public_api_opens_a_repository(shell: Shell) -> None:
    assert lox.open(str(shell.repository), PASSWORD).encrypted
    with pytest.raises(WrongPassword):
        lox.open(str(shell.repository), "wrong")
    with pytest.raises(NoRepository):
        lox.open(str(shell.repository / "deeper"))
