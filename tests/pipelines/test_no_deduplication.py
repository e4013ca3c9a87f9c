"""A backup without deduplication: all that is read is stored again, and everything else stays as it is."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from model.chunking import KIB, MIB
from model.errors import Interrupted
from pipelines import fitting
from pipelines.backup import BackupReport, BackupRequest, backup
from pipelines.options import EngineOptions, Watch
from repository.check import LEVELS, check
from repository.entry_table import chunks_of
from repository.index import ChunkIndex
from repository.pack import PackKind, pack_name
from repository.prune import PrunePolicy, prune
from repository.snapshot import Snapshot, load_all
from tests.pipelines.helpers import Place, differences, noise

AT_ONCE = PrunePolicy(max_unused=0.0, trash=0, unfinished=0)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files small and in pieces, one of them twice, and one whose chunks are all alike."""
    root = tmp_path_factory.mktemp("source") / "tree"
    (root / "small").mkdir(parents=True)
    rng = random.Random(3)
    for number in range(60):
        (root / "small" / f"file{number}").write_bytes(rng.randbytes(rng.randrange(1, 40 * KIB)))
    (root / "large").write_bytes(rng.randbytes(10 * MIB))
    (root / "copy of large").write_bytes((root / "large").read_bytes())
    (root / "zeros").write_bytes(bytes(20 * MIB))
    time.sleep(0.1)  # or they are too young to be trusted unread
    return root


class StopAtFirst(Watch):
    """Stops a run when the first entry is in the manifest: its content is stored then."""

    wants_items = True

    def item(self, path: bytes, action: str, size: int) -> None:
        self.stop.set()


def copies(place: Place) -> Counter[bytes]:
    """How often the index has each chunk of content."""
    found: Counter[bytes] = Counter()
    for table in ChunkIndex.load(place.repository, None).tables:
        data = table.packs["kind"][table.segments["pack"][table.segment]] == PackKind.DATA
        found.update(row.tobytes() for row in table.ids[data])
    return found


def occurrences(place: Place, snapshot: Snapshot | None, tree: Path) -> Counter[bytes]:
    """How often the files of a snapshot have each chunk."""
    assert snapshot is not None
    return Counter(row.tobytes() for row in chunks_of(place.rows(snapshot, tree)).ids)


def content(tree: Path) -> int:
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


def sound(place: Place) -> None:
    for level in LEVELS:
        assert check(place.repository, level).findings == [], level


def restores(place: Place, report: BackupReport, tree: Path, out: Path) -> None:
    assert report.snapshot is not None
    assert place.restore(report.snapshot, out).problems == []
    assert differences(tree, out / os.fspath(tree)[1:]) == ""


@pytest.mark.parametrize("executor", ["threads", pytest.param("ray", marks=pytest.mark.ray)])
def test_all_that_is_read_is_stored_again_however_often_it_is_there(executor: str, tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    usual = place.backup(tree)
    seen = occurrences(place, usual.snapshot, tree)
    assert copies(place) == dict.fromkeys(seen, 1) and max(seen.values()) > 2
    for times, place.executor in ((1, "threads"), (2, executor)):
        again = place.backup(tree, mode="full", deduplicate=False)
        assert (again.deduplicated, again.bytes_read, again.bytes_new) == (False, content(tree), content(tree))
        assert copies(place) == {chunk: 1 + times * number for chunk, number in seen.items()}
    place.executor = "threads"
    sound(place)
    restores(place, again, tree, tmp_path / "out")
    later = place.backup(tree, mode="full")
    assert (later.deduplicated, later.bytes_read, later.bytes_new) == (True, content(tree), 0)


def test_what_did_not_change_is_not_read_and_stays_as_it_is(tmp_path: Path) -> None:
    tree = noise(tmp_path / "tree", 20, 100 * KIB)
    time.sleep(0.1)  # or they are too young to be trusted unread
    place = Place(tmp_path / "repository")
    place.backup(tree)
    (tree / "new").write_bytes((tree / "file0").read_bytes())
    report = place.backup(tree, deduplicate=False)
    assert (report.files_new, report.files_unchanged, report.bytes_read) == (1, 20, 100 * KIB)
    seen = occurrences(place, report.snapshot, tree)
    assert copies(place) == seen, "what is new has a second copy, though its content is known"
    restores(place, report, tree, tmp_path / "out")


def test_the_second_copy_is_as_good_as_the_first(tree: Path, tmp_path: Path) -> None:
    """The packs of the one run are lost: what the other has stored restores the snapshots of both."""
    place = Place(tmp_path / "repository")
    first = place.backup(tree)
    old = ChunkIndex.load(place.repository, None).pack_table
    second = place.backup(tree, mode="full", deduplicate=False)
    for pack in old[old["kind"] == PackKind.DATA]["id"]:
        place.repository.store.delete(pack_name(pack.tobytes()))
    for number, report in enumerate((first, second)):
        restores(place, report, tree, tmp_path / f"out{number}")


def test_prune_leaves_one_copy_of_each(tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    reports = [place.backup(tree, mode="full", deduplicate=number == 0) for number in range(3)]
    assert min(copies(place).values()) == 3
    assert prune(place.repository, AT_ONCE).bytes_deleted > content(tree) / 2
    prune(place.repository, AT_ONCE)  # what was rewritten goes once its marks are known
    assert set(copies(place).values()) == {1}
    sound(place)
    for number, report in enumerate(reports):
        restores(place, report, tree, tmp_path / f"out{number}")


def test_what_a_stopped_run_stored_is_stored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "PACK_MAX", 4 * MIB)
    tree = noise(tmp_path / "tree", 24, 2 * MIB)
    place = Place(tmp_path / "repository")
    with pytest.raises(Interrupted):
        place.backup(tree, watch=StopAtFirst(), deduplicate=False)
    kept = copies(place)
    assert kept and load_all(place.repository) == []
    report = place.backup(tree, deduplicate=False)
    assert report.bytes_new == content(tree)
    assert copies(place) == kept + occurrences(place, report.snapshot, tree)
    sound(place)
    restores(place, report, tree, tmp_path / "out")


def test_strands_that_hand_over_wait_for_the_copies_of_the_run(tree: Path, tmp_path: Path) -> None:
    """Where other lanes upload than compress, commit itself looks whether all of a row is stored: by this run."""
    place = Place(tmp_path / "repository")
    place.backup(tree)
    seen = copies(place)
    engine = EngineOptions("threads", lanes=2, cuts=frozenset({"dedup", "encrypt", "upload"}))
    request = BackupRequest((os.fsencode(tree),), mode="full", deduplicate=False)
    report = backup(place.repository, request, engine, Watch())
    assert copies(place) == seen + occurrences(place, report.snapshot, tree)
    restores(place, report, tree, tmp_path / "out")
