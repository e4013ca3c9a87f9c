from __future__ import annotations

import pytest
from hypothesis import given, settings

from model.errors import NotFound, UsageError
from repository.diff import Change, ChangeKind, diff
from repository.index import ChunkIndex
from repository.query import find, ls, matcher, stats
from tests.repository.samples import CHUNK, back_up, new_repository, reader_of, table_of
from tests.repository.test_manifest import trees, written

TREE = {
    b"": None,
    b"etc": None,
    b"etc/hosts": b"h" * 250,
    b"etc/ssl": None,
    b"etc/ssl/key.pem": b"k",
    b"var": None,
    b"var/a.log": b"",
}


def test_ls_lists_a_folder_or_what_is_below() -> None:
    repository = new_repository()
    reader = reader_of(repository, back_up(repository, TREE))
    assert [entry.path for entry in ls(reader)] == [b"etc", b"var"]
    assert [entry.path for entry in ls(reader, b"/etc/")] == [b"etc/hosts", b"etc/ssl"]
    assert [entry.path for entry in ls(reader, b"etc", recursive=True)] == [
        b"etc/hosts",
        b"etc/ssl",
        b"etc/ssl/key.pem",
    ]
    (hosts,) = ls(reader, b"etc/hosts")
    assert (hosts.size, hosts.mode & 0o777) == (250, 0o644)
    with pytest.raises(NotFound):
        list(ls(reader, b"nope"))


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        (b"*.log", [b"a.log", b"x/a.log", b".log"], [b"a.log/b", b"a.logs"]),
        (b"hosts", [b"hosts", b"etc/hosts"], [b"hosts/a", b"xhosts"]),
        (b"etc/*", [b"etc/a"], [b"etc", b"etc/a/b", b"x/etc/a"]),
        (b"/etc/**", [b"etc/a", b"etc/a/b"], [b"x/etc/a"]),
        (b"/etc/**/*.conf", [b"etc/a.conf", b"etc/x/a.conf", b"etc/x/y/a.conf"], [b"etc.conf", b"x/etc/a.conf"]),
        (b"**/x/**/y", [b"x/y", b"a/x/y", b"a/x/b/c/y"], [b"xy", b"ax/y", b"x/ay"]),
        (b"a**b/**", [b"ab/c", b"a/x/b/c/d"], [b"ab", b"b/c"]),
        (b"[[]a][*]/x", [b"[a]*/x"], [b"a/x", b"[a]b/x"]),
        (b"[!a]?", [b"bc", b"x/b\xff"], [b"ab", b"b", b"b/c"]),
        (b"[]]", [b"]"], [b"a"]),
        (b"[", [b"["], [b"a"]),
        (b"a[^b]c", [b"adc"], [b"abc", b"a/c"]),
        (b"\xff\n*", [b"\xff\nx"], [b"x"]),
        (b"a.b", [b"a.b"], [b"axb"]),
    ],
)
def test_patterns(pattern: bytes, matches: list[bytes], others: list[bytes]) -> None:
    wanted = matcher([pattern])
    assert [path for path in [*matches, *others] if wanted.match(path)] == matches


def test_no_pattern_matches_nothing_and_a_bad_one_is_refused() -> None:
    assert not matcher([]).match(b"")
    with pytest.raises(UsageError):
        matcher([b"[z-a]"])


def test_find_looks_into_every_snapshot() -> None:
    repository = new_repository()
    snapshots = [back_up(repository, TREE), back_up(repository, {**TREE, b"var/b.log": b"1"})]
    found = find([(snapshot, reader_of(repository, snapshot)) for snapshot in snapshots], [b"*.log", b"hosts"])
    assert [(snapshot.id, entry.path) for snapshot, entry in found] == [
        (snapshots[0].id, b"etc/hosts"),
        (snapshots[0].id, b"var/a.log"),
        (snapshots[1].id, b"etc/hosts"),
        (snapshots[1].id, b"var/a.log"),
        (snapshots[1].id, b"var/b.log"),
    ]


@given(old=trees, new=trees)
@settings(max_examples=60, deadline=None)
def test_diff_is_what_comparing_dictionaries_says(old: dict, new: dict) -> None:  # type: ignore[type-arg]
    (before, old_root), (after, new_root) = written(table_of(old)), written(table_of(new))
    changes = {change.path: change for change in diff(before.reader(old_root), after.reader(new_root))}
    for path in old.keys() | new.keys():
        kind = changes[path].kind if path in changes else None
        if path not in old:
            assert kind is ChangeKind.ADDED
        elif path not in new:
            assert kind is ChangeKind.REMOVED
        elif (old[path] is None) != (new[path] is None):
            assert kind is ChangeKind.TYPE
        elif len(old[path] or b"") != len(new[path] or b""):
            assert kind is ChangeKind.CONTENT


def test_diff_tells_how_entries_changed() -> None:
    repository = new_repository()
    first = back_up(repository, TREE)
    second = back_up(repository, TREE | {b"etc/hosts": b"H" * 250, b"etc/ssl": b"file"})
    changes = list(diff(reader_of(repository, first), reader_of(repository, second)))
    assert changes == [
        Change(b"etc/hosts", ChangeKind.CONTENT, 250, 250),
        Change(b"etc/ssl", ChangeKind.TYPE, 4096, 4),
    ]
    assert list(diff(reader_of(repository, first), reader_of(repository, first))) == []


def test_stats_count_content_once_and_in_all() -> None:
    repository = new_repository(encrypted=False)
    snapshots = [back_up(repository, TREE), back_up(repository, TREE | {b"new": b"n" * 2 * CHUNK})]
    readers = [reader_of(repository, snapshot) for snapshot in snapshots]
    found = stats(repository, ChunkIndex.load(repository, None), readers)
    assert (found.snapshots, found.files, found.entries) == (2, 7, 15)
    assert found.logical == 2 * 251 + 2 * CHUNK
    assert found.unique == CHUNK + 50 + 1 + CHUNK  # repeated chunks count once
    assert found.stored == sum(size for _, size in repository.store.list())
    assert found.metadata > 0
