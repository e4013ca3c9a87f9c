from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.entries import STAT, Fresh, Paths, order_key
from model.errors import Damaged, RunFailed
from repository import entry_table, manifest
from repository.diff import ChangeKind, diff
from repository.entry_checks import order_fault, path_fault
from repository.entry_rows import INCOMPLETE, fresh_table
from repository.entry_table import CHUNKS_INLINE, ENTRY_SCHEMA, ChunkLists
from repository.manifest import ManifestWriter
from repository.manifest_reader import ManifestReader
from repository.manifest_root import ManifestRoot
from repository.part_codec import PartRef, decode_part, decode_parts, encode_part, encode_parts
from tests.repository.damage import damaged
from tests.repository.samples import FILE, random_ids, table_of

names = st.sampled_from([b"a", b"b", b"a.b", b"a-", b"\x01", b"\xff", b"..a", b"Z", b"0"])
found_paths = st.lists(names, max_size=4).map(b"/".join)
any_paths = st.lists(st.sampled_from([b"a", b".", b"..", b"", b"\0", b"b/"]), max_size=4).map(b"/".join)
trees = st.dictionaries(found_paths, st.one_of(st.none(), st.binary(max_size=300)), min_size=1, max_size=40)


class Chunks(dict[bytes, bytes]):
    """Chunks in a dictionary instead of packs."""

    def store(self, plain: bytes) -> bytes:
        name = hashlib.sha256(plain).digest()
        self[name] = plain
        return name

    def fetch(self, ids: Sequence[bytes]) -> list[bytes]:
        return [self[chunk_id] for chunk_id in ids]

    def reader(self, root: ManifestRoot) -> ManifestReader:
        return ManifestReader(root, self.fetch)


def written(table: pa.Table, batches: Sequence[int] = (), borders: Sequence[int] = ()) -> tuple[Chunks, ManifestRoot]:
    """`table` written in batches that end at the given rows."""
    chunks = Chunks()
    writer = ManifestWriter(chunks.store)
    at = 0
    for end in [*sorted(end for end in batches if end < table.num_rows), table.num_rows]:
        writer.add(table.slice(at, end - at), [border - at for border in borders if at <= border < end])
        at = end
    return chunks, writer.finish()


Xattrs = dict[int, list[tuple[bytes, bytes]]]


def many(count: int, prefix: bytes = b"d", chunks: int = 1, xattrs: Xattrs | None = None) -> pa.Table:
    """`count` files of `chunks` chunks each, 50 to a directory."""
    stat = np.zeros(count, STAT)
    stat["mode"], stat["size"] = FILE, 7 * chunks
    paths = Paths.of([prefix + b"%05d/f%02d" % divmod(number, 50) for number in range(count)])
    lists = ChunkLists.of_rows(
        count,
        np.repeat(np.arange(count, dtype=np.int32), chunks),
        random_ids(count * chunks),
        np.full(count * chunks, 7, np.uint32),
    )
    fresh = Fresh(paths, stat, np.zeros(count, np.uint32), np.zeros(count, bool), xattrs=xattrs or {})
    return fresh_table(fresh, lists)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PART_ROWS_MIN", 8)
    monkeypatch.setattr(manifest, "PART_ROWS_MAX", 32)
    monkeypatch.setattr(manifest, "PART_WEIGHT_MAX", 6000)


@given(st.lists(found_paths, max_size=12))
def test_order_is_that_of_the_order_key(items: list[bytes]) -> None:
    rising = all(order_key(one) < order_key(other) for one, other in pairwise(items))
    assert (order_fault(Paths.of(items), None) is None) == rising
    assert order_fault(Paths.of(sorted(set(items), key=order_key)), None) is None


