"""A large file is cut the same by any number of lanes, in any order, with or without a helpful neighbour."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

import kernels
from model.batches import BODY_MAX, OVERREAD, Chunked, Listing
from model.chunking import MIB, WINDOW, ChunkerParams
from repository.repository import Repository
from repository.store import MemoryStore
from runtime.stage import Context, NeverStop
from sources.files.read import read_listing
from sources.files.scan import Scanner
from stages import chunk
from stages.access import RepositoryAccess
from stages.chunk import Chunker
from stages.ledger import CutLedger

SMALL = ChunkerParams(minimum=4096, average=64 << 10, maximum=1 * MIB)


def content(kind: str) -> bytes:
    rng = random.Random(kind)
    if kind == "noise":
        return rng.randbytes(3 * BODY_MAX + 777)
    if kind == "zeros":  # no cut points at all: chunks as long as they may be, across the borders of pieces
        return bytes(3 * BODY_MAX + 5)
    border = BODY_MAX - 300_000
    return rng.randbytes(border) + bytes(900_000) + rng.randbytes(BODY_MAX) + bytes(2 * MIB) + rng.randbytes(BODY_MAX)


def opened(ledger: CutLedger) -> Chunker:
    repository, _ = Repository.init(MemoryStore(), None, SMALL, encryption="none")
    stage = Chunker(RepositoryAccess(repository))
    stage.open(Context({"ledger": ledger}, 0, "test-0#1", NeverStop()))
    return stage


def cut(stage: Chunker, listing: Listing) -> list[int]:
    root = os.open("/", os.O_RDONLY)
    body = bytearray(BODY_MAX + OVERREAD + WINDOW)
    (chunked,) = stage.push(read_listing(root, listing, body))
    os.close(root)
    lengths: list[int] = chunked.length.tolist()
    return lengths


@pytest.mark.parametrize("kind", ["noise", "zeros", "mixed"])
@pytest.mark.parametrize("order", ["in turn", "backwards"])
def test_pieces_are_cut_as_the_whole(kind: str, order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "PATIENCE", 0.0)
    data = content(kind)
    (tmp_path / "file").write_bytes(data)
    pieces = [listing for listing in Scanner([os.fsencode(tmp_path / "file")]) if listing.piece is not None]
    assert len(pieces) == -(-len(data) // BODY_MAX)
    stage = opened(CutLedger())
    turn = pieces if order == "in turn" else pieces[::-1]
    lengths = {listing.piece.index: cut(stage, listing) for listing in turn if listing.piece is not None}
    found = [length for index in sorted(lengths) for length in lengths[index]]
    table = kernels.gear_table(kernels.PUBLIC_KEY)
    whole, _ = kernels.cut_files(data, np.zeros(1, np.int64), np.array([len(data)]), table, SMALL)
    assert found == np.diff(whole, prepend=0).tolist()


def test_the_ledger_forgets_old_pieces_and_never_lies() -> None:
    ledger = CutLedger()
    for index in range(10_000):
        ledger.publish(7, index, index * 10)
    assert ledger.start_of(7, 9_999) == 99_990
    assert ledger.start_of(7, 5) == -1
    assert ledger.latest_before(7, 20_000) == (9_999, 99_990)
    assert ledger.latest_before(7, 3) == (0, 0)
    assert ledger.start_of(8, 0) == 0


def test_pieces_given_out_again_find_what_the_ledger_knew() -> None:
    ledger = CutLedger()
    for index in range(4096):
        ledger.publish(7, index, index * 10)
    assert ledger.start_of(7, 1) == 10  # as many as can wait for an acknowledgement, and be replayed
    for file in range(10_000):
        ledger.publish(file, 1, 5)
    assert ledger.start_of(0, 1) == -1  # but not every file there ever was
    assert ledger.start_of(9_999, 1) == 5


def pieces_of(path: Path) -> list[Listing]:
    return [listing for listing in Scanner([os.fsencode(path)]) if listing.piece is not None]


def push(stage: Chunker, listing: Listing) -> Chunked:
    root = os.open("/", os.O_RDONLY)
    (chunked,) = stage.push(read_listing(root, listing, bytearray(BODY_MAX + OVERREAD + WINDOW)))
    os.close(root)
    assert (chunked.start >= 0).all() and (chunked.start + chunked.length <= len(chunked.body)).all()
    return chunked


@pytest.mark.parametrize("patience", [0.0, 5.0])
def test_a_file_cut_short_and_grown_again_meanwhile(
    patience: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "PATIENCE", patience)
    path, data = tmp_path / "file", content("noise")
    path.write_bytes(data)
    first, second, third, last = pieces_of(path)
    stage = opened(CutLedger())
    push(stage, first)
    os.truncate(path, BODY_MAX + 1000)
    assert push(stage, second).listing.fresh.problems
    path.write_bytes(data)
    for listing in (third, last):
        assert push(stage, listing).listing.fresh.problems


def test_a_file_that_goes_away_while_its_pieces_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "PATIENCE", 0.0)
    path = tmp_path / "file"
    path.write_bytes(content("zeros"))
    _, second, third, _ = pieces_of(path)
    stage = opened(CutLedger())
    root = os.open("/", os.O_RDONLY)
    bodies = [read_listing(root, listing, bytearray(BODY_MAX + OVERREAD + WINDOW)) for listing in (second, third)]
    os.close(root)
    path.unlink()  # a piece without its neighbour, whose last chunk ends beyond what was read; then one that has all
    (chunked,) = stage.push(bodies[0])
    assert chunked.listing.fresh.problems
    (chunked,) = stage.push(bodies[1])
    assert not chunked.listing.fresh.problems
