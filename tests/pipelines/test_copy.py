"""Copies between repositories: everything restores from the copy alone, whatever the two have in common."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.chunking import KIB, MIB, ChunkerParams
from model.errors import Interrupted, Refused, UsageError
from pipelines import fitting
from pipelines.copy import CopyReport, CopyRequest, copy
from pipelines.options import Progress, Watch
from repository.annotations import Changes, Pin, annotate, load_annotations
from repository.check import check
from repository.chunk_writer import ChunkWriter
from repository.index import ChunkIndex, save_index
from repository.pack import PackKind, pack_name
from repository.repair_salvage import readable_chunks
from repository.repository import Repository
from repository.snapshot import Snapshot, load_all
from repository.store import Bytes, LocalStore, Store
from repository.store.wrapped import WrappedStore
from repository.trash import forget
from stages.repack import Unpacker
from tests.pipelines.helpers import CHEAP, Place, differences, noise
from tests.pipelines.test_round_trip import build_tree

SMALL = ChunkerParams(minimum=4 * KIB, average=16 * KIB, maximum=256 * KIB)


def related(place: Place, path: Path) -> Place:
    """A repository that shares the keys of chunks with `place`."""
    made = Place.__new__(Place)
    made.path, made.executor, made.lanes, made.encryption = path, place.executor, place.lanes, place.encryption
    made.chunker, made.store = place.chunker, None
    password = None if place.encryption == "none" else "another horse"
    made.repository, _ = Repository.init(
        LocalStore(os.fspath(path)), password, encryption=place.encryption, kdf=CHEAP, related=place.repository
    )
    return made


def unrelated(place: Place, path: Path) -> Place:
    return Place(path, place.executor, place.lanes, place.encryption, place.chunker)


def run(source: Place, target: Place, *snapshots: Snapshot, watch: Watch | None = None, **request: Any) -> CopyReport:
    wanted = snapshots or tuple(load_all(source.repository))
    return copy(source.repository, target.repository, CopyRequest(wanted, **request), source.engine, watch or Watch())


def take(place: Place, tree: Path, **more: Any) -> Snapshot:
    snapshot = place.backup(tree, **more).snapshot
    assert snapshot is not None
    return snapshot


def assert_restores(place: Place, snapshot: Snapshot, tree: Path, out: Path) -> None:
    assert place.restore(snapshot, out).problems == []
    assert differences(tree, out / os.fspath(tree)[1:]) == ""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    build_tree(root)
    return root


KINDS = [
    pytest.param(related, "aes-256-gcm", id="related"),
    pytest.param(unrelated, "none", id="open"),
    pytest.param(unrelated, "aes-256-gcm", id="unrelated"),
]
Make = Callable[[Place, Path], Place]


@pytest.mark.parametrize("executor", ["threads", pytest.param("inline", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("make", "encryption"), KINDS)
def test_a_copy_restores_with_the_source_gone(
    make: Make, encryption: str, executor: str, tree: Path, tmp_path: Path
) -> None:
    source = Place(tmp_path / "source", executor, encryption=encryption, chunker=SMALL)
    first = take(source, tree, tags=("one",))
    shutil.copytree(tree, tmp_path / "before", symlinks=True, ignore=lambda *_: ["socket", "pipe"])
    (tree / "text").write_bytes(b"another line\n" * 50_000)
    (tree / "dir3" / "new").write_bytes(random.Random(8).randbytes(3 * MIB))
    second = take(source, tree)
    target = make(source, tmp_path / "target")
    report = run(source, target)
    assert (len(report.copied), report.present, report.failed) == (2, 0, {})
    assert report.renamed == (make is unrelated and encryption != "none")
    if not report.renamed:  # all of every segment is needed
        assert (report.counts.segments_repacked, report.counts.segments_decompressed) == (0, 0)
        assert report.counts.segments_copied > 1
    shutil.rmtree(source.path)
    copied = load_all(target.repository)
    assert [snapshot.original for snapshot in copied] == [(source.repository.id, one.id) for one in (first, second)]
    for one, made in zip((first, second), copied, strict=True):
        kept = one._replace(id="", parent=None, root=made.root, extra={})
        assert made._replace(id="", parent=None, original=None, extra={}) == kept
    assert copied[1].parent == copied[0].id
    assert_restores(target, copied[1], tree, tmp_path / "out")
    assert target.restore(copied[0], tmp_path / "old").problems == []
    old = tmp_path / "old" / os.fspath(tree)[1:]
    assert (old / "text").read_bytes() == (tmp_path / "before" / "text").read_bytes()
    assert check(target.repository, "data").findings == []


@pytest.mark.parametrize(("make", "encryption"), KINDS)
def test_a_second_copy_brings_what_is_new(make: Make, encryption: str, tree: Path, tmp_path: Path) -> None:
    source = Place(tmp_path / "source", encryption=encryption, chunker=SMALL)
    target = make(source, tmp_path / "target")
    take(source, tree)
    first = run(source, target)
    assert first.counts.packs > 0
    again = run(source, target)
    assert (again.copied, again.present, again.counts.packs, again.chunks_needed) == ([], 1, 0, 0)
    (tree / "dir1" / "more").write_bytes(random.Random(4).randbytes(700 * KIB))
    take(source, tree)
    report = run(source, target)
    assert (len(report.copied), report.present) == (1, 1)
    assert 700 * KIB <= report.counts.plain < 2 * MIB, "only what is new, and what lists it"
    assert_restores(target, load_all(target.repository)[-1], tree, tmp_path / "out")
    back = run(target, source)
    assert (back.copied, back.present) == ([], 2), "a copy is not copied back to where it came from"


def test_a_copy_and_a_backup_share_their_chunks(tree: Path, tmp_path: Path) -> None:
    source = Place(tmp_path / "source")
    target = related(source, tmp_path / "target")
    time.sleep(0.1)
    take(source, tree)
    run(source, target)
    report = target.backup(tree, mode="full")
    assert report.bytes_new == 0
    report = target.backup(tree)
    assert report.bytes_read == 0, "a copied snapshot is as good a parent as any"


@pytest.mark.parametrize(("make", "encryption"), KINDS)
def test_what_only_others_need_stays_behind(make: Make, encryption: str, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    rng = random.Random(2)
    for number in range(40):
        (root / f"keep{number}").write_bytes(rng.randbytes(60 * KIB))
        (root / f"lose{number}").write_bytes(rng.randbytes(60 * KIB))
    source = Place(tmp_path / "source", encryption=encryption, chunker=SMALL)
    take(source, root)
    for number in range(40):
        (root / f"lose{number}").unlink()
    wanted = take(source, root)
    target = make(source, tmp_path / "target")
    report = run(source, target, wanted)
    assert report.counts.segments_repacked > 0
    assert report.counts.plain < 1.2 * 40 * 60 * KIB
    assert_restores(target, load_all(target.repository)[0], root, tmp_path / "out")
    assert check(target.repository, "data").findings == []


def test_notes_travel(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    source = Place(tmp_path / "source")
    snapshot = take(source, tmp_path / "file", tags=("born",))
    for number, changes in enumerate(
        (Changes(add=("late",)), Changes(remove=("born",), pin=Pin(), hold=("law",)), Changes(comment="final"))
    ):
        annotate(source.repository, snapshot.id, changes, 10**18 + number)
    target = related(source, tmp_path / "target")
    run(source, target)
    made = load_all(target.repository)[0]
    assert load_annotations(target.repository).of(made) == load_annotations(source.repository).of(snapshot)
    with pytest.raises(UsageError):
        forget(target.repository, made.id, "by hand", time.time_ns())


def test_what_was_forgotten_in_the_target_is_not_copied_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    source = Place(tmp_path / "source")
    take(source, tmp_path / "file")
    target = related(source, tmp_path / "target")
    run(source, target)
    forget(target.repository, load_all(target.repository)[0].id, "by hand", time.time_ns())
    report = run(source, target)
    assert (report.copied, report.present, report.trashed) == ([], 0, 1)


def test_verifying_and_compressing_anew(tree: Path, tmp_path: Path) -> None:
    source = Place(tmp_path / "source")
    take(source, tree)
    verified = run(source, related(source, tmp_path / "verified"), verify=True).counts
    assert verified.segments_decompressed == verified.segments_copied > 0 == verified.segments_repacked
    target = related(source, tmp_path / "gzip")
    anew = run(source, target, codec="gzip").counts
    assert anew.segments_copied == 0 < anew.segments_repacked
    assert set(ChunkIndex.load(target.repository, None).segments.codec.tolist()) <= {0, 3}
    assert_restores(target, load_all(target.repository)[0], tree, tmp_path / "out")


def test_a_dry_run_stores_nothing(tree: Path, tmp_path: Path) -> None:
    source = Place(tmp_path / "source")
    take(source, tree)
    target = related(source, tmp_path / "target")
    before = list(target.repository.store.list())
    report = run(source, target, dry_run=True)
    assert len(report.copied) == 1 and report.bytes_needed > 21 * MIB
    assert list(target.repository.store.list()) == before
    assert not list(source.repository.store.list("sessions/"))


def test_repositories_that_have_too_little_in_common(tmp_path: Path) -> None:
    source = Place(tmp_path / "source")
    with pytest.raises(UsageError, match="other chunks"):
        run(source, Place(tmp_path / "target", chunker=ChunkerParams(average=128 * KIB)))
    with pytest.raises(UsageError, match="same repository"):
        run(source, source)
    with pytest.raises(UsageError, match="only if both"):
        Repository.init(LocalStore(str(tmp_path / "open")), None, encryption="none", related=source.repository)


class StopAfter(Watch):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def progress(self, progress: Progress) -> None:
        if progress.phase == "copy" and progress.bytes_done >= self.size:
            self.stop.set()


def stored_ids(place: Place) -> np.ndarray:
    return np.concatenate([table.ids for table in ChunkIndex.load(place.repository, None).tables])


@pytest.mark.slow
@pytest.mark.parametrize(("make", "encryption"), KINDS)
def test_a_stopped_copy_commits_nothing_and_stores_nothing_twice(
    make: Make, encryption: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "PACK_MAX", 8 * MIB)
    tree = noise(tmp_path / "tree", 60)
    source = Place(tmp_path / "source", encryption=encryption)
    take(source, tree)
    target = make(source, tmp_path / "target")
    with pytest.raises(Interrupted):
        run(source, target, watch=StopAfter(1))
    assert load_all(target.repository) == []
    assert len(stored_ids(target)) > 0
    report = run(source, target)
    assert report.counts.plain < 119 * MIB
    ids = stored_ids(target)
    assert len(np.unique(ids, axis=0)) == len(ids)
    assert_restores(target, load_all(target.repository)[0], tree, tmp_path / "out")


def damage(place: Place, snapshot: Snapshot, root: Path) -> None:
    """Flips a bit in the segment that holds the first chunk of a file of the snapshot."""
    chunk = place.rows(snapshot, root)["chunks"].to_pylist()[-1][0]
    where = ChunkIndex.load(place.repository, None).lookup(np.frombuffer(chunk, np.uint8).reshape(1, 32))
    segment = where.segments.take(where.segment)
    pack = place.path / pack_name(where.packs[int(segment.pack[0])])
    data = bytearray(pack.read_bytes())
    data[int(segment.offset[0]) + 100] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)


def test_a_segment_that_does_not_open_fails_the_snapshots_that_need_it(tmp_path: Path) -> None:
    source = Place(tmp_path / "source", chunker=SMALL)
    good, bad = noise(tmp_path / "good", 3, 100 * KIB), tmp_path / "bad"
    first = take(source, good)
    bad.mkdir()
    (bad / "file").write_bytes(random.Random(1).randbytes(500 * KIB))
    second = take(source, bad)
    damage(source, second, bad)
    target = related(source, tmp_path / "target")
    report = run(source, target)
    assert list(report.failed) == [second.id] and "cannot be read" in report.failed[second.id]
    assert [one.id for one, _ in report.copied] == [first.id]
    assert_restores(target, load_all(target.repository)[0], good, tmp_path / "out")
    assert check(target.repository, "data").findings == []


def test_what_does_not_open_in_one_place_is_taken_from_another(tmp_path: Path) -> None:
    tree = noise(tmp_path / "tree", 2, 100 * KIB)
    source = Place(tmp_path / "source", chunker=SMALL)
    snapshot = take(source, tree)
    receipts = [
        source.repository.packs.read_footer(source.repository.store, bytes.fromhex(name[-32:]), size)
        for name, size in source.repository.store.list("packs/")
    ]
    writer = ChunkWriter(source.repository, PackKind.DATA)
    for receipt in receipts:
        if receipt.pack_kind == PackKind.DATA:
            wanted = {row.tobytes() for row in receipt.ids}
            for chunk_id, chunk in readable_chunks(source.repository, receipt, wanted):
                writer.take(chunk_id, chunk)
    damage(source, snapshot, tree)
    save_index(source.repository, writer.finish())
    for make in (related, unrelated):
        target = make(source, tmp_path / make.__name__)
        report = run(source, target)
        assert report.failed == {} and len(report.copied) == 1
        assert_restores(target, load_all(target.repository)[0], tree, tmp_path / f"out-{make.__name__}")


class DyingStore(WrappedStore):
    """The process is killed at its n-th request, before or after the store has done it: nothing gets through again."""

    def __init__(self, inner: Store, requests: int, late: bool) -> None:
        super().__init__(inner)
        self.left = requests
        self._late = late

    def _request(self, act: Callable[[], Any]) -> Any:
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self._late):
            raise Refused("killed", subject="test")
        result = act()
        if self.left == 0:
            raise Refused("killed", subject="test")
        return result

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return bytes(self._request(lambda: self.inner.get(name, offset, length)))

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        self._request(lambda: self.inner.put(name, parts))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        return iter(self._request(lambda: list(self.inner.list(prefix))))

    def size(self, name: str) -> int:
        return int(self._request(lambda: self.inner.size(name)))

    def delete(self, name: str) -> None:
        self._request(lambda: self.inner.delete(name))


@pytest.mark.slow
@pytest.mark.parametrize("side", ["target", "source"])
@pytest.mark.parametrize(("make", "encryption"), KINDS)
def test_killed_at_any_request_nothing_is_lost_and_the_next_copy_finishes(
    make: Make, encryption: str, side: str, tmp_path: Path
) -> None:
    tree = noise(tmp_path / "tree", 6, 300 * KIB)
    source = Place(tmp_path / "source", "inline", encryption=encryption, chunker=SMALL)
    take(source, tree)
    (tree / "more").write_bytes(b"more")
    take(source, tree)
    for late in (False, True):
        for requests in range(1, 1000):
            target = make(source, tmp_path / f"{late}-{requests}")
            mortal = target if side == "target" else source
            whole = mortal.repository.store
            mortal.repository.store = dying = DyingStore(whole, requests, late)
            with contextlib.suppress(Refused):
                run(source, target)
            mortal.repository.store = whole
            assert check(target.repository, "data").findings == []
            run(source, target)
            found = load_all(target.repository)
            assert len(found) == 2 and len({snapshot.original for snapshot in found}) == 2
            assert check(target.repository, "data").findings == []
            shutil.rmtree(target.path)
            if dying.left > 0:
                break
        assert requests > 15


@pytest.mark.parametrize(("make", "encryption"), KINDS)
def test_long_files_keep_their_lists(make: Make, encryption: str, tmp_path: Path) -> None:
    tiny = ChunkerParams(minimum=256, average=1 * KIB, maximum=4 * KIB)
    tree = noise(tmp_path / "tree", 2, 6 * MIB)
    source = Place(tmp_path / "source", encryption=encryption, chunker=tiny)
    before = take(source, tree)
    assert set(source.rows(before, tree)["depth"].to_pylist()) == {0, 1}
    target = make(source, tmp_path / "target")
    run(source, target)
    made = load_all(target.repository)[0]
    ours, theirs = (place.rows(one, tree) for place, one in ((source, before), (target, made)))
    names = ["chunks", "lengths"] if make is unrelated and encryption != "none" else []
    assert theirs.drop_columns(names).equals(ours.drop_columns(names))
    assert_restores(target, made, tree, tmp_path / "out")


def test_what_a_write_only_machine_wrote_is_proved_and_not_believed_in_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks under ids that are not theirs would else be found by the backups of others, and lose their files."""
    tree = noise(tmp_path / "tree", 2)
    source = Place(tmp_path / "source")
    target = related(source, tmp_path / "target")
    honest, whole = take(source, tree), source.repository
    monkeypatch.setenv("LOX_CACHE_DIR", os.fspath(tmp_path / "its-own"))
    source.repository = Repository.open(whole.store, whole.issue_writer("web").encode())
    take(source, tree)
    monkeypatch.setenv("LOX_CACHE_DIR", os.fspath(tmp_path / "cache"))
    source.repository = whole
    (theirs,) = (one for one in load_all(whole) if one.writer)
    proved: list[object] = []
    prove = Unpacker._prove

    def watched(*some: Any) -> Any:
        proved.append(some)
        return prove(*some)

    monkeypatch.setattr(Unpacker, "_prove", watched)
    report = run(source, target, theirs)
    assert report.failed == {} and len(proved) >= report.counts.segments_copied > 0
    (copied,) = load_all(target.repository)
    assert copied.original == (whole.id, theirs.id)
    mine = take(target, tree)
    assert mine.parent is None, "what it says of files is not taken over"
    assert_restores(target, mine, tree, tmp_path / "out")
    assert honest.writer == ""
