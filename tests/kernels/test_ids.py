"""Chunk ids: what they are, and finding them in sorted tables."""

from __future__ import annotations

import hashlib
import hmac
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import Guide, find_guided, guide_buckets, guide_places, hash_chunks


def ids(numbers: range) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in numbers]


def column(rows: list[bytes]) -> Any:
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32)


def test_known_ids_are_found_and_others_are_not(kernel: Any) -> None:
    known = sorted(ids(range(3000)))
    wanted = ids(range(2500, 3500))
    rows = kernel.find_ids(b"".join(known), column(wanted))
    assert rows.tolist() == [known.index(one) if one in known else -1 for one in wanted]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_small_tables(kernel: Any, count: int) -> None:
    known = sorted(ids(range(count)))
    wanted = [*known, bytes(32), b"\xff" * 32]
    assert kernel.find_ids(b"".join(known), column(wanted)).tolist() == [*range(count), -1, -1]
    assert kernel.find_ids(b"".join(known), column([])).tolist() == []


def test_ids_that_share_most_of_their_bytes(kernel: Any) -> None:
    known = [bytes(30) + number.to_bytes(2, "big") for number in range(0, 600, 2)]
    known += [b"\xff" * 30 + number.to_bytes(2, "big") for number in range(300)]
    wanted = [bytes(30) + number.to_bytes(2, "big") for number in range(20)] + known[-3:]
    rows = kernel.find_ids(b"".join(known), column(wanted))
    assert rows.tolist() == [known.index(one) if one in known else -1 for one in wanted]


def test_a_mapped_table(kernel: Any, tmp_path: Path) -> None:
    known = sorted(ids(range(500)))
    (tmp_path / "table").write_bytes(b"".join(known))
    with (tmp_path / "table").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as table:
        assert kernel.find_ids(table, column(known[::7])).tolist() == list(range(0, 500, 7))


def test_a_table_out_of_order_does_no_harm(kernel: Any) -> None:
    rows = kernel.find_ids(b"".join(ids(range(999))), column(ids(range(999))))
    assert ((rows >= -1) & (rows < 999)).all()


@pytest.mark.parametrize("starts", [[0, 0], [0, 2000], [2000, 0], [999, 5], [0xFFFFFFFF, 0xFFFFFFFF]])
def test_the_guide_of_another_table_does_no_harm(starts: list[int]) -> None:
    known = sorted(ids(range(999)))
    guide = Guide(np.array(starts, dtype=np.uint32), np.zeros(999, np.uint16))
    rows = find_guided(b"".join(known), guide, column(ids(range(1200))))
    assert ((rows >= -1) & (rows < 999)).all()
    with pytest.raises(ValueError):
        find_guided(b"".join(known[1:]), guide, column(known))
    with pytest.raises(ValueError):
        find_guided(b"".join(known), Guide(guide.starts[:1], guide.marks), column(known))


def test_a_guide_tells_nearly_all_unknown_ids_from_its_marks() -> None:
    """What it promises: one in 16,384 has the mark of a row of its bucket by chance, and is compared."""
    table = np.random.default_rng(1).integers(0, 256, (20_000, 32), dtype=np.uint8)
    table = column(sorted(map(bytes, table)))
    buckets = guide_buckets(len(table))
    bucket, marks = guide_places(table, buckets)
    assert (np.diff(bucket.astype(np.int64) * 65_536 + marks) >= 0).all() and bucket.max() < buckets
    taken = set(zip(bucket.tolist(), marks.tolist(), strict=True))
    others = np.random.default_rng(2).integers(0, 256, (1_000_000, 32), dtype=np.uint8)
    unknown = zip(*(part.tolist() for part in guide_places(others, buckets)), strict=True)
    assert 30 < sum(place in taken for place in unknown) < 95


@pytest.mark.parametrize("rows", [0, 1, 1023, 1024, 1025, 5_000_000])
def test_ids_that_begin_with_another_byte_are_in_other_buckets(rows: int) -> None:
    buckets = guide_buckets(rows)
    ends = column([bytes([byte]) + rest for byte in range(256) for rest in (bytes(31), b"\xff" * 31)])
    bucket = guide_places(ends, buckets)[0].reshape(256, 2)
    assert (bucket[1:, 0] > bucket[:-1, 1]).all() and bucket[-1, 1] == buckets - 1


def test_parts_of_ids_are_refused(kernel: Any) -> None:
    with pytest.raises(ValueError):
        kernel.find_ids(bytes(33), column([bytes(32)]))
    with pytest.raises(ValueError):
        kernel.find_ids(bytes(32), np.zeros(31, dtype=np.uint8))


@pytest.mark.parametrize("key", [None, b"", b"k" * 32, b"k" * 64, b"k" * 65, b"k" * 200])
def test_ids_are_hmac_or_sha256(key: bytes | None) -> None:
    body = bytes(range(256)) * 40
    start, length = np.array([0, 5, 5, 10_240]), np.array([5, 0, 9000, 0], dtype=np.uint32)
    parts = [body[first : first + size] for first, size in zip(start.tolist(), length.tolist(), strict=True)]
    expected = [hashlib.sha256(part).digest() if key is None else hmac.digest(key, part, "sha256") for part in parts]
    found = hash_chunks(key, memoryview(body), start, length)
    assert [row.tobytes() for row in found] == expected


@pytest.mark.parametrize("way", [1, 2])
@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_every_way_to_hash_knows_every_length(way: int, key: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths around blocks and their padding, in an order in which short chunks run beside long ones."""
    native: Any = pytest.importorskip("kernels.native", reason="not built: pip install -e .", exc_type=ImportError)
    if way not in native.HASH_WAYS:
        pytest.skip("this processor has no SHA instructions" if way == 2 else "no libcrypto.so.3 here")
    monkeypatch.setattr(native, "HASH_WAYS", [way])
    body = np.random.default_rng(7).bytes(70_000)
    length = np.array([*range(260), 65_536, 3, 64, 0, 4096, 63, 127], dtype=np.uint32)
    for lengths in (length, length[::-1], np.random.default_rng(8).permutation(length), length[:1], length[-3:]):
        start = np.arange(len(lengths), dtype=np.int64)
        parts = [body[at : at + size] for at, size in enumerate(lengths.tolist())]
        wanted = [hashlib.sha256(part).digest() if key is None else hmac.digest(key, part, "sha256") for part in parts]
        assert [row.tobytes() for row in native.hash_chunks(key, body, start, lengths)] == wanted


def test_no_chunks_have_no_ids() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert hash_chunks(None, b"", none, none.astype(np.uint32)).shape == (0, 32)


def test_chunks_outside_of_the_body_are_refused() -> None:
    for start, length in (([0], [11]), ([-1], [2]), ([11], [0]), ([0, 0], [1])):
        with pytest.raises(ValueError):
            hash_chunks(None, bytes(10), np.array(start), np.array(length, dtype=np.uint32))