@given(st.lists(st.one_of(any_paths, found_paths), max_size=6))
def test_impossible_paths_are_found(items: list[bytes]) -> None:
    def possible(path: bytes) -> bool:
        return not path or (b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/")))

    assert (path_fault(Paths.of(items)) is None) == all(map(possible, items))


@given(tree=trees, batches=st.lists(st.integers(1, 40), max_size=4))
@settings(max_examples=50)
def test_what_was_written_is_read(tree: dict[bytes, bytes | None], batches: list[int]) -> None:
    table = table_of(tree)
    chunks, root = written(table, batches)
    read = pa.concat_tables(chunks.reader(root).tables())
    assert read.equals(table)
    assert root.rows == len(tree)


@given(batches=st.lists(st.integers(1, 400), max_size=6), xattrs=st.sets(st.integers(0, 399), max_size=9))
@settings(max_examples=40)
def test_parts_do_not_depend_on_batches(batches: list[int], xattrs: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "PART_ROWS_MIN", 8)
        patch.setattr(manifest, "PART_ROWS_MAX", 32)
        patch.setattr(manifest, "PART_WEIGHT_MAX", 6000)
        table = many(400, xattrs={row: [(b"user.n%d" % row, b"v")] * (row % 3) for row in xattrs})
        borders = [row for row in range(0, 400, 50) if row % 3]
        assert written(table, batches, borders) == written(table, [], borders)


@pytest.mark.usefixtures("small_parts")
def test_a_change_costs_the_part_around_it() -> None:
    table = many(400)
    borders = list(range(0, 400, 50))
    before, old = written(table, borders=borders)
    added = pa.concat_tables([table.slice(0, 120), table_of({b"d00002/f19x": b""}), table.slice(120)])
    after, new = written(added, borders=[border + (border > 120) for border in borders])
    assert len(after.keys() - before.keys()) <= 4  # the part, its neighbours in the directory, the table of parts
    changes = list(diff(before.reader(old), after.reader(new)))
    assert [(change.path, change.kind) for change in changes] == [(b"d00002/f19x", ChangeKind.ADDED)]


def test_heavy_rows_make_small_parts() -> None:
    chunks, root = written(many(200, chunks=2000))
    assert max(part.length for part in chunks.reader(root).parts) < 4 << 20
    assert root.parts > 3


def test_a_row_heavier_than_a_part_is_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PART_WEIGHT_MAX", 100)
    chunks, root = written(many(5))
    assert [part.rows for part in chunks.reader(root).parts] == [1] * 5


def test_an_empty_manifest_reads_as_no_rows() -> None:
    chunks = Chunks()
    root = ManifestWriter(chunks.store).finish()
    assert list(chunks.reader(root).tables()) == []
    assert chunks.reader(root).find(b"a") is None


def test_the_table_of_parts_may_take_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "TABLE_ROWS", 2)
    monkeypatch.setattr(manifest, "PART_ROWS_MAX", 10)
    chunks, root = written(many(45))
    assert len(root.chunks) == 3
    assert sum(table.num_rows for table in chunks.reader(root)) == 45


def test_rows_out_of_order_are_never_written() -> None:
    writer = ManifestWriter(Chunks().store)
    writer.add(many(5, b"e"))
    writer.add(many(5, b"d"))
    with pytest.raises(RunFailed, match="out of order"):
        writer.finish()


@given(tree=trees, path=found_paths)
@settings(max_examples=60)
def test_a_subtree_is_what_lies_at_or_below(tree: dict[bytes, bytes | None], path: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "PART_ROWS_MAX", 3)
        chunks, root = written(table_of(tree))
    reader = chunks.reader(root)
    ordered = sorted(tree, key=order_key)
    below = [name for name in ordered if name == path or name.startswith(path + b"/") or not path]
    inside = [name for name in ordered if name and name.rpartition(b"/")[0] == path]
    assert [name for table in reader.subtree(path) for name in table["path"].to_pylist()] == below
    assert [name for table in reader.children(path) for name in table["path"].to_pylist()] == inside
    found = reader.find(path)
    assert (found is not None) == (path in tree)
    assert found is None or found["path"][0].as_py() == path


