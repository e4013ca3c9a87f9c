"""What each shipped profile is for, measured: `default` beside it, real files, real packs."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from model.chunking import KIB, MIB
from pipelines.backup import BackupReport
from pipelines.profile import Profile, chunker_of, load
from repository.store import LocalStore
from repository.store.base import Bytes
from tests.pipelines.helpers import Place
from tests.pipelines.test_profile_runs import back_up

ONE = ["executor.lanes=1"]  # so that no lane's last segment is a matter of luck


def sources(folder: Path, size: int) -> Path:
    """Small files as they are: the text of Python's own library, so many bytes of it."""
    folder.mkdir()
    library = sorted(Path(os.__file__).parent.rglob("*.py"))
    for number, path in enumerate(library):
        if size <= 0:
            break
        data = path.read_bytes()
        (folder / f"{number}.py").write_bytes(data)
        size -= len(data)
    return folder


def report_of(place: Path, profile: Profile, tree: Path, mode: str = "full") -> BackupReport:
    return back_up(Place(place, chunker=chunker_of(profile)), profile, tree, mode=mode)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("slow-wan", 0.05), ("many-small-files", 0.03)])
def test_fewer_bytes_are_sent(name: str, least: float, tmp_path: Path) -> None:
    """A slow line is waited for by the byte: hard compression saves, a little harder saves a little."""
    tree = sources(tmp_path / "tree", 24 * MIB)
    usual = report_of(tmp_path / "usual", load("default", ONE), tree)
    found = report_of(tmp_path / "found", load(name, ONE), tree)
    assert found.bytes_new == pytest.approx(usual.bytes_new, rel=0.01)  # each repository cuts in its own places
    assert found.bytes_stored < (1 - least) * usual.bytes_stored


def test_blocks_that_change_in_place_are_all_that_is_stored_of_an_image(tmp_path: Path) -> None:
    profile, length, rng = load("block-image"), 256 * KIB, random.Random(1)
    image = tmp_path / "tree" / "disk.img"
    image.parent.mkdir()
    image.write_bytes(rng.randbytes(48 * length))
    place = Place(tmp_path / "repository", chunker=chunker_of(profile))
    back_up(place, profile, image.parent)
    with open(image, "r+b") as file:
        for block in (3, 17, 40):  # a sector each, somewhere in its chunk
            file.seek(block * length + rng.randrange(length - 512))
            file.write(rng.randbytes(512))
    report, _ = back_up(place, profile, image.parent)
    assert (report.bytes_read, report.bytes_new) == (48 * length, 3 * length)


def test_a_row_more_in_a_dump_costs_a_chunk_and_not_the_rest_of_it(tmp_path: Path) -> None:
    profile, rng = load("database-stream"), random.Random(2)
    dump = tmp_path / "tree" / "dump.sql"
    dump.parent.mkdir()
    rows = [f"INSERT INTO t VALUES ({number}, '{rng.randbytes(24).hex()}');\n" for number in range(100_000)]
    dump.write_text("".join(rows))
    place = Place(tmp_path / "repository", chunker=chunker_of(profile))
    back_up(place, profile, dump.parent)
    rows.insert(5_000, "INSERT INTO t VALUES (-1, 'early');\n")
    dump.write_text("".join(rows))
    report, _ = back_up(place, profile, dump.parent)
    assert report.bytes_read > 7 * MIB and 0 < report.bytes_new < 512 * KIB


class Slow(LocalStore):
    """A store with some delay that knows how many packs were on their way at once."""

    most = now = 0
    lock = threading.Lock()

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        with self.lock:
            self.now += name.startswith("packs/")
            self.most = max(self.most, self.now)
        time.sleep(0.1)
        super().put(name, parts)
        with self.lock:
            self.now -= name.startswith("packs/")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least", "most"), [("default", 2, 2), ("fileserver-large", 4, 4), ("slow-wan", 5, 8)])
def test_as_many_packs_are_on_their_way_as_the_profile_says(name: str, least: int, most: int, tmp_path: Path) -> None:
    """What waits for a far store must not keep the rest waiting."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(24):
        (tree / f"{number}").write_bytes(random.Random(number).randbytes(MIB))
    store = Slow(str(tmp_path / "repository"))
    small = ["stages.encrypt.pack_size=1MiB", "stages.compress.segment=256KiB", "stages.compress.level=1", *ONE]
    back_up(Place(tmp_path, store=store), load(name, small), tree)
    assert least <= store.most <= most  # how many of several lanes have a pack at once is a matter of time


@pytest.mark.parametrize(("name", "strands"), [("default", 1), ("slow-wan", 2), ("debug-unfused", 7)])
def test_stages_are_seen_alone_where_the_profile_cuts(name: str, strands: int, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(random.Random(3).randbytes(MIB))
    trace = report_of(tmp_path / "repository", load(name, ONE), tree).trace
    assert len({line.strand for line in trace.stages if line.name not in ("scan", "commit")}) == strands
