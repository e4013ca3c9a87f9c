"""Repositories in a bucket and on a host, made, filled, checked and restored by real processes; probing; limits."""

from __future__ import annotations

import getpass
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.exits import ExitCode
from tests.lox.running import PASSWORD, Shell, spawn
from tests.repository.servers import BUCKET, rclone_server, s3_server, sftp_server

Place = tuple[str, dict[str, str]]


@pytest.fixture(scope="module")
def s3() -> Iterator[Place]:
    with s3_server() as environment:
        yield f"s3://{BUCKET}/repository", environment


@pytest.fixture(scope="module")
def careless_s3() -> Iterator[Place]:
    with s3_server(conditional=False) as environment:
        yield f"s3://{BUCKET}/repository", environment


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as environment:
        yield f"s3://{BUCKET}/repository", environment


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("sftp")
    with sftp_server(folder) as (port, environment):
        yield f"sftp://{getpass.getuser()}@127.0.0.1:{port}{folder}/repository", environment


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source, dice = tmp_path / "source", random.Random(3)
    for number in range(40):
        file = source / f"folder-{number % 4}" / f"file-{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(dice.randbytes(dice.choice([0, 10, 5000, 300_000])))
    (source / "large").write_bytes(dice.randbytes(9 << 20))
    return source


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fixture", "executor"),
    [
        ("s3", "threads"),
        ("careless_s3", "threads"),
        ("rclone", "threads"),
        ("sftp", "threads"),
        pytest.param("s3", "ray", marks=pytest.mark.ray),
    ],
)
def test_a_repository_far_away(
    fixture: str, executor: str, request: pytest.FixtureRequest, tree: Path, tmp_path: Path
) -> None:
    url, environment = request.getfixturevalue(fixture)
    repository = f"{url}-{fixture}-{executor}"
    env = {**environment, "LOX_PASSWORD": PASSWORD, "LOX_REPOSITORY": repository}

    def lox(*arguments: str, code: int = 0) -> str:
        # Each with a cache of its own, as another host would have: the store and the keys are enough.
        cache = tmp_path / f"cache-{time.monotonic_ns()}"
        done = spawn(*arguments, env={**env, "LOX_CACHE_DIR": str(cache)})
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    told = lox("init")
    assert ("overwrites silently" in told) == (fixture in ("careless_s3", "rclone"))
    assert "there is a repository here already" in lox("init", code=2)
    lox("backup", "--executor", executor, str(tree))
    (tree / "new").write_bytes(b"new")
    lox("backup", str(tree))
    assert len(json.loads(lox("snapshots", "--json").splitlines()[0])) > 3
    assert "no damage found" in lox("check", "--read-data")
    lox("restore", "latest", "--executor", executor, "--target", str(tmp_path / "back"), "--verify")
    back = Path(f"{tmp_path}/back{tree}")
    assert contents(back) == contents(tree)
    assert "probe" not in lox("stats", "--json")


def test_init_says_what_is_wrong_with_the_place(s3: Place, monkeypatch: pytest.MonkeyPatch, empty: Shell) -> None:
    for name, value in s3[1].items():
        monkeypatch.setenv(name, value)
    done = empty("--repo", "s3://no-such-bucket/x", "init").ok(1)
    assert "NoSuchBucket" in done.err and "create the bucket" in done.err
    done = empty("--repo", "s3://key:hunter2@bucket/x", "init").ok(2)
    assert "hunter2" not in done.err + done.out


def test_probing_a_bucket(s3: Place, monkeypatch: pytest.MonkeyPatch, empty: Shell) -> None:
    for name, value in s3[1].items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/probed"
    lines = empty.json("store", "probe", url, "--object-size", "1MiB", "--objects", "3")
    assert {line["name"]: line["good"] for line in lines if line["type"] == "finding"} == dict.fromkeys(
        ["read after write", "ranges", "list after write", "put if absent", "clock", "delete", "large objects"], True
    )
    summary = lines[-1]
    assert summary["url"] == url and summary["usable"] and not summary["overwrites"]
    assert summary["upload"] > 0 and summary["left_behind"] == []
    text = empty("--repo", url, "store", "probe", "--quick").ok().out
    assert "put if absent" in text and "upload" not in text


def test_probing_a_careless_bucket(careless_s3: Place, monkeypatch: pytest.MonkeyPatch, empty: Shell) -> None:
    for name, value in careless_s3[1].items():
        monkeypatch.setenv(name, value)
    assert "overwrites silently" in empty("store", "probe", f"s3://{BUCKET}/probed", "--quick").ok().out


def test_probing_a_host(sftp: Place, monkeypatch: pytest.MonkeyPatch, empty: Shell) -> None:
    for name, value in sftp[1].items():
        monkeypatch.setenv(name, value)
    summary = empty.json("store", "probe", sftp[0], "--object-size", "1MiB", "--objects", "3")[-1]
    assert summary["usable"] and not summary["overwrites"] and summary["clock_difference"] == 0


def test_probing_a_folder(empty: Shell) -> None:
    assert "a taken name is refused" in empty("store", "probe", "--quick").ok().out
    assert not [path for path in empty.repository.rglob("*") if path.is_file()]


