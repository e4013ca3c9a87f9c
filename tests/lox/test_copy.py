"""``lox copy`` and ``lox init --copy-chunker-from``, between folders, buckets and hosts."""

from __future__ import annotations

import getpass
import os
import random
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.lox.running import PASSWORD, Shell, spawn
from tests.repository.servers import BUCKET, s3_server, sftp_server


@pytest.fixture
def pair(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell with a repository at `tmp_path`/other to copy from, and one made for copies of it."""
    monkeypatch.setenv("LOX_FROM_PASSWORD", PASSWORD)
    monkeypatch.setenv("LOX_FROM_REPOSITORY", str(shell.repository))
    monkeypatch.setenv("LOX_REPOSITORY", str(tmp_path / "copy"))
    monkeypatch.setenv("LOX_PASSWORD", "another")
    shell("init", "--copy-chunker-from", str(shell.repository)).ok()
    return shell


def back_up(shell: Shell, *arguments: str | Path) -> str:
    """A backup into the repository that is copied from; the id of the snapshot."""
    password, os.environ["LOX_PASSWORD"] = os.environ["LOX_PASSWORD"], PASSWORD
    try:
        summary = shell.json("--repo", str(shell.repository), "backup", *arguments)[-1]
    finally:
        os.environ["LOX_PASSWORD"] = password
    return str(summary["snapshot"])


def folder(path: Path, seed: int, files: int = 5) -> Path:
    path.mkdir()
    dice = random.Random(seed)
    for number in range(files):
        (path / f"file{number}").write_bytes(dice.randbytes(50_000) + b"words " * 10_000)
    return path


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_copying_and_copying_again(pair: Shell, tmp_path: Path) -> None:
    source = folder(tmp_path / "data", 1)
    first = back_up(pair, source)
    dry = pair.json("copy", "--dry-run")
    assert [line["type"] for line in dry] == ["copied", "summary"]
    assert dry[0]["snapshot"] is None and dry[-1]["bytes_needed"] > 500_000 and dry[-1]["packs"] == 0
    copied, summary = pair.json("copy")
    assert copied["source"] == first != copied["snapshot"]
    assert summary["segments_copied"] > 0
    assert (summary["segments_repacked"], summary["segments_decompressed"], summary["renamed"]) == (0, 0, False)
    assert [stage["stage"] for stage in summary["stages"]][1:-1] == [
        "download", "decrypt", "unpack", "repack", "encrypt", "upload"
    ]  # fmt: skip
    told = pair("copy").ok()
    assert "copied 0 snapshots (1 there already)" in told.out
    pair("restore", "latest", "--target", tmp_path / "out").ok()
    assert contents(Path(f"{tmp_path}/out{source}")) == contents(source)
    (listed,) = pair.json("snapshots")
    assert (listed["id"], listed["original"]["snapshot"]) == (copied["snapshot"], first)


def test_choosing(pair: Shell, tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", 1), folder(tmp_path / "two", 2)
    a = back_up(pair, "--host", "alpha", one)
    b = back_up(pair, "--host", "alpha", "--tag", "x", "--tag", "y", one)
    c = back_up(pair, "--host", "beta", two)
    ids = {"a": a, "b": b, "c": c}

    def would_copy(*options: str | Path) -> set[str]:
        lines = pair.json("copy", "-n", *options)
        return {name for name, each in ids.items() if each in {line.get("source") for line in lines}}

    assert would_copy() == {"a", "b", "c"}
    assert would_copy("--host", "alpha") == {"a", "b"}
    assert would_copy("--tag", "x,y") == would_copy("--tag", "z", "--tag", "y") == {"b"}
    assert would_copy("--path", two) == {"c"}
    assert would_copy("--latest", "1") == {"b", "c"}
    assert would_copy("--host", "alpha", "--latest", "1") == {"b"}
    assert would_copy(a[:8], c) == {"a", "c"}
    assert would_copy("latest") == {"c"}
    assert "not both" in pair("copy", a, "--host", "alpha").ok(2).err
    assert "no such snapshot" in pair("copy", "ffffffffffff").ok(1).err


def test_where_the_passwords_come_from(pair: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back_up(pair, folder(tmp_path / "data", 1))
    monkeypatch.setenv("LOX_FROM_PASSWORD", "wrong")
    pair("copy").ok(12)
    (tmp_path / "secret").write_text(PASSWORD + "\n")
    pair("copy", "-n", "--from-password-file", tmp_path / "secret").ok()
    pair("copy", "-n", "--from-password-command", f"echo '{PASSWORD}'").ok()
    assert "password file" in pair("copy", "-n", "--from-password-file", tmp_path / "none").ok(78).err
    monkeypatch.delenv("LOX_FROM_PASSWORD")
    assert "LOX_FROM_PASSWORD_FILE" in pair("copy").ok(2).err
    monkeypatch.delenv("LOX_FROM_REPOSITORY")
    assert "--from-repo" in pair("copy").ok(2).err


def test_copying_into_an_unrelated_repository_says_so(
    pair: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "data", 1)
    back_up(pair, source)
    monkeypatch.setenv("LOX_REPOSITORY", str(tmp_path / "stranger"))
    pair("init").ok()
    assert "everything was decompressed" in pair("copy").ok().err
    summary = pair.json("copy")[-1]
    assert (summary["snapshots_present"], summary["renamed"]) == (1, True)
    pair("restore", "latest", "--target", tmp_path / "out").ok()
    assert contents(Path(f"{tmp_path}/out{source}")) == contents(source)


def test_what_makes_no_sense(pair: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(pair.repository)
    monkeypatch.setenv("LOX_REPOSITORY", str(tmp_path / "third"))
    assert "leave out" in pair("init", "--copy-chunker-from", url, "--chunker", "gear").ok(2).err
    assert "no repository here" in pair("init", "--copy-chunker-from", str(tmp_path / "nowhere")).ok(10).err
    pair("init", "--chunk-average", "256KiB").ok()
    assert "--copy-chunker-from" in pair("copy").ok(2).err
    monkeypatch.setenv("LOX_PASSWORD", PASSWORD)
    assert "same repository" in pair("--repo", url, "copy").ok(2).err


def test_a_damaged_snapshot_is_not_copied(pair: Shell, tmp_path: Path) -> None:
    good = back_up(pair, "--host", "good", folder(tmp_path / "one", 1))
    before = set(pair.repository.rglob("packs/*/*"))
    bad = back_up(pair, "--host", "bad", folder(tmp_path / "two", 2))
    for pack in set(pair.repository.rglob("packs/*/*")) - before:
        pack.unlink()
    lines = pair.json("copy", code=15)
    assert [line["source"] for line in lines if line["type"] == "copied"] == [good]
    assert [line["source"] for line in lines if line["type"] == "failed"] == [bad]
    assert "not copied" in pair("copy").ok(15).out


@pytest.mark.slow
@pytest.mark.parametrize("way", ["there", "back", "ray"])
def test_copies_between_a_folder_a_bucket_and_a_host(way: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "data", 1, 40)
    executor = "ray" if way == "ray" else "threads"
    with s3_server() as s3, sftp_server(tmp_path) as (port, ssh):
        urls = [
            str(tmp_path / "one"),
            f"s3://{BUCKET}/two-{way}",
            f"sftp://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/three",
        ]
        urls = urls[::-1] if way == "back" else urls
        env = {**s3, **ssh, "LOX_PASSWORD": PASSWORD, "LOX_FROM_PASSWORD": PASSWORD}

        def lox(url: str, *arguments: str) -> str:
            cache = str(tmp_path / f"cache-{time.monotonic_ns()}")
            done = spawn("--repo", url, *arguments, env={**env, "LOX_CACHE_DIR": cache})
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        lox(urls[0], "init")
        lox(urls[0], "backup", str(source))
        for before, after in pairwise(urls):
            lox(after, "init", "--copy-chunker-from", before)
            assert "copied 1 snapshot:" in lox(after, "copy", "--from-repo", before, "--executor", executor)
        assert "no damage found" in lox(urls[-1], "check", "--read-data")
        lox(urls[-1], "restore", "latest", "--target", str(tmp_path / "out"))
    assert contents(Path(f"{tmp_path}/out{source}")) == contents(source)
