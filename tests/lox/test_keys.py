"""Creating a repository and changing who can open it."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
from pathlib import Path

import pytest

import lox
from model.errors import NoRepository, WrongPassword
from model.exits import ExitCode
from repository.documents import document_checksum, encode_document
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
    assert lox.open(str(empty.repository)).repository.chunker.average == 64 << 10
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
    assert lox.open(str(shell.repository), PASSWORD).repository.encrypted
    with pytest.raises(WrongPassword):
        lox.open(str(shell.repository), "wrong")
    with pytest.raises(NoRepository):
        lox.open(str(shell.repository / "deeper"))


def test_rotation_tells_what_opens_the_new_epoch(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOX_NEW_PASSWORD", "of a colleague")
    (added,) = shell.json("key", "add", "--label", "colleague")
    outcome = shell("key", "remove", added["id"]).ok()
    assert "lox key rotate" in outcome.err and "--reencrypt" in outcome.err
    (planned,) = shell.json("key", "rotate", "--dry-run")
    assert (planned["epoch"], planned["before"]) == (1, 0)
    assert not [row for row in shell.json("key", "list") if row["type"] == "epoch"]
    outcome = shell("key", "rotate").ok()
    assert "epoch 1" in outcome.out and "password of init" in outcome.out and "colleague" not in outcome.out
    assert "lox prune --reencrypt" in outcome.err
    (epoch,) = [row for row in shell.json("key", "list") if row["type"] == "epoch"]
    assert (epoch["number"], epoch["newest"], len(epoch["keys"])) == (1, True, 2)
    assert "EPOCH" in shell("key", "list").ok().out


def test_rotation_without_encryption_makes_no_sense(empty: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOX_PASSWORD")
    empty("init", "--encryption", "none").ok()
    for command in ("rotate", "test", "recovery-kit"):
        assert "not encrypted" in empty("key", command).ok(ExitCode.USAGE).err


def test_a_key_is_tested_without_reading_data(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    shell("backup", tmp_path / "file").ok()
    shell("key", "rotate").ok()
    for path in sorted(shell.repository.rglob("*")):
        if path.is_file() and path.relative_to(shell.repository).parts[0] not in ("keys", "config"):
            path.chmod(0o600)
            path.write_bytes(b"gone")
    (tested,) = shell.json("key", "test")
    assert (tested["epochs"], tested["trusted"], tested["label"]) == ([0, 1], True, "password of init")
    assert "2 epochs" in shell("key", "test").ok().out
    monkeypatch.setattr("lox.passwords.can_prompt", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "wrong")
    shell("key", "test", "--ask").ok(ExitCode.WRONG_PASSWORD)
    monkeypatch.setattr("getpass.getpass", lambda prompt: PASSWORD)
    shell("key", "test", "--ask").ok()


def test_a_key_that_opens_only_old_epochs_fails_its_test(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOX_NEW_PASSWORD", "of a colleague")
    (added,) = shell.json("key", "add")
    slot = shell.repository / "keys" / added["id"]
    kept = slot.read_bytes()
    shell("key", "remove", added["id"]).ok()
    shell("key", "rotate").ok()
    slot.write_bytes(kept)
    assert "?" in shell("key", "list").ok().out
    monkeypatch.setenv("LOX_PASSWORD", "of a colleague")
    outcome = shell("key", "test").ok(ExitCode.DAMAGE_FOUND)
    assert "not all of it" in outcome.err and "left out" in outcome.err


def test_the_recovery_kit_restores_with_what_stands_on_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    shell("backup", tmp_path / "file").ok()
    kit = tmp_path / "kit.txt"
    outcome = shell("key", "recovery-kit", "--output", kit).ok()
    assert stat.S_IMODE(kit.stat().st_mode) == 0o600
    text = kit.read_text()
    code = re.search(r"^    ([A-Z2-7]{7}(?:-[A-Z2-7]{7}){7})$", text, re.MULTILINE)
    assert code is not None and code[1] not in outcome.out + outcome.err
    assert str(shell.repository) in text and lox.open(str(shell.repository), PASSWORD).repository.id.hex() in text
    place = re.search(r"^    export LOX_REPOSITORY=(.*)$", text, re.MULTILINE)
    commands = re.findall(r"^    lox ([^#\n]*)", text, re.MULTILINE)
    assert place is not None and [line.split()[0] for line in commands] == ["key", "snapshots", "restore"]
    monkeypatch.setenv("LOX_REPOSITORY", shlex.split(place[1])[0])
    monkeypatch.setenv("LOX_PASSWORD", code[1])
    monkeypatch.chdir(tmp_path)
    for line in commands:
        words = [word.replace("/restored", "restored") for word in shlex.split(line)]
        shell(*[word for word in words if word != "--ask"]).ok()
    restored = Path("restored") / (tmp_path / "file").relative_to("/")
    assert restored.read_bytes() == b"content"


def test_a_recovery_kit_overwrites_nothing_and_leaves_nothing_half_done(shell: Shell, tmp_path: Path) -> None:
    kit = tmp_path / "kit.txt"
    kit.write_text("mine")
    before = len(shell.json("key", "list"))
    assert "kit.txt" in shell("key", "recovery-kit", "--output", kit).ok(ExitCode.USAGE).err
    assert kit.read_text() == "mine" and len(shell.json("key", "list")) == before
    fresh = tmp_path / "other.txt"
    (shell.repository / "keys").chmod(0o500)
    (shell.repository / "keys").rename(shell.repository / "elsewhere")
    shell("key", "recovery-kit", "--output", fresh).ok(ExitCode.DAMAGE_FOUND)
    assert not fresh.exists()


def test_a_copy_of_the_keys_brings_back_a_repository_that_lost_them(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    shell("key", "rotate").ok()
    shell("backup", tmp_path / "file").ok()
    copy = tmp_path / "keys.json"
    shell("key", "export", "--output", copy).ok()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "Nothing was missing" in shell("key", "import", copy).ok().err
    kept = {path: path.read_bytes() for path in shell.repository.rglob("*") if path.is_file()}
    shutil.rmtree(shell.repository / "keys")
    (shell.repository / "config").unlink()
    shell("key", "test").ok(ExitCode.NO_REPOSITORY)
    restored = shell.json("key", "import", copy)[0]["objects"]
    assert len(restored) == 5 and restored[-1] == "config"
    assert {path: path.read_bytes() for path in shell.repository.rglob("*") if path.is_file()} == kept
    shell("restore", "latest", "--target", tmp_path / "out").ok()
    copy.write_bytes(copy.read_bytes().replace(b"A", b"B", 1))
    assert "checksum" in shell("key", "import", copy).ok(ExitCode.DAMAGE_FOUND).err


def test_a_copy_of_other_keys_is_refused(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "keys.json"
    shell("key", "export", "--output", copy).ok()
    monkeypatch.setenv("LOX_REPOSITORY", str(tmp_path / "another"))
    shell("init").ok()
    assert "another repository" in shell("key", "import", copy).ok(ExitCode.USAGE).err


@pytest.mark.parametrize("name", ["packs/00/00", "keys/../config", "keys//x", "keys/X", "snapshots/00"])
def test_a_forged_copy_puts_nothing_else_into_the_store(shell: Shell, tmp_path: Path, name: str) -> None:
    document: dict[str, object] = {"version": 1, "repo_id": "00" * 16, "objects": {name: "AAAA"}}
    (tmp_path / "keys.json").write_bytes(encode_document(document | {"checksum": document_checksum(document)}))
    before = sorted(shell.repository.rglob("*"))
    assert "other things" in shell("key", "import", tmp_path / "keys.json").ok(ExitCode.DAMAGE_FOUND).err
    assert sorted(shell.repository.rglob("*")) == before


def test_a_key_file_takes_the_place_of_a_password(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.key"
    (added,) = shell.json("key", "add", "--key-file", path, "--label", "agent 7")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and added["file"] == str(path)
    before = path.read_bytes()
    assert "name a file that is new" in shell("key", "add", "--key-file", path).ok(ExitCode.USAGE).err
    assert path.read_bytes() == before and len(shell.json("key", "list")) == 3
    monkeypatch.delenv("LOX_PASSWORD")
    monkeypatch.setenv("LOX_PASSWORD_FILE", str(path))
    (mine,) = [row for row in shell.json("key", "list") if row["current"]]
    assert (mine["id"], mine["kind"], mine["label"]) == (added["id"], "key-file", "agent 7")
    assert "key-file" in shell("key", "list").ok().out
    assert "lox key add" in shell("key", "passwd").ok(ExitCode.USAGE).err  # asks for no new password in vain
    shell("key", "rotate").ok()
    shell("key", "recovery-kit", "--output", tmp_path / "kit").ok()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    shell("backup", tree).ok()
    assert len(lox.open(str(shell.repository), key_file=path).snapshots()) == 1
    shell("key", "remove", added["id"][:8]).ok()
    assert "removed" in shell("snapshots").ok(ExitCode.WRONG_PASSWORD).err


def test_init_with_a_key_file(empty: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "first.key"
    monkeypatch.setenv("LOX_PASSWORD_FILE", str(path))  # which is not there yet
    assert "leave out" in empty("init", "--key-file", path, "--encryption", "none").ok(ExitCode.USAGE).err
    (summary,) = empty.json("init", "--key-file", path)
    assert summary["key_file"] == str(path) and len(summary["recovery_code"]) == 63
    assert [row["kind"] for row in empty.json("key", "list")] == ["key-file", "recovery"]
    monkeypatch.setenv("LOX_PASSWORD", summary["recovery_code"])
    monkeypatch.delenv("LOX_PASSWORD_FILE")
    empty("key", "test").ok()


def test_nothing_is_left_of_a_key_file_whose_repository_was_not_made(shell: Shell, tmp_path: Path) -> None:
    assert "already" in shell("init", "--key-file", tmp_path / "second.key").ok(ExitCode.USAGE).err
    assert not (tmp_path / "second.key").exists()


def test_a_key_file_that_others_may_read_or_change_is_refused(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {"--key-file": tmp_path / "a.key", "--output": tmp_path / "b.key"}
    shell("key", "add", "--key-file", paths["--key-file"]).ok()
    shell("key", "add", "--write-only", "--output", paths["--output"]).ok()
    monkeypatch.delenv("LOX_PASSWORD")
    for path in paths.values():
        monkeypatch.setenv("LOX_PASSWORD_FILE", str(path))
        for mode in (0o644, 0o640, 0o602, 0o610):
            path.chmod(mode)
            refused = shell("key", "test").ok(ExitCode.INVALID_CONFIGURATION)
            assert f"{mode:04o}" in refused.err and "chmod 600" in refused.err
        path.chmod(0o400)
        shell("key", "test").ok()


def test_a_torn_key_file_is_not_called_a_wrong_one(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.key"
    shell("key", "add", "--key-file", path).ok()
    path.write_bytes(path.read_bytes()[:100])
    monkeypatch.delenv("LOX_PASSWORD")
    monkeypatch.setenv("LOX_PASSWORD_FILE", str(path))
    assert "key file is damaged" in shell("snapshots").ok(ExitCode.INVALID_CONFIGURATION).err
    monkeypatch.setenv("LOX_PASSWORD", PASSWORD)
    monkeypatch.delenv("LOX_PASSWORD_FILE")
    monkeypatch.setenv("LOX_NEW_PASSWORD_FILE", str(path))
    assert "not a new password" in shell("key", "add").ok(ExitCode.USAGE).err