def test_fresh_rows_keep_all_they_have() -> None:
    stat = np.zeros(3, STAT)
    stat["mode"], stat["size"] = [0o120777, FILE, FILE], [5, 1000, 10]
    stat["mtime"], stat["ino"], stat["flags"] = -5, 1 << 63, 0xF0000010
    fresh = Fresh(
        Paths.of([b"a\xff", b"b\n", b"c"]),
        stat,
        np.array([1, 2, 3], np.uint32),
        np.zeros(3, bool),
        targets={0: b"../\xfe"},
        xattrs={1: [(b"user.x", b"\0\xff"), (b"user.y", b"")]},
        extents={1: np.array([[0, 7], [500, 7]])},
        problems={2: "changed while reading"},
    )
    lists = ChunkLists.of_rows(3, np.array([1, 1, 2], np.int32), random_ids(3), np.array([7, 7, 4], np.uint32))
    link, sparse, changed = fresh_table(fresh, lists).to_pylist()
    assert (link["path"], link["target"], link["chunks"]) == (b"a\xff", b"../\xfe", [])
    assert (sparse["extents"][1], sparse["lengths"]) == ({"offset": 500, "length": 7}, [7, 7])
    assert sparse["xattrs"][0] == {"name": b"user.x", "value": b"\0\xff"}
    assert (changed["problem"], changed["lengths"]) == (b"changed while reading", [4])
    assert (changed["mtime"], changed["ino"], changed["flags"], changed["user"]) == (-5, 1 << 63, 0x10, b"root")


def test_a_file_with_less_content_than_it_should_have_is_marked() -> None:
    stat = np.zeros(1, STAT)
    stat["mode"], stat["size"] = FILE, 100
    fresh = Fresh(Paths.of([b"a"]), stat, np.zeros(1, np.uint32), np.zeros(1, bool))
    none = ChunkLists.of_rows(1, np.zeros(0, np.int32), random_ids(0), np.zeros(0, np.uint32))
    assert fresh_table(fresh, none)["problem"].to_pylist() == [INCOMPLETE.encode()]


def test_replaced_rows_take_their_place() -> None:
    ids = random_ids(6)
    length = np.arange(1, 7, dtype=np.uint32)
    lists = ChunkLists.of_rows(4, np.array([0, 0, 2, 3], np.int32), ids[:4], length[:4])
    settled = lists.with_row(1, ids[4:], length[4:]).with_row(2, ids[:0], length[:0]).settled()
    assert settled.offsets.tolist() == [0, 2, 4, 4, 5]
    assert settled.length.tolist() == [1, 2, 5, 6, 4]
    assert settled.row(1)[0].tolist() == ids[4:].tolist()


