"""Every command against a real repository, with names and trees nobody likes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import random
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import lox
from model.exits import ExitCode
from tests.lox.running import PASSWORD, ROOT, Shell, spawn

UGLY = [
    b"\xff\xfe",
    b"new\nline",
    b"\x1b[31mred\x1b[2J",
    b"n" * 255,
    "\u202egnp.exe".encode(),
    b"-rf",
    b" ",
    b"back\\slash",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "keep.txt").write_text("kept")
    (root / "skip.log").write_text("skipped")
    (root / "data").write_bytes(random.Random(1).randbytes(300_000))
    os.mkfifo(root / "fifo")
    os.symlink(b"\xff\x1b[0m", os.fsencode(root / "link"))
    for name in UGLY:
        (root / os.fsdecode(name)).write_bytes(name)
    time.sleep(0.06)  # so that nothing is too young to be trusted by the next backup
    return root


def entry_path(row: dict[str, str]) -> bytes:
    """The exact path of a JSON line."""
    return base64.b64decode(row["path_b64"]) if "path_b64" in row else row["path"].encode()


def test_a_backup_is_listed_compared_found_and_restored(shell: Shell, tree: Path, tmp_path: Path) -> None:
    (first,) = shell.json("backup", tree, "--exclude", "*.log", "--tag", "weekly", "--host", "web1")
    assert first["type"] == "summary" and first["exit_code"] == 0
    assert first["files"] == first["files_new"] == 12
    (tree / "sub" / "keep.txt").write_text("changed")
    (second,) = shell.json("backup", tree, "--host", "web1")
    assert (second["files_unchanged"], second["files_changed"], second["files_new"]) == (11, 1, 1)

    rows = shell.json("snapshots")
    assert [row["id"] for row in rows] == [first["snapshot"], second["snapshot"]]
    assert rows[0]["tags"] == ["weekly"] and rows[1]["parent"] == first["snapshot"]
    assert rows[0]["paths"] == [{"path": str(tree)}]

    changed = {row["path"]: row["action"] for row in shell.json("diff", first["snapshot"][:6], "latest")[:-1]}
    assert changed[f"{tree}/sub/keep.txt"] == "changed-content" and changed[f"{tree}/skip.log"] == "added"

    versions = shell.json("find", "keep.*")
    assert [row["snapshots"] for row in versions] == [[first["snapshot"]], [second["snapshot"]]]
    assert len(shell.json("find", "keep.*", "--newest")) == 1
    assert shell.json("find", "skip.log", "--snapshot", first["snapshot"]) == []

    (report,) = shell.json("restore", first["snapshot"], "--target", tmp_path / "out", "--verify")
    assert report["files"] == 10 and report["problems"] == 0  # those that have content
    assert (tmp_path / "out" / str(tree)[1:] / "sub" / "keep.txt").read_text() == "kept"


def test_every_name_survives_listing_as_json_and_none_escapes_as_text(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    rows = shell.json("ls", "latest", tree)
    assert {entry_path(row) for row in rows} >= {os.fsencode(tree) + b"/" + name for name in UGLY}
    for arguments in (["ls", "latest", "-R"], ["ls", "-l", "latest", str(tree)], ["find", "*"]):
        text = shell(*arguments).ok().out
        assert "\x1b" not in text and "\u202e" not in text
        assert "new\\nline" in text and "\\xff\\xfe" in text and "back\\\\slash" in text


def test_ls_lists_a_folder_a_file_or_everything(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    assert shell("ls", "latest", f"{tree}/sub/").ok().out == f"{tree}/sub/keep.txt\n"
    assert shell("ls", "latest", f"{tree}/data").ok().out == f"{tree}/data\n"
    assert shell("ls", "latest").ok().out == f"/{tree.parts[1]}/\n"
    everything = shell("ls", "latest", "-R").ok().out.splitlines()
    assert f"{tree}/sub/" in everything and f"{tree}/sub/keep.txt" in everything
    assert " -> \\xff\\x1b[0m" in shell("ls", "-l", "latest", tree).ok().out
    shell("ls", "latest", "/no/such").ok(ExitCode.FAILURE)


def test_restoring_some_files_and_refusing_others(shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", tree).ok()
    target = tmp_path / "out"
    shell("restore", "latest", "--target", target, f"{tree}/sub", f"{tree}/data").ok()
    restored = target / str(tree)[1:]
    assert sorted(path.name for path in restored.iterdir()) == ["data", "sub"]
    assert (
        shell("restore", "latest", "--target", target, "/no/such")
        .ok(ExitCode.FAILURE)
        .err.startswith("lox: no such path")
    )
    (report,) = shell.json("restore", "latest", "--target", target, f"{tree}/data")
    assert (report["files"], report["skipped"]) == (0, 1)


def test_a_dry_run_changes_nothing(shell: Shell, tree: Path, tmp_path: Path) -> None:
    assert "dry run" in shell("backup", tree, "--dry-run").ok().out
    assert shell.json("snapshots") == []
    shell("backup", tree).ok()
    shell("restore", "latest", "--target", tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_in_place_with_delete_asks_first(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    assert "--yes" in shell("restore", "latest", "--in-place", "--delete", tree).ok(ExitCode.USAGE).err


def test_dump_gives_exact_bytes(shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", tree).ok()
    environment = {"LOX_REPOSITORY": str(shell.repository), "LOX_PASSWORD": PASSWORD}
    command = [sys.executable, "-m", "lox", "dump", "latest"]
    found = subprocess.run(
        [*command, tree / "data"], capture_output=True, env={**os.environ, **environment}, cwd=ROOT, check=True
    )
    assert found.stdout == (tree / "data").read_bytes()
    archive = tmp_path / "tree.tar"
    with archive.open("wb") as out:
        subprocess.run(
            [*command, tree, "--archive", "tar"], stdout=out, env={**os.environ, **environment}, cwd=ROOT, check=True
        )
    with tarfile.open(archive) as opened:
        names = {os.fsencode(name) for name in opened.getnames()}
    assert names >= {os.fsencode(tree)[1:] + b"/" + name for name in UGLY if name != b" "}
    assert "archive" in shell("dump", "latest", tree).ok(ExitCode.USAGE).err


def test_a_tar_archive_keeps_odd_attributes_links_and_every_nanosecond(shell: Shell, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    (root / "file").write_text("x")
    os.symlink("nowhere", root / "link")
    os.link(root / "link", root / "zlink", follow_symlinks=False)
    attributes = {b"user.n\xff": b"v\xfe", b"user.a=b%c": b"=", b"user.plain": b""}
    try:
        for name, value in attributes.items():
            os.setxattr(root / "file", name, value)
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    os.utime(root / "file", ns=(1, 1_234_567_890_123_456_789))
    os.utime(root / "link", ns=(1, 1), follow_symlinks=False)
    entries = ((0x01, 6, -1), (0x02, 4, 1234), (0x04, 4, -1), (0x10, 7, -1), (0x20, 0, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(root / "file", "system.posix_acl_access", acl)
    for folder in ("a/inner", "b", "c/inner"):
        (root / folder).mkdir(parents=True)
        (root / folder / "file").touch()
    shell("backup", root).ok()
    archive = tmp_path / "odd.tar"
    environment = {"LOX_REPOSITORY": str(shell.repository), "LOX_PASSWORD": PASSWORD}
    command = [sys.executable, "-m", "lox", "dump", "latest", os.fspath(root), "--archive", "tar"]
    with archive.open("wb") as out:
        subprocess.run(command, stdout=out, env={**os.environ, **environment}, cwd=ROOT, check=True)
    with tarfile.open(archive) as opened:
        members = {Path(member.name).name: member for member in opened if Path(member.name).parent.name == "odd"}
        names = [name.partition("/odd/")[2] for name in opened.getnames()]
    assert names[-8:] == ["a", "a/inner", "a/inner/file", "b", "b/file", "c", "c/inner", "c/inner/file"]
    assert members["file"].pax_headers["SCHILY.acl.access"] == "user::rw-,user:1234:r--,group::r--,mask::rwx,other::---"
    assert members["file"].pax_headers["mtime"] == "1234567890.123456789"
    assert members["link"].pax_headers["mtime"] == "0.000000001"
    assert members["zlink"].islnk() and members["zlink"].linkname == members["link"].name
    kept = {os.fsencode(key): os.fsencode(value) for key, value in members["file"].pax_headers.items()}
    assert kept[b"SCHILY.xattr.user.n\xff"] == b"v\xfe"
    assert kept[b"SCHILY.xattr.user.a%3Db%25c"] == b"="
    assert kept[b"SCHILY.xattr.user.plain"] == b""


@pytest.mark.parametrize(
    "closed", ["<&- >&- 2>&-", *(pytest.param(one, marks=pytest.mark.slow) for one in ("<&-", ">&-", "2>&-"))]
)
def test_closed_standard_streams_are_no_reason_to_fail(shell: Shell, tree: Path, closed: str) -> None:
    environment = {**os.environ, "LOX_REPOSITORY": str(shell.repository), "LOX_PASSWORD": PASSWORD}
    for arguments in (["backup", str(tree)], ["snapshots"]):
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "lox", *arguments]
        ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr.replace("1 snapshot\n", "")) == (0, "")
    assert shell.json("check", "--read-data")[-1]["sound"]


def test_patterns_from_options_and_files(shell: Shell, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "patterns").write_bytes(b"# comment\n\n*.log\n\xff*\n!keep.txt\n")
    shell("backup", tree, "--exclude-file", tmp_path / "patterns", "--exclude", "sub/").ok()
    names = {entry_path(row).rpartition(b"/")[2] for row in shell.json("ls", "latest", tree)}
    assert b"skip.log" not in names and b"\xff\xfe" not in names and b"sub" not in names and b"data" in names


def test_relative_paths_links_and_order_of_arguments(shell: Shell, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    (tree.parent / "alias").symlink_to(tree)
    shell("backup", "sub", "./data").ok()
    (again,) = shell.json("backup", tree.parent / "alias" / "data", "../tree/sub/", "data")
    assert again["files_unchanged"] == again["files"] == 2
    assert "symbolic link" in shell("backup", tree.parent / "alias").ok().err


def test_quiet_and_verbose(shell: Shell, tree: Path) -> None:
    assert shell("backup", tree, "-qq").ok().out == ""
    text = shell("backup", tree, "-v").ok().out
    assert "STAGE" in text and "STARVED" in text
    assert "snapshot " in shell("backup", tree, "-q").ok().out


def test_unencrypted_repositories_need_no_password(
    empty: Shell, tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LOX_PASSWORD")
    empty("init", "--encryption", "none").ok()
    empty("backup", tree, "--compression", "lz4").ok()
    empty("restore", "latest", "--target", tmp_path / "out").ok()
    monkeypatch.setenv("LOX_PASSWORD", "expects encryption")
    assert "not encrypted" in empty("snapshots").ok(ExitCode.USAGE).err


def test_references_to_snapshots(shell: Shell, tree: Path) -> None:
    assert "lox backup" in shell("ls", "latest").ok(ExitCode.FAILURE).err
    (summary,) = shell.json("backup", tree)
    for reference in (summary["snapshot"], summary["snapshot"][:5].upper(), "latest"):
        assert shell("ls", reference).ok().out
    for reference in ("zzzz", "", "lates"):
        assert "lox snapshots" in shell("ls", reference).ok(ExitCode.FAILURE).err


def test_unreadable_files_are_listed_and_exit_three(shell: Shell, tree: Path) -> None:
    (tree / "sub" / "secret\x1b[0m").write_text("x")
    (tree / "sub" / "secret\x1b[0m").chmod(0)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if drop and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv: apt-get install util-linux")
    environment = {**os.environ, "LOX_REPOSITORY": str(shell.repository), "LOX_PASSWORD": PASSWORD}
    command = [*drop, sys.executable, "-m", "lox", "backup", str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.returncode == ExitCode.PARTIAL, done.stderr
    assert "sub/secret\\x1b[0m: permission denied" in done.stderr
    assert "1 item with a problem" in done.stdout
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["type"] for row in rows] == ["problem", "summary"] and rows[-1]["exit_code"] == 3
    assert [row["problems"] for row in shell.json("snapshots")] == [1, 1]


def test_damage_is_found_named_and_survived(shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", tree).ok()
    assert "no damage" in shell("check", "--read-data").ok().out
    pack = max(
        (path for path in (shell.repository / "packs").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    outcome = shell("check", "--read-data").ok(ExitCode.DAMAGE_FOUND)
    assert f"packs/{pack.parent.name}/{pack.name}" in outcome.err and "damage found" in outcome.out
    rows = shell.json("check", "--read-data", code=ExitCode.DAMAGE_FOUND)
    findings = [row for row in rows if row["type"] == "finding"]
    assert findings and findings[0]["files_total"] >= 1 and rows[-1]["sound"] is False
    shell("restore", "latest", "--target", tmp_path / "out").ok(ExitCode.DAMAGE_FOUND)
    assert (tmp_path / "out" / str(tree)[1:] / "sub").is_dir()


def test_a_missing_snapshot_object_damaged_is_told(shell: Shell, tree: Path) -> None:
    (summary,) = shell.json("backup", tree)
    shell("backup", tree).ok()
    broken = shell.repository / "snapshots" / summary["snapshot"]
    broken.chmod(0o600)
    broken.write_bytes(broken.read_bytes()[:-1])
    outcome = shell("snapshots").ok(ExitCode.DAMAGE_FOUND)
    assert summary["snapshot"] in outcome.err and "latest" not in outcome.err
    shell("ls", "latest").ok()


def test_stats_add_up(shell: Shell, tree: Path) -> None:
    for _ in range(2):
        shell("backup", tree).ok()
    (found,) = shell.json("stats")
    assert found["snapshots"] == 2 and found["unique"] < found["logical"]
    on_disk = sum(path.stat().st_size for path in shell.repository.rglob("*") if path.is_file())
    assert found["stored"] == on_disk
    assert "by deduplication" in shell("stats").ok().out


def test_a_signal_ends_a_backup_cleanly_and_the_next_one_goes_on(shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.mkdir()
    rng = random.Random(3)
    for number in range(10):
        # Each file different, and hard work for gzip 9: the run must still be going when the signal comes.
        (source / f"{number}").write_bytes(rng.randbytes(2 << 20).translate(b"abcdefgh" * 32))
    environment = {
        **os.environ,
        "LOX_REPOSITORY": str(shell.repository),
        "LOX_PASSWORD": PASSWORD,
        "LOX_PROGRESS_INTERVAL": "0.1",
    }
    command = [sys.executable, "-m", "lox", "backup", str(source), "--compression", "gzip:9", "--lanes", "1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as run:
        assert run.stderr is not None
        assert run.stderr.readline().startswith("backup: ")
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=30)
    assert run.returncode == ExitCode.INTERRUPTED, err
    assert "stopping" in err and "lox: interrupted" in err and "Traceback" not in err and out == ""
    assert shell.json("snapshots") == []
    shell("check", "--read-data").ok()
    (summary,) = shell.json("backup", source)
    assert summary["files"] == 10


def test_a_terminal_gets_a_live_display_and_its_cursor_back(shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "large \x1b[2J"
    source.mkdir()
    for number in range(8):
        noise = random.Random(number).randbytes(1 << 20)
        (source / f"{number}").write_bytes(noise.translate(b"abcdefgh" * 32))  # gzip 9 has a hard time with it
    environment = {**os.environ, "LOX_REPOSITORY": str(shell.repository), "LOX_PASSWORD": PASSWORD, "TERM": "xterm"}
    command = [sys.executable, "-m", "lox", "backup", str(source), "--compression", "gzip:9", "--lanes", "1"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as run:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(ours, 4096):
                shown += block
        assert run.stdout is not None and "snapshot" in run.stdout.read()
    os.close(ours)
    assert run.returncode == 0
    assert b"backup" in shown and b"limited by" in shown and b"8 files" in shown
    assert shown.count(b"\x1b[?25h") == shown.count(b"\x1b[?25l") == 1
    assert b"\\x1b[2J/" in shown and b"\x1b[2J" not in shown


def test_a_reader_that_leaves_early_ends_a_listing_quietly(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(3000):
        (tmp_path / "many" / f"{number:04d}{'x' * 60}").touch()
    shell("backup", tmp_path / "many").ok()
    script = f"{sys.executable} -m lox ls latest -R | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "LOX_REPOSITORY": str(shell.repository), "LOX_PASSWORD": PASSWORD}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1
    assert done.returncode == ExitCode.FAILURE


def test_tracebacks_only_with_debug(shell: Shell, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("repository.snapshot.load_all", broken)
    outcome = shell("snapshots")
    assert outcome.code == 1 and "internal error" in outcome.err and "--debug" in outcome.err
    assert "Traceback" not in outcome.err
    assert "Traceback" in shell("snapshots", "--debug").err


def test_the_repository_may_lie_in_an_odd_place(tmp_path: Path, tree: Path) -> None:
    place = os.fsencode(tmp_path) + b"/\xff repo\nsitory"
    environment = {"LOX_PASSWORD": PASSWORD}
    assert spawn("--repo", place, "init", env=environment).returncode == 0
    assert spawn("--repo", place, "backup", str(tree), env=environment).returncode == 0
    done = spawn("--repo", place, "snapshots", "--json", env=environment)
    assert len(done.stdout.splitlines()) == 1
    assert lox.open(os.fsdecode(place), PASSWORD).repository.encrypted
