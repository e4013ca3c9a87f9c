"""What is unchanged is carried over from the parent, unopened; whatever may have changed is read again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.entries import STAT, Bool, Paths, order_key
from model.errors import Damaged
from sources.files.parent import RACY, Parent, ParentCursor
from tests.sources.harness import Opens, contents, fresh_paths, on_disk, parent_of, paths_of, read, scan


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for directory in ("a", "b/deep"):
        (tmp_path / directory).mkdir(parents=True)
    for name in ("a/one", "a/two", "b/three", "b/deep/four"):
        (tmp_path / name).write_bytes(name.encode())
    os.symlink("one", tmp_path / "a/link")
    return tmp_path


def edit(path: Path, change: Callable[[Path], object]) -> None:
    """Change something about a file, later than its last change by the clock of the file system."""
    time.sleep(0.02)
    change(path)


def test_nothing_is_opened_if_nothing_changed(tree: Path) -> None:
    parent = parent_of(tree)
    opens = Opens(tree / "a", tree / "b", tree / "b/deep")  # type: ignore[arg-type]
    try:
        listings, scanner = scan(tree, parent=parent)
        read(tree, listings)
        assert opens.names() == []
        os.close(os.open(tree / "a/one", os.O_RDONLY))
        assert opens.names() == [b"one"], "the observer sees"
    finally:
        opens.close()
    assert fresh_paths(listings) == [] and len(paths_of(listings)) == 8
    assert scanner.stats.files_unchanged == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"other length"),
        lambda path: path.write_bytes(path.read_bytes()[::-1]),
        lambda path: path.chmod(0o600),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: os.link(path, path.with_suffix(".link")),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_changed_file_is_fresh(tree: Path, change: Callable[[Path], object]) -> None:
    parent = parent_of(tree)
    edit(tree / "a/one", change)
    fresh = fresh_paths(scan(tree, parent=parent)[0])
    assert b"a/one" in fresh and b"a/two" not in fresh and b"b/deep/four" not in fresh


def test_a_change_that_hides_its_mtime_is_found_by_its_ctime(tree: Path) -> None:
    parent = parent_of(tree)
    before = os.stat(tree / "a/one")

    def secretly(path: Path) -> None:
        path.write_bytes(path.read_bytes()[::-1])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    edit(tree / "a/one", secretly)
    assert fresh_paths(scan(tree, parent=parent)[0]) == [b"a/one"]


def test_another_file_of_the_same_size_and_times_is_found_by_its_inode() -> None:
    stat = np.zeros(2, dtype=STAT)
    stat["mode"], stat["ino"] = 0o100644, [7, 8]
    assert match(stat, ino=[7, 9]) == [0]


def test_the_device_number_is_no_change() -> None:
    stat = np.zeros(2, dtype=STAT)
    stat["mode"], stat["dev"] = 0o100644, [7, 8]
    assert match(stat, ino=[0, 0]) == [0, 1]


def match(stat: np.ndarray, ino: list[int]) -> list[int]:
    """Rows of files 0, 1... that are carried from a parent that differs in its inode numbers only."""
    names = [b"%d" % number for number in range(len(stat))]
    zeros = [0] * len(stat)
    table = pa.table(
        {
            "path": pa.array(names, pa.binary()),
            "kind": pa.array(zeros, pa.uint8()),
            **{name: pa.array(zeros, pa.int64()) for name in ("size", "mtime", "ctime")},
            "ino": pa.array(ino, pa.uint64()),
            "problem": pa.nulls(len(stat), pa.binary()),
        }
    )
    cursor = ParentCursor(Parent(iter([table]), RACY + 1, lambda rows: np.ones(len(rows), dtype=bool)))
    rows: list[int] = cursor.match(Paths.of(names), stat).carried_at.tolist()
    return rows


def test_a_change_in_the_moment_of_the_parents_backup_is_not_missed(tree: Path) -> None:
    ctime = os.stat(tree / "a/one").st_ctime_ns
    assert b"a/one" in fresh_paths(scan(tree, parent=parent_of(tree, started=ctime + RACY))[0])
    assert b"a/one" not in fresh_paths(scan(tree, parent=parent_of(tree, started=ctime + RACY + 1))[0])


def test_a_file_with_a_problem_is_read_again(tree: Path) -> None:
    parent = parent_of(tree)
    table = pa.concat_tables(parent.tables)
    row = table["path"].to_pylist().index(b"a/one")
    problem = pa.array([b"input/output error" if at == row else None for at in range(len(table))], pa.binary())
    table = table.set_column(table.schema.get_field_index("problem"), "problem", problem)
    assert fresh_paths(scan(tree, parent=Parent(iter([table]), parent.started, parent.carry_ok))[0]) == [b"a/one"]


def test_content_that_is_no_longer_stored_is_read_again(tree: Path) -> None:
    def carry_ok(table: pa.Table) -> Bool:
        return np.array([path != b"b/three" for path in table["path"].to_pylist()])

    listings, _ = scan(tree, parent=parent_of(tree, carry_ok=carry_ok))
    assert fresh_paths(listings) == [b"b/three"] and len(paths_of(listings)) == 8
    assert contents(read(tree, listings)) == {b"b/three": b"b/three"}


def test_a_damaged_parent_is_no_reason_to_fail(tree: Path) -> None:
    parent = parent_of(tree, rows_per_table=3)

    def damaged() -> Iterator[pa.Table]:
        yield next(parent.tables)
        raise Damaged("a part of the manifest is damaged")

    listings, scanner = scan(tree, parent=Parent(damaged(), parent.started, parent.carry_ok))
    assert paths_of(listings) == on_disk(tree)
    assert fresh_paths(listings) == on_disk(tree)[3:]
    assert isinstance(scanner.stats.parent_trouble, Damaged)


def test_rows_of_new_and_old_entries_keep_their_order(tree: Path) -> None:
    parent = parent_of(tree, rows_per_table=2)
    for name in ("a/0", "a/onf", "b/deep/zzz", "zz"):
        (tree / name).touch()
    (tree / "a/two").unlink()
    listings, scanner = scan(tree, parent=parent)
    found = paths_of(listings)
    assert found == sorted(found, key=order_key) and len(found) == 11
    assert set(fresh_paths(listings)) == {b"a", b"b/deep", b"a/0", b"a/onf", b"b/deep/zzz", b"zz"}
    assert scanner.stats.gone == 1


def test_carried_rows_get_the_device_numbers_of_this_run(tree: Path) -> None:
    parent = parent_of(tree)
    table = pa.concat_tables(parent.tables)
    column = table.schema.get_field_index("device")
    moved = table.set_column(column, table.schema.field(column), [pa.array([5] * len(table), pa.uint32())])
    carried = scan(tree, parent=Parent(iter([moved]), parent.started, parent.carry_ok))[0][0].carried
    assert carried is not None and carried["device"].to_pylist() == [0] * 8
    assert carried.schema.equals(table.schema)


PATHS = st.lists(st.tuples(st.sampled_from(b"abcd/"), st.integers(0, 60)).map(lambda pair: b"%c%d" % pair), unique=True)


@given(now=PATHS, then=PATHS, changed=st.sets(st.integers(0, 60)), step=st.integers(1, 7), batch=st.integers(1, 9))
def test_any_rows_in_any_windows_match_as_they_should(
    now: list[bytes], then: list[bytes], changed: set[int], step: int, batch: int
) -> None:
    now, then = (sorted({path.strip(b"/") for path in paths}, key=order_key) for paths in (now, then))
    size = {path: 1 if number in changed else 0 for number, path in enumerate(then)}
    whole = pa.table(
        {
            "path": pa.array(then, pa.binary()),
            "kind": pa.array([0] * len(then), pa.uint8()),
            "size": pa.array([size[path] for path in then], pa.int64()),
            "mtime": pa.array([0] * len(then), pa.int64()),
            "ctime": pa.array([0] * len(then), pa.int64()),
            "ino": pa.array([0] * len(then), pa.uint64()),
            "problem": pa.nulls(len(then), pa.binary()),
        }
    )
    windows = (whole.slice(at, step) for at in range(0, len(then), step))
    cursor = ParentCursor(Parent(windows, RACY + 1, lambda rows: np.ones(len(rows), dtype=bool)))
    carried: list[bytes] = []
    known: list[bytes] = []
    gone = 0
    for at in range(0, len(now), batch):
        rows = now[at : at + batch]
        stat = np.zeros(len(rows), dtype=STAT)
        stat["mode"] = 0o100644
        matches = cursor.match(Paths.of(rows), stat)
        names = [] if matches.carried is None else matches.carried["path"].to_pylist()
        assert names == [rows[row] for row in matches.carried_at.tolist()]
        carried += names
        known += [path for path, flag in zip(rows, matches.known.tolist(), strict=True) if flag]
        gone += matches.gone
    assert known == [path for path in now if path in size]
    assert carried == [path for path in known if size[path] == 0]
    assert gone + cursor.left() == len(set(then) - set(now))
