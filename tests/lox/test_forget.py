"""forget, undelete, tag, pin, unpin, comment at the command line."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from model.exits import ExitCode
from repository.repository import Repository
from repository.store import LocalStore
from tests.lox.running import PASSWORD, Shell
from tests.repository.samples import back_up

DAY = 86_400 * 10**9
NOON = int(datetime(2026, 6, 30, 12, tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture
def repository(shell: Shell) -> Repository:
    """The repository behind the shell, opened beside it."""
    return Repository.open(LocalStore(str(shell.repository)), PASSWORD)


def daily(repository: Repository, days: int, host: str = "web1", **fields: Any) -> list[str]:
    """Ids of backups at noon UTC of the last `days` days of June 2026, each with a file of its own; oldest first."""
    found = []
    for day in range(days):
        tree: dict[bytes, bytes | None] = {b"data": None, b"data/all": b"same" * 90, b"data/own": os.urandom(400)}
        when = NOON - (days - 1 - day) * DAY
        values = {"host": host, "time": when, "started": when, "finished": when} | fields
        found.append(back_up(repository, tree, **values).id)
    return found


def ids(shell: Shell) -> list[str]:
    return [row["id"] for row in shell.json("snapshots")]


def test_a_policy_shows_why_and_what_it_frees_and_then_does_it(shell: Shell, repository: Repository) -> None:
    made = daily(repository, 10)
    policy = ["forget", "--keep-daily", "2", "--keep-monthly", "2", "--timezone", "UTC"]
    rows = shell.json(*policy, "--dry-run")
    assert {row["id"]: row["reasons"] for row in rows if row["type"] == "decision" and row["action"] == "keep"} == {
        made[9]: ["daily", "monthly", "last of its source"],
        made[8]: ["daily"],
    }
    freed = rows[-1]["freed"]
    assert rows[-1]["dry_run"] is True and rows[-1]["forgotten"] == 8 and ids(shell) == made
    assert freed["plain"] >= 8 * 400 and freed["stored"] >= 8 * 400 and freed["packs"] >= freed["whole_packs"] >= 7
    text = shell(*policy, "-n").ok().out
    assert "host web1, /data: 2 kept, 8 forgotten" in text and "8 snapshots would be forgotten" in text
    assert "would free about" in text and text.count("forget") >= 8
    assert shell.json(*policy)[-1]["forgotten"] == 8
    assert ids(shell) == made[8:]
    assert shell.json(*policy)[-1]["forgotten"] == 0
    shell("check", "--read-data").ok()


def test_undelete_lists_and_brings_back(shell: Shell, repository: Repository) -> None:
    made = daily(repository, 4)
    shell("tag", made[0], "--add", "precious").ok()
    shell("forget", "--keep-last", "1").ok()
    assert [(row["id"], row["rule"]) for row in shell.json("undelete", "--list")] == [
        (one, "policy") for one in made[:3]
    ]
    assert made[0][:8] in shell("undelete", "--list").ok().out
    assert "is back" in shell("undelete", made[0][:10]).ok().out
    assert ids(shell) == [made[0], made[3]]
    assert shell.json("snapshots")[0]["tags"] == ["precious"]
    assert shell.json("undelete", "--all")[-1]["undeleted"] == 2
    assert ids(shell) == made and shell.json("undelete", "--list") == []
    assert "trash" in shell("undelete", made[0]).ok(ExitCode.FAILURE).err
    for wrong in ([], ["--all", made[0]], ["--all", "--list"]):
        shell("undelete", *wrong).ok(ExitCode.USAGE)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--keep-last", "0"],
        ["--keep-daily", "-1"],
        ["--keep-daily", "3", "--keep-weekly", "-2"],
        ["--keep-tag", "no-such-tag"],
        ["--keep-tag", ""],
        ["--keep-within", "soon"],
        ["--keep-last", "1", "--group-by", "moon"],
        ["--keep-last", "1", "--timezone", "Europe/Atlantis"],
        ["--keep-last", "1", "--timezone", "/etc/passwd"],
        ["--keep-last", "1", "--tag", ""],
        ["latest", "--keep-last", "1"],
        ["latest", "--keep-tag", "x"],
        ["--simulate", "10"],
        ["latest", "--simulate", "10"],
        ["--keep-last", "1", "--simulate", "10", "--every", "1m"],
        ["--keep-last", "1", "--simulate", "36500", "--every", "1h"],
    ],
)
def test_a_request_that_makes_no_sense_forgets_nothing(
    arguments: list[str], shell: Shell, repository: Repository
) -> None:
    made = daily(repository, 3)
    outcome = shell("forget", *arguments).ok(ExitCode.USAGE)
    assert outcome.err.startswith("lox: ") and ids(shell) == made


def test_by_name_but_not_the_last_of_a_source(shell: Shell, repository: Repository) -> None:
    web, mail = daily(repository, 3), daily(repository, 1, "mail")
    assert shell.json("forget", web[2][:8], web[0])[-1]["forgotten"] == 2
    assert "last snapshot" in shell("forget", web[1]).ok(ExitCode.USAGE).err
    shell("forget", mail[0], web[1]).ok(ExitCode.USAGE)
    assert sorted(ids(shell)) == sorted([web[1], mail[0]])
    assert shell.json("forget", mail[0], "--allow-last", "--dry-run")[-1]["forgotten"] == 1
    shell("forget", mail[0], "--allow-last").ok()
    assert ids(shell) == [web[1]]
    shell("forget", "zzzz").ok(ExitCode.FAILURE)


def test_choosing_by_host_tag_and_path(shell: Shell, repository: Repository) -> None:
    web, mail = daily(repository, 3, tags=("nightly", "full")), daily(repository, 3, "mail", paths=(b"/var/mail",))
    count = ["forget", "--keep-last", "1", "--dry-run"]
    for choice, gone in (
        (["--host", "web1"], web[:2]),
        (["--host", "web1", "--host", "mail"], [*web[:2], *mail[:2]]),
        (["--tag", "nightly,full"], web[:2]),
        (["--tag", "nightly,other"], []),
        (["--tag", "other", "--tag", "full"], web[:2]),
        (["--path", "/var/mail/"], mail[:2]),
        (["--path", "/var/mail", "--host", "web1"], []),
    ):
        rows = shell.json(*count, *choice)
        assert sorted(row["id"] for row in rows if row.get("action") == "forget") == sorted(gone), choice
    assert "no snapshot matches" in shell(*count, "--host", "none").ok().err


def test_pinned_and_held_snapshots_stay(shell: Shell, repository: Repository) -> None:
    made = daily(repository, 5)
    tomorrow = (datetime.now() + timedelta(days=1)).date().isoformat()  # noqa: DTZ005
    shell("pin", made[0], "--until", tomorrow).ok()
    shell("pin", made[1]).ok()
    shell("pin", made[2], "--hold", "case 7").ok()
    shell("forget", "--keep-last", "1").ok()
    assert ids(shell) == [made[0], made[1], made[2], made[4]]
    for kept in made[:3]:
        assert "unpin" in shell("forget", kept, "--allow-last").ok(ExitCode.USAGE).err
    shell("unpin", made[0], made[2]).ok()
    assert "held: case 7" in shell("forget", made[2]).ok(ExitCode.USAGE).err
    shell("unpin", made[2], "--hold", "case 7").ok()
    shell("forget", "--keep-last", "1").ok()
    assert ids(shell) == [made[1], made[4]]


def test_a_pin_ends_by_itself(shell: Shell, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    made = daily(repository, 2)
    shell("pin", made[0], "--until", (datetime.now(UTC) + timedelta(hours=1)).isoformat()).ok()
    assert shell.json("forget", "--keep-last", "1")[-1]["forgotten"] == 0
    later = time.time_ns() + 2 * 3600 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: later)
    assert shell.json("forget", "--keep-last", "1")[-1]["forgotten"] == 1


def test_tags_comments_and_pins_are_shown(shell: Shell, repository: Repository) -> None:
    made = daily(repository, 2, tags=("old", "nightly"))
    assert "nightly" in shell("tag", *made, "--add", "new", "--remove", "old").ok().out
    shell("comment", made[0], "before\x1b[2J".replace("\x1b", "") + " the move\nto Bonn").ok()
    (row, _) = shell.json("pin", made[0], "--until", "2999-01-31")
    assert (row["pinned"], row["comment"], row["tags"]) == (True, "before[2J the move\nto Bonn", ["new", "nightly"])
    rows = shell.json("snapshots")
    assert [one["tags"] for one in rows] == [["new", "nightly"]] * 2
    assert rows[0]["pinned"] and rows[0]["pinned_until"].startswith("2999-01-3") and not rows[1]["pinned"]
    text = shell("snapshots").ok().out
    assert "pinned until 2999-01-31" in text and "the move\\nto Bonn" in text and "new,nightly" in text
    assert len(text.splitlines()) == 3
    shell("comment", made[0], "").ok()
    assert shell.json("snapshots")[0]["comment"] == ""
    assert shell.json("forget", "--keep-tag", "new,nightly", "--dry-run")[-1]["forgotten"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["tag", "latest"],
        ["tag", "latest", "--add", "a,b"],
        ["tag", "latest", "--add", "a\x1b"],
        ["tag", "latest", "--add", "a", "--remove", "a"],
        ["pin", "latest", "--until", "soon"],
        ["pin", "latest", "--until", "2001-01-01"],
        ["pin", "latest", "--until", "2999-01-01", "--hold", "x"],
        ["pin", "latest", "--hold", ""],
        ["comment", "latest", "x" * 5000],
        ["comment", "latest", "\x1b[2J"],
    ],
)
def test_notes_that_make_no_sense_are_not_written(arguments: list[str], shell: Shell, repository: Repository) -> None:
    daily(repository, 1)
    shell(*arguments).ok(ExitCode.USAGE)
    assert not list(repository.store.list("notes/"))


def test_one_wrong_name_among_several_notes_none(shell: Shell, repository: Repository) -> None:
    (made,) = daily(repository, 1)
    shell("pin", made, "zzzz").ok(ExitCode.FAILURE)
    assert not list(repository.store.list("notes/"))


def test_the_clock_of_a_client_does_not_decide(shell: Shell, repository: Repository) -> None:
    """Snapshots dated years ahead must not push out what is real."""
    made = daily(repository, 3)
    forged = [
        back_up(repository, {b"data": None}, host="web1", time=NOON + year * 365 * DAY).id for year in (9, 10, 11)
    ]
    for number, one in enumerate(made):
        os.utime(shell.repository / "snapshots" / one, ns=(0, NOON - (2 - number) * DAY))
    for one in forged:
        os.utime(shell.repository / "snapshots" / one, ns=(0, NOON - DAY + 60 * 10**9))
    shell("forget", "--keep-daily", "3", "--keep-within", "12h", "--timezone", "UTC").ok()
    assert set(made) - set(ids(shell)) == {made[1]}, "of one day the last; the forged ones are of the 29th"
    assert made[2] in ids(shell) and made[0] in ids(shell)


def test_snapshots_that_cannot_be_read(shell: Shell, repository: Repository) -> None:
    made = daily(repository, 4)
    broken = shell.repository / "snapshots" / made[1]
    broken.chmod(0o600)
    broken.write_bytes(broken.read_bytes()[:-1])
    rows = shell.json("forget", "--keep-last", "2", "--dry-run", code=ExitCode.DAMAGE_FOUND)
    assert [row["freed"] for row in rows if row["type"] == "summary"] == [None]
    shell("forget", "--keep-last", "2").ok(ExitCode.DAMAGE_FOUND)
    assert broken.exists()
    assert [
        row["id"] for row in shell.json("snapshots", code=ExitCode.DAMAGE_FOUND) if row["type"] == "snapshot"
    ] == made[2:]


def test_a_snapshot_of_a_newer_version_stops_a_policy(shell: Shell, repository: Repository) -> None:
    made = daily(repository, 3)
    from repository.documents import decode_document, encode_document
    from repository.seal import ObjectKind

    document = decode_document(repository.get_object(ObjectKind.SNAPSHOT, f"snapshots/{made[2]}"), "x", 1 << 20)
    repository.put_object(ObjectKind.SNAPSHOT, "snapshots/" + "f" * 32, encode_document(document | {"version": 2}))
    shell("forget", "--keep-last", "1").ok(ExitCode.NEWER_FORMAT)
    assert all((shell.repository / "snapshots" / one).exists() for one in made)


def test_a_simulation_changes_nothing(shell: Shell, repository: Repository) -> None:
    made = daily(repository, 3)
    before = sorted(repository.store.list())
    policy = ["forget", "--keep-daily", "7", "--keep-monthly", "3", "--timezone", "UTC"]
    rows = shell.json(*policy, "--simulate", "365")
    assert rows[-1]["simulated"] == 366 and rows[-1]["most"] <= 11
    assert {row["action"] for row in rows[:-1]} == {"keep"} and 9 <= len(rows) - 1 <= 10
    assert "at most" in shell(*policy, "--simulate", "30", "--every", "12h").ok().out
    assert sorted(repository.store.list()) == before and ids(shell) == made


def test_real_backups_come_back_from_the_trash_whole(shell: Shell, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(100_000))
    (first,) = shell.json("backup", tree, "--host", "h")
    (tree / "file").write_bytes(os.urandom(100_000))
    shell.json("backup", tree, "--host", "h")
    freed = json.loads(shell("--json", "forget", first["snapshot"], "-n").ok().out)["freed"]
    assert 100_000 < freed["stored"] < 110_000
    shell("forget", first["snapshot"]).ok()
    shell("backup", tree, "--host", "h").ok()
    shell("undelete", first["snapshot"]).ok()
    shell("restore", first["snapshot"], "--target", tmp_path / "out", "--verify").ok()
    shell("check", "--read-data").ok()
