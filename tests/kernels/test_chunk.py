"""Chunking: the committed vectors, the rule, and that cuts do not depend on how a file is shared out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import PUBLIC_KEY, gear_table
from model.chunking import ChunkerParams

VECTORS = Path(__file__).parents[1] / "golden" / "chunker"
SMALL = ChunkerParams(minimum=64, average=256, maximum=1024)
TABLE = gear_table(PUBLIC_KEY)


def noise(seed: str, size: int) -> bytes:
    """Bytes that any language can make again."""
    return hashlib.shake_128(seed.encode()).digest(size)


def cut(kernel: Any, content: bytes, params: ChunkerParams, table: Any = TABLE) -> list[int]:
    ends, counts = kernel.cut_files(content, np.array([0]), np.array([len(content)]), table, params)
    assert counts.tolist() == [len(ends)]
    return list(ends.tolist())


def by_hand(content: bytes, params: ChunkerParams, words: list[int]) -> list[int]:
    """The rule of docs/format.md, one byte at a time."""
    cuts, last, value = [], 0, 0
    for position, byte in enumerate(content, start=1):
        value = (value * 2 + words[byte]) % 2**64
        length = position - last
        strict = params.minimum <= length < params.average and value < params.strict_limit
        loose = params.average <= length and value < params.loose_limit
        if strict or loose or length == params.maximum or position == len(content):
            cuts.append(position)
            last = position
    return cuts


def test_committed_table_words() -> None:
    for case in json.loads((VECTORS / "tables.json").read_text())["tables"]:
        words = [int(word, 16) for word in case["words"]]
        assert gear_table(bytes.fromhex(case["key"])).tolist() == words


@pytest.mark.parametrize(
    "case", json.loads((VECTORS / "cuts.json").read_text())["cases"], ids=lambda case: case["name"]
)
def test_committed_cut_points(kernel: Any, case: dict[str, Any]) -> None:
    content = b"".join(
        bytes([part["byte"]]) * part["bytes"] if "byte" in part else noise(part["seed"], part["bytes"])
        for part in case["input"]
    )
    table = gear_table(bytes.fromhex(case["key"]))
    assert cut(kernel, content, ChunkerParams(**case["params"]), table) == case["ends"]


def test_the_rule_by_hand(kernel: Any) -> None:
    content = noise("by hand", 40_000) + bytes(5000) + noise("after zeros", 3000)
    assert cut(kernel, content, SMALL) == by_hand(content, SMALL, TABLE.tolist())


@pytest.mark.parametrize("normalization", [0, 1, 2, 8])
def test_chunk_lengths_stay_in_bounds_and_near_the_average(kernel: Any, normalization: int) -> None:
    params = ChunkerParams(minimum=512, average=2048, maximum=16384, normalization=normalization)
    lengths = np.diff([0, *cut(kernel, noise("lengths", 1 << 20), params)])
    assert lengths[:-1].min() >= 512
    assert lengths.max() <= 16384
    assert 1024 <= lengths.mean() <= 4096


def test_an_insertion_moves_only_the_chunks_around_it(kernel: Any) -> None:
    content = noise("insert", 200_000)
    edited = content[:70_000] + b"inserted" + content[70_000:]
    before, after = (chunks(content, cut(kernel, content, SMALL)), chunks(edited, cut(kernel, edited, SMALL)))
    assert len(set(after) - set(before)) <= 3


def chunks(content: bytes, ends: list[int]) -> list[bytes]:
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def test_files_of_a_batch_are_cut_as_if_alone(kernel: Any) -> None:
    sizes = [0, 1, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 5000, 0, 30_000, 64]
    files = [noise(f"file {i}", size) for i, size in enumerate(sizes)]
    length = np.array(sizes, dtype=np.int64)
    start = np.cumsum(length) - length
    ends, counts = kernel.cut_files(b"".join(files), start, length, TABLE, SMALL)
    assert counts.tolist() == [len(cut(kernel, file, SMALL)) for file in files]
    alone = [first + end for first, file in zip(start.tolist(), files, strict=True) for end in cut(kernel, file, SMALL)]
    assert ends.tolist() == alone


def test_fixed_chunks_are_all_of_the_average_length(kernel: Any) -> None:
    params = ChunkerParams(kind="fixed", minimum=64, average=128, maximum=256)
    assert cut(kernel, noise("fixed", 300), params) == [128, 256, 300]
    assert len(kernel.candidates(noise("fixed", 300), TABLE, params)) == 0
    none = np.zeros(0, dtype=np.int64)
    assert kernel.select(none, params, 0, 300, False).tolist() == [128, 256]
    assert kernel.select(none, params, 256, 300, True).tolist() == [300]


@pytest.mark.parametrize("piece", [1, 63, 64, 1000, 4096, 70_000])
def test_pieces_looked_at_apart_give_the_cuts_of_one_pass(kernel: Any, piece: int) -> None:
    content = noise("pieces", 20_000 if piece < 64 else 150_000)
    parts = []
    for offset in range(0, len(content), piece):
        context = min(offset, 63)
        found = kernel.candidates(content[offset - context : offset + piece], TABLE, SMALL, context)
        parts.append(found + 2 * offset)
    whole = kernel.candidates(content, TABLE, SMALL)
    joined = np.concatenate(parts)
    assert joined.tolist() == whole.tolist()
    assert kernel.select(joined, SMALL, 0, len(content), True).tolist() == cut(kernel, content, SMALL)


def test_selection_goes_on_where_it_stopped(kernel: Any) -> None:
    content = noise("go on", 60_000)
    found = kernel.candidates(content, TABLE, SMALL)
    cuts, last = [], 0
    for known in [*range(0, len(content), 777), len(content)]:
        more = kernel.select(found[found >> 1 <= known], SMALL, last, known, known == len(content))
        cuts += more.tolist()
        last = cuts[-1] if cuts else 0
    assert cuts == cut(kernel, content, SMALL)


def test_nothing_is_cut_before_it_is_certain(kernel: Any) -> None:
    none = np.zeros(0, dtype=np.int64)
    assert kernel.select(none, SMALL, 0, 1023, False).tolist() == []
    assert kernel.select(none, SMALL, 0, 1024, False).tolist() == [1024]
    assert kernel.select(none, SMALL, 0, 1025, True).tolist() == [1024, 1025]
    assert kernel.select(none, SMALL, 7, 7, True).tolist() == []


def test_unfit_arguments_are_refused(kernel: Any) -> None:
    one = np.array([0], dtype=np.int64)
    for start, length in ([-1], [2]), ([0], [-1]), ([5], [6]), ([11], [0]), ([2**62], [2**62]), ([0, 1], [1]):
        with pytest.raises(ValueError):
            kernel.cut_files(bytes(10), np.array(start), np.array(length), TABLE, SMALL)
    with pytest.raises(ValueError):
        kernel.cut_files(bytes(10), one, one, TABLE[:255], SMALL)
    for context in -1, 11:
        with pytest.raises(ValueError):
            kernel.candidates(bytes(10), TABLE, SMALL, context)
    for first, last in ((5, 4), (-1, 4), (0, 2**62), (0, 2**60)):
        with pytest.raises(ValueError):
            kernel.select(one, SMALL, first, last, False)
