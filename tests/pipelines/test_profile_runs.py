"""Real runs with real profiles: the result is the same, and what a profile says is what is done."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from model.chunking import KIB, MIB
from model.errors import RunFailed
from pipelines import profile_keys as keys
from pipelines.backup import BackupReport, BackupRequest, backup
from pipelines.copy import CopyRequest, copy
from pipelines.fitting import Fitting
from pipelines.options import BACKUP, COPY, RESTORE, EngineOptions, StageOptions, Watch
from pipelines.profile import Profile, chunker_of, engine_of, load, request_fields
from pipelines.restore import RestoreRequest, restore
from repository.snapshot import Snapshot
from tests.packaging.project import ROOT
from tests.pipelines.helpers import Place, as_nobody, differences
from tests.pipelines.test_profiles import NAMES
from tests.pipelines.test_round_trip import build_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "tree"
    root.mkdir()
    build_tree(root)
    return root


def back_up(place: Place, profile: Profile, *paths: Path, mode: str = "full") -> tuple[BackupReport, Snapshot]:
    request = BackupRequest(tuple(map(os.fsencode, paths)), mode=mode, **request_fields(profile))
    report = backup(place.repository, request, engine_of(profile), Watch())
    assert report.snapshot is not None
    return report, report.snapshot


def restored(place: Place, profile: Profile, snapshot: Snapshot, target: Path) -> None:
    request = RestoreRequest(snapshot, os.fsencode(target))
    assert restore(place.repository, request, engine_of(profile), Watch()).problems == []


def rows(place: Place, snapshot: Snapshot, tree: Path) -> pa.Table:
    return place.rows(snapshot, tree).drop_columns("atime")  # reading a link's target moves it


SOON = {"block-image", "debug-unfused", "slow-wan"}  # the others take long enough to be left to the slow tests


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SOON else pytest.mark.slow) for name in sorted(NAMES)]
)
def test_every_shipped_profile_backs_up_and_restores(name: str, tree: Path, tmp_path: Path) -> None:
    profile = load(name)
    place = Place(tmp_path / "repository", chunker=chunker_of(profile))
    report, snapshot = back_up(place, profile, tree)
    assert report.problems == []
    restored(place, profile, snapshot, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


def test_whatever_the_profile_the_manifest_is_the_same(tree: Path, tmp_path: Path) -> None:
    """In one repository, so that chunk ids can be compared; all but the chunker may differ."""
    place = Place(tmp_path / "repository")
    _, first = back_up(place, Profile(), tree)
    wanted = rows(place, first, tree)
    assert wanted.num_rows > 120
    for name in sorted(NAMES - {"default"}):
        report, snapshot = back_up(place, load(name), tree)
        assert rows(place, snapshot, tree).equals(wanted), name
        assert report.bytes_new == 0, name


UNEQUAL = EngineOptions(
    executor="threads",
    lanes=2,
    stages={
        "read": StageOptions(lanes=3),
        "chunk": StageOptions(lanes=1),
        "compress": StageOptions(lanes=2),
        "encrypt": StageOptions(lanes=1),
        "upload": StageOptions(lanes=4),
        "decompress": StageOptions(lanes=1),
        "write": StageOptions(lanes=3),
        "repack": StageOptions(lanes=3),
    },
    batch_rows=64,
    batch_bytes=MIB,
    pack_bytes=2 * MIB,
)


def test_stages_have_the_lanes_that_were_asked_for_and_lose_nothing(tree: Path, tmp_path: Path) -> None:
    """Also pieces of large files that arrive out of order, and packs stored by others than those who sealed them."""
    place = Place(tmp_path / "repository")
    _, first = back_up(place, Profile(), tree)
    fresh = Place(tmp_path / "other")
    report = backup(fresh.repository, BackupRequest((os.fsencode(tree),)), UNEQUAL, Watch())
    assert report.snapshot is not None
    lanes = {line.name: line.lanes for line in report.trace.stages}
    assert [lanes[name] for name in BACKUP] == [3, 1, 2, 2, 2, 1, 4]
    assert len({line.strand for line in report.trace.stages}) == 6  # with the caller's
    again = backup(place.repository, BackupRequest((os.fsencode(tree),), mode="full"), UNEQUAL, Watch())
    assert again.snapshot is not None and again.bytes_new == 0
    assert rows(place, again.snapshot, tree).equals(rows(place, first, tree))
    target = os.fsencode(tmp_path / "out")
    back = restore(fresh.repository, RestoreRequest(report.snapshot, target), UNEQUAL, Watch())
    assert back.problems == [] and {line.lanes for line in back.trace.stages if line.name == "write"} == {3}
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


def test_a_copy_with_unequal_lanes_is_whole(tree: Path, tmp_path: Path) -> None:
    source, target = Place(tmp_path / "source"), Place(tmp_path / "target")
    _, snapshot = back_up(source, Profile(), tree)
    report = copy(source.repository, target.repository, CopyRequest((snapshot,)), UNEQUAL, Watch())
    assert report.failed == {} and len(report.copied) == 1
    restored(target, Profile(), report.copied[0][1], tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


@pytest.mark.ray
def test_ray_lanes_between_cuts_keep_to_their_queues(tree: Path, tmp_path: Path) -> None:
    profile = load("debug-unfused", ["executor.kind=ray", "executor.lanes=1", "stages.hash.queue.bytes=1MiB"])
    place = Place(tmp_path / "repository")
    _, first = back_up(place, Profile(), tree)
    report, snapshot = back_up(place, profile, tree)
    assert len({line.strand for line in report.trace.stages}) == 8
    assert rows(place, snapshot, tree).equals(rows(place, first, tree))


# ---- memory


def test_the_budget_of_every_shipped_profile_adds_up() -> None:
    for name in NAMES:
        for cores in (1, 4):
            profile = load(name)
            if profile[keys.LANES] is None:
                profile = profile.with_values({keys.LANES.path: cores}, "test")
            engine = engine_of(profile)
            for graph in (BACKUP, RESTORE, COPY):
                parts = Fitting(engine, graph).budget()
                assert sum(part.nbytes for part in parts) <= engine.memory, (name, cores, parts)


def test_what_nothing_is_said_about_is_made_to_fit() -> None:
    alone = Fitting(EngineOptions(lanes=2), BACKUP)
    assert alone.begins == () and alone.pack_bytes == 41 * MIB + 349525  # (512 - 200 - 2 * 32) / 6
    cut = Fitting(EngineOptions(lanes=2, cuts=frozenset(BACKUP)), BACKUP)
    assert cut.begins == BACKUP[1:]
    queue = cut.queue("hash").nbytes
    assert queue is not None and 9 * MIB <= queue <= 312 * MIB // 12
    asked = EngineOptions(lanes=1, stages={"upload": StageOptions(lanes=3)})
    assert Fitting(asked, BACKUP).begins == ("upload",)


PEAK = """
import os, sys
from pipelines.backup import BackupRequest, backup
from pipelines.options import Watch
from pipelines.profile import engine_of, load
from repository.repository import Repository
from repository.store import LocalStore
repository = Repository.open(LocalStore(sys.argv[1]), None)
engine = engine_of(load(sys.argv[2], sys.argv[4:]))
backup(repository, BackupRequest((os.fsencode(sys.argv[3]),), mode="full"), engine, Watch())
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # of this program alone
print(peak, engine.memory >> 10)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("low-memory", []),
        ("debug-unfused", ["executor.memory=640MiB", "executor.lanes=2"]),
        ("debug-unfused", ["executor.memory=768MiB", "executor.lanes=2", "stages.upload.lanes=4"]),
        ("slow-wan", ["executor.lanes=2", "limits.upload=400Mbit"]),
    ],
)
def test_memory_stays_within_the_budget(name: str, sets: list[str], tmp_path: Path) -> None:
    """More than all of the memory, in files of all lengths, none of which compresses."""
    root = tmp_path / "tree"
    root.mkdir()
    rng = random.Random(4)
    for number in range(60):
        (root / f"{number}").write_bytes(rng.randbytes(rng.choice([MIB, 7 * MIB, 20 * MIB])))
    (root / "large").write_bytes(rng.randbytes(100 * MIB))
    Place(tmp_path / "repository", encryption="none")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOX_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", PEAK, str(tmp_path / "repository"), name, str(root), *sets]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    peak, budget = map(int, done.stdout.split())
    assert peak < budget, f"{name}: {peak >> 10} MiB of {budget >> 10}"