def test_a_backup_is_as_slow_as_it_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(random.Random(5).randbytes(2 << 20))
    began = time.monotonic()
    shell("backup", "--limit-upload", "2MiB", str(tmp_path / "data")).ok()
    assert time.monotonic() - began > 0.9
    assert "LOX_LIMIT_UPLOAD" not in os.environ
    began = time.monotonic()
    shell("restore", "latest", "--limit-download", "16777kbit", "--target", str(tmp_path / "back")).ok()
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize("rate", ["fast", "0", "@/no/such/file"])
def test_a_limit_that_makes_no_sense(shell: Shell, rate: str) -> None:
    assert "limit" in shell("backup", "--limit-upload", rate, "/etc/hostname").ok(2).err


def test_a_backup_with_mirrors(shell: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    summary = shell.json("backup", "--mirror", str(mirror), str(tree))[-1]
    (told,) = summary["mirrors"]
    assert (told["url"], told["behind"], told["objects_later"]) == (str(mirror), False, 1)
    monkeypatch.setenv("LOX_MIRROR", f"{mirror} {tmp_path}/second")
    out = shell("backup", str(tree)).ok().out
    assert out.count("has it too") == 2
    (tmp_path / "file").write_bytes(b"in the way")
    monkeypatch.setenv("LOX_MIRROR", f"{tmp_path}/file")
    summary = shell.json("backup", str(tree), code=3)[-1]
    assert summary["mirrors"][0]["behind"] and summary["snapshot"]
    assert "is behind" in shell("backup", str(tree)).ok(3).out
    monkeypatch.delenv("LOX_MIRROR")
    shell.repository.rename(tmp_path / "gone")
    for place in ("mirror", "second"):
        url = str(tmp_path / place)
        assert "no damage found" in shell("--repo", url, "check", "--read-data").ok().out
        shell("--repo", url, "restore", "latest", "--target", str(tmp_path / "back" / place)).ok()
        assert contents(Path(f"{tmp_path}/back/{place}{tree}")) == contents(tree)


def test_bringing_a_store_up_to_another(shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", str(tree)).ok()
    url, other = str(shell.repository), str(tmp_path / "other")
    dry = shell.json("store", "sync", url, other, "--dry-run")[-1]
    assert not os.path.exists(other)
    done = shell.json("store", "sync", url, other)[-1]
    assert (done["copied"], done["bytes"], done["snapshots"]) == (dry["copied"], dry["bytes"], 1)
    assert "copied 0 objects" in shell("store", "sync", url, other).ok().out
    assert shell.json("--repo", other, "snapshots")[0]["id"] == shell.json("snapshots")[0]["id"]
    pack = next(path for path in shell.repository.rglob("packs/*/*"))
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:-1] + b"?")
    assert "not copied" in shell("store", "sync", url, str(tmp_path / "third")).ok(15).out
    pack.unlink()
    assert "the other way round" in shell("store", "sync", url, other, "--delete").ok(15).err
    assert "copied 1 object" in shell("store", "sync", other, url).ok().out
    assert "no damage found" in shell("check", "--read-data").ok().out
    shell("forget", "--allow-last", "latest").ok()
    assert "deleted 1;" in shell("store", "sync", url, other, "--delete").ok().out
    assert shell.json("--repo", other, "snapshots") == []
    shell("--repo", str(tmp_path / "stranger"), "init").ok()
    assert "another repository" in shell("store", "sync", url, str(tmp_path / "stranger")).ok(2).err


def test_snapshots_that_were_lost_stay_in_the_mirror(shell: Shell, tree: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tree / "new").write_bytes(b"new" * (number + 1))
        shell("backup", str(tree)).ok()
    url, other = str(shell.repository), str(tmp_path / "other")
    shell("store", "sync", url, other).ok()
    first, second, _ = [row["id"] for row in shell.json("snapshots")]
    shell("forget", first).ok()
    shell("prune", "--trash", "0d").ok()
    (shell.repository / "snapshots" / second).unlink()
    refused = shell("store", "sync", url, other, "--delete").ok(ExitCode.DAMAGE_FOUND)
    assert second[:8] in refused.out and first[:8] not in refused.out and str(tree) in refused.out
    assert "nobody purged" in refused.err and "--even-lost" in refused.err
    lost, summary = shell.json("store", "sync", url, other, "--delete", code=ExitCode.DAMAGE_FOUND)[-2:]
    assert (lost["snapshot"], summary["lost"], summary["deleted"]) == (second, [second], 0)
    assert len(shell.json("--repo", other, "snapshots")) == 3
    assert "--delete" in shell("store", "sync", url, other, "--even-lost").ok(2).err
    shell("store", "sync", url, other, "--delete", "--even-lost").ok()
    assert len(shell.json("--repo", other, "snapshots")) == 1
    shell("--repo", other, "check", "--read-data").ok()


@pytest.mark.slow
def test_a_bucket_mirrors_a_folder_and_a_host_the_bucket(
    s3: Place, sftp: Place, shell: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**s3[1], **sftp[1]}.items():
        monkeypatch.setenv(name, value)
    bucket = f"s3://{BUCKET}/{tmp_path.name}"  # all servers of a process show the same objects
    host = f"{sftp[0]}-mirror"
    shell("backup", "--mirror", bucket, str(tree)).ok()
    (tree / "new").write_bytes(b"new")
    shell("backup", "--mirror", bucket, str(tree)).ok()
    shell("store", "sync", bucket, host).ok()
    shell.repository.rename(tmp_path / "gone")
    for number, url in enumerate((bucket, host)):
        assert "no damage found" in shell("--repo", url, "check", "--read-data").ok().out
        shell("--repo", url, "restore", "latest", "--target", str(tmp_path / f"back{number}")).ok()
        assert contents(Path(f"{tmp_path}/back{number}{tree}")) == contents(tree)
