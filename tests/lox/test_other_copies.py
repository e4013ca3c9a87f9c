"""A chunk that lies in several packs is read from another one when the first is damaged, and the damage is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.exits import ExitCode
from repository.cache_dir import default_cache_dir
from repository.chunk_writer import ChunkWriter
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, save_index
from repository.pack import HEADER_SIZE, PackKind, pack_name
from repository.reading_index import ReadingIndex
from repository.receipts import Receipts
from repository.repository import Repository
from repository.store import LocalStore
from tests.lox.running import PASSWORD, Shell, spawn

Damage = Callable[[Path], None]


def flipped(path: Path, *at: int) -> None:
    data = bytearray(path.read_bytes())
    for place in at:
        data[place] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def content(path: Path) -> None:
    """A byte of the first segment."""
    flipped(path, HEADER_SIZE + 100)


def header(path: Path) -> None:
    flipped(path, 60)


def cut(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


HARMS: dict[str, Damage] = {"content": content, "header": header, "cut": cut, "missing": lambda path: path.unlink()}


class Twice:
    """A repository all of whose chunks lie in two packs each, as after two backups of the same at the same time."""

    def __init__(self, shell: Shell, tree: Path) -> None:
        self.shell = shell
        shell("backup", tree).ok()
        repository = Repository.open(LocalStore(str(shell.repository)), PASSWORD)
        index = ChunkIndex.load(repository, default_cache_dir())
        fetcher, receipts, made = ChunkFetcher(repository, index), Receipts(index), []
        for row in range(len(index.packs)):
            receipt = receipts.of(row)
            writer = ChunkWriter(repository, PackKind(receipt.pack_kind))
            ids = [one.tobytes() for one in receipt.ids]
            for chunk_id, chunk in zip(ids, fetcher.fetch(ids), strict=True):
                writer.put(chunk_id, chunk)
            made += writer.finish()
        save_index(repository, made)
        self.first, self.second = self._in_order(repository, index.packs, [one.pack_id for one in made])

    @staticmethod
    def _in_order(repository: Repository, *halves: list[bytes]) -> list[list[Path]]:
        """Of data and metadata, the packs that readers look into first, and the others."""
        index = ReadingIndex(repository, default_cache_dir(), lambda error: None)
        ids = np.concatenate([table.ids for table in index.known.tables])
        where = index.lookup(ids)
        used = {where.packs[row] for row in np.unique(where.segments.pack[where.segment]).tolist()}
        folder = Path(repository.store.url.removeprefix("file://"))
        halves = tuple(sorted(halves, key=lambda half: not used & set(half)))
        assert used == set(halves[0]), "the chunks of a pack are found together"
        return [[folder / pack_name(pack) for pack in half] for half in halves]

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.shell.repository))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(3 << 20))
    for number in range(20):
        (folder / f"small{number}").write_bytes(os.urandom(2_000))
    return folder


@pytest.fixture
def twice(shell: Shell, tree: Path) -> Twice:
    return Twice(shell, tree)


def same(tree: Path, target: Path) -> bool:
    below = target / str(tree)[1:]
    return all((below / path.name).read_bytes() == path.read_bytes() for path in tree.iterdir())


@pytest.mark.parametrize("harm", HARMS)
def test_a_restore_reads_another_copy_and_names_what_is_damaged(
    twice: Twice, tree: Path, tmp_path: Path, harm: str
) -> None:
    for path in twice.first:
        HARMS[harm](path)
    outcome = twice.shell("restore", "latest", "--target", tmp_path / "back").ok(ExitCode.DAMAGE_FOUND)
    assert same(tree, tmp_path / "back")
    for path in twice.first:
        (line,) = [line for line in outcome.err.splitlines() if twice.name(path) in line]
        assert "is damaged, other packs had what was wanted of it" in line and "lox check" in line
    assert len(twice.first) == 2, "one of content, one of metadata"


@pytest.mark.slow
@pytest.mark.ray
def test_lanes_in_other_processes_tell_of_it_too(twice: Twice, tree: Path, tmp_path: Path) -> None:
    for path in twice.first:
        content(path)
    target = str(tmp_path / "back")
    done = spawn("restore", "latest", "--executor", "ray", "--target", target, env=dict(os.environ), timeout=240)
    assert done.returncode == ExitCode.DAMAGE_FOUND and same(tree, tmp_path / "back"), done.stderr
    assert all(done.stderr.count(f"lox: {twice.name(path)} is damaged") == 1 for path in twice.first), done.stderr


def test_with_both_copies_damaged_the_files_that_are_lost_are_named(twice: Twice, tree: Path, tmp_path: Path) -> None:
    repository = Repository.open(LocalStore(str(twice.shell.repository)), PASSWORD)
    index = ChunkIndex.load(repository, None)
    data = {
        pack_name(pack)
        for pack, kind in zip(index.packs, index.pack_table["kind"], strict=True)
        if kind == PackKind.DATA
    }
    for path in (*twice.first, *twice.second):
        if twice.name(path) in data:
            content(path)
    rows = twice.shell.json("restore", "latest", "--target", tmp_path / "back", code=ExitCode.DAMAGE_FOUND)
    lost = {row["path"] for row in rows if row["type"] == "problem"}
    whole = {path for path in tree.iterdir() if (tmp_path / "back" / str(path)[1:]).exists()}
    assert lost == {str(path) for path in tree.iterdir() if path not in whole} != set()
    for path in whole:
        assert (tmp_path / "back" / str(path)[1:]).read_bytes() == path.read_bytes()


def test_what_else_reads_does_so_too_and_a_check_finds_the_damage(
    twice: Twice, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOX_FROM_PASSWORD", PASSWORD)
    for path in twice.first:
        content(path)
    shell = twice.shell
    shown = shell("dump", "latest", tree / "small3").ok()
    assert all(twice.name(path) in shown.err for path in twice.first)
    assert f"{tree}/big" in shell("ls", "latest", tree).ok().out
    target = tmp_path / "target"
    shell("--repo", target, "init", "--copy-chunker-from", shell.repository).ok()
    copied = shell("--repo", target, "copy", "--from-repo", shell.repository)
    assert all(twice.name(path) in copied.ok().err for path in twice.first)
    shell("--repo", target, "restore", "latest", "--target", tmp_path / "back").ok()
    assert same(tree, tmp_path / "back")
    found = shell("check", "--read-data").ok(ExitCode.DAMAGE_FOUND)
    assert all(twice.name(path) in found.out + found.err for path in twice.first)
    assert "/big" not in found.out


def test_a_check_that_reads_no_data_follows_a_manifest_elsewhere_and_repair_mends_the_pack(
    twice: Twice, tree: Path
) -> None:
    for half in (twice.first, twice.second):  # which of them a check meets first is chance
        for path in half:
            content(path)
        if twice.shell("check").code == ExitCode.DAMAGE_FOUND:
            break
        for path in half:
            content(path)  # as it was
    found = twice.shell.json("check", code=ExitCode.DAMAGE_FOUND)
    named = {row["object"] for row in found if row["type"] == "finding"}
    assert len(named) == 1 and named < {twice.name(path) for path in half}, "the pack of metadata"
    assert "condemned damaged pack" in twice.shell("repair", "--apply").ok().out
    twice.shell("check").ok()