def test_long_files_name_lists_of_chunks() -> None:
    count = CHUNKS_INLINE * 10
    chunks, ids = Chunks(), random_ids(count)
    stat = np.zeros(1, STAT)
    stat["mode"], stat["size"] = FILE, 9 * count
    fresh = Fresh(Paths.of([b"big"]), stat, np.zeros(1, np.uint32), np.zeros(1, bool))
    length = np.full(count, 9, np.uint32)
    lists = ChunkLists.of_rows(1, np.zeros(count, np.int32), ids, length).deepened(chunks.store)
    assert len(lists.ids) < count / 1000
    writer = ManifestWriter(chunks.store)
    writer.add(fresh_table(fresh, lists))
    reader = chunks.reader(writer.finish())
    content = reader.content(reader.part(0))
    assert (content.ids == ids).all()
    assert (content.length == length).all()
    before = set(chunks)
    ids[count // 2] ^= 1
    ChunkLists.of_rows(1, np.zeros(count, np.int32), ids, length).deepened(chunks.store)
    assert len(chunks.keys() - before) <= 2


def test_short_files_name_their_chunks() -> None:
    lists = ChunkLists.of_rows(1, np.zeros(9, np.int32), random_ids(9), np.ones(9, np.uint32))
    assert lists.deepened(Chunks().store) is lists


# Hostile manifests: everything here is authentic, written by someone who holds the key.

PART = table_of({b"a": b"x" * 250, b"a/b": None, b"a/b/c": b"y"})
PLAIN = encode_part(PART)
REF = PartRef(bytes(32), len(PLAIN), PART.num_rows, b"a", b"a/b/c")


def rejected(table: pa.Table, match: str = "") -> None:
    paths = table["path"].to_pylist()
    ref = PartRef(bytes(32), 1, table.num_rows, paths[0], paths[-1])
    with pytest.raises(Damaged, match=match):
        decode_part(encode_part(table), ref, "part")


def changed(name: str, values: list[object]) -> pa.Table:
    field = ENTRY_SCHEMA.field(name)
    return PART.set_column(ENTRY_SCHEMA.get_field_index(name), field, pa.array(values, field.type))


@given(damaged(PLAIN))
@settings(max_examples=300)
def test_damaged_parts_give_an_error_or_possible_entries(data: bytes) -> None:
    try:
        table = decode_part(data, REF, "part")
    except Damaged:
        return
    table.validate(full=True)
    assert path_fault(entry_table.paths_of(table["path"])) is None


@given(damaged(encode_parts([REF, replace(REF, first=b"b", last=b"b/c")])))
@settings(max_examples=200)
def test_damaged_tables_of_parts_give_an_error_or_parts_in_order(data: bytes) -> None:
    try:
        parts = decode_parts(data, "parts")
    except Damaged:
        return
    assert all(0 < part.rows <= 16384 for part in parts)


def test_impossible_entries_are_refused() -> None:
    rejected(changed("path", [b"a", b"../b", b"z"]), "impossible part")
    rejected(changed("path", [b"a", b"/b", b"z"]), "impossible part")
    rejected(changed("path", [b"b", b"a", b"z"]), "sorts before")
    rejected(changed("path", [b"b", b"b", b"z"]), "sorts before")
    rejected(changed("kind", [2, 1, 0]), "contradicts")
    rejected(changed("size", [-1, 0, 1]), "negative")
    rejected(changed("size", [251, 0, 1]), "add up")
    rejected(changed("depth", [0, 0, 2]), "nest")
    rejected(changed("lengths", [[100, 150], [], [1]]), "without lengths")
    rejected(changed("target", [None, b"a\0b", None]), "NUL")
    rejected(changed("xattrs", [[{"name": b"", "value": b""}], None, None]), "extended attribute")
    rejected(changed("extents", [[{"offset": 200, "length": 250}], None, None]), "extents")


def test_parts_in_other_shapes_are_refused() -> None:
    for table in (
        PART.drop_columns(["mode"]),
        PART.append_column("more", pa.array([1, 2, 3])),
        PART.set_column(1, "kind", pa.array([0, 1, 0], pa.int32())),
        PART.set_column(0, "path", PART["path"].dictionary_encode()),
    ):
        rejected(table, "columns")
    rejected(PART.set_column(1, pa.field("kind", pa.uint8(), False), pa.array([0, None, 0], pa.uint8())), "no kind")


def test_compressed_parts_are_refused_before_they_grow() -> None:
    for codec in ("zstd", "lz4"):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, ENTRY_SCHEMA, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            writer.write_table(PART)
        with pytest.raises(Damaged, match="plain record batch"):
            decode_part(sink.getvalue().to_pybytes(), REF, "part")


def test_a_second_batch_is_refused() -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, ENTRY_SCHEMA) as writer:
        writer.write_table(PART.slice(0, 2))
        writer.write_table(PART.slice(2))
    with pytest.raises(Damaged, match="plain record batch"):
        decode_part(sink.getvalue().to_pybytes(), REF, "part")


def test_roots_that_contradict_their_parts_are_refused() -> None:
    chunks, root = written(many(10))
    for wrong in (
        root._replace(rows=root.rows + 1),
        root._replace(parts=2),
        root._replace(parts=1 << 40),
        root._replace(lengths=(root.lengths[0] + 1,)),
        root._replace(chunks=root.chunks * 2, lengths=root.lengths * 2, parts=2, rows=20),
    ):
        with pytest.raises(Damaged):
            chunks.reader(wrong)


def test_hostile_lists_of_long_files_are_refused() -> None:
    chunks = Chunks()
    for content, size in ((b"x" * 35, 35), (b"x" * 36, 5), (random_ids(1).tobytes() + b"\xff" * 4, 0xFFFFFFFF)):
        name = np.frombuffer(chunks.store(content), np.uint8).reshape(1, 32)
        stat = np.zeros(1, STAT)
        stat["mode"], stat["size"] = FILE, size
        fresh = Fresh(Paths.of([b"big"]), stat, np.zeros(1, np.uint32), np.zeros(1, bool))
        lists = ChunkLists(np.array([0, 1], np.int32), name, np.array([len(content)], np.uint32), np.ones(1, np.uint8))
        writer = ManifestWriter(chunks.store)
        writer.add(fresh_table(fresh, lists))
        reader = chunks.reader(writer.finish())
        with pytest.raises(Damaged):
            reader.content(reader.part(0))
