"""A large file is cut the same by any number of lanes, in any order, with or without a helpful neighbour."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

import kernels
from model.batches import BODY_MAX, OVERREAD, Listing
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
    return chunked.length.tolist()


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
    for index in range(1000):
        ledger.publish(7, index, index * 10)
    assert ledger.start_of(7, 999) == 9990
    assert ledger.start_of(7, 5) == -1
    assert ledger.latest_before(7, 2000) == (999, 9990)
    assert ledger.latest_before(7, 3) == (0, 0)
    assert ledger.start_of(8, 0) == 0