# ---- files that cannot be read, or change


@pytest.mark.root
def test_an_unreadable_file_ends_the_run_if_the_profile_says_so(tmp_path: Path) -> None:
    import tempfile

    from repository.store import MemoryStore

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = Path(folder) / "tree"
        (root / "closed").mkdir(parents=True)
        (root / "good").write_bytes(b"x" * KIB)
        place = Place(root, store=MemoryStore())
        strict = load(None, ["on_error.unreadable_file=fail"])
        for bad in (root / "bad", root / "closed"):
            if not bad.exists():
                bad.write_bytes(b"secret")
            os.chmod(bad, 0)
            with as_nobody():
                assert back_up(place, Profile(), root)[0].problems
                with pytest.raises(RunFailed, match=f"{bad.name}: permission denied") as caught:
                    back_up(place, strict, root)
            assert "on_error.unreadable_file" in caught.value.hint
            os.chmod(bad, 0o755)
        assert back_up(place, strict, root)[0].problems == []


@pytest.mark.parametrize(("policy", "reads"), [("warn", 0), ("retry_once", 1), ("retry", 3), ("fail", 3)])
def test_a_file_that_moves_is_read_as_often_as_the_profile_says(
    policy: str, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kernels
    from sources.files import read

    root = tmp_path / "tree"
    root.mkdir()
    (root / "log").write_bytes(b"line\n" * 1000)
    (root / "calm").write_bytes(b"still")
    seen = []
    batch, alone = kernels.read_files, read._read_whole

    def moving(*arguments: Any) -> object:
        with open(root / "log", "ab") as file:
            file.write(b"more\n")
        return batch(*arguments)

    def once_more(root_fd: int, path: bytes, *rest: Any) -> object:
        if path.endswith(b"log"):
            seen.append(path)
        found = alone(root_fd, path, *rest)
        found.steady = False  # somebody wrote to it just then
        return found

    monkeypatch.setattr(kernels, "read_files", moving)
    monkeypatch.setattr(read, "_read_whole", once_more)
    place = Place(tmp_path / "repository", lanes=1)
    profile = load(None, [f"on_error.changed_while_reading={policy}", "executor.kind=inline"])
    if policy == "fail":
        with pytest.raises(RunFailed, match="changed while reading"):
            back_up(place, profile, root)
    else:
        report, _ = back_up(place, profile, root)
        assert [text for _, text in report.problems] == ["changed while reading"]
    assert len(seen) == reads
