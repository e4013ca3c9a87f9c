"""What our code writes is what docs/format.md says: read back by code that was written from that page alone."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import numpy as np
import pytest

import kernels
from model.batches import Segment
from model.chunking import ChunkerParams
from repository.codecs import Codec, compressor
from repository.keys import KdfParams
from repository.pack import PackKind, PackWriter, pack_name
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.store import MemoryStore
from tests.golden import by_hand

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
PARAMS = ChunkerParams(minimum=256, average=1024, maximum=4096)


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that cut well and compress somewhat."""
    generator = random.Random(seed)
    words = [generator.randbytes(generator.randrange(3, 30)) for _ in range(300)]
    return b"".join(generator.choice(words) for _ in range(size // 3 + 1))[:size]


@pytest.fixture(params=["encrypted", "not encrypted"])
def password(request: pytest.FixtureRequest) -> str | None:
    return "Zoe\u0308's" if request.param == "encrypted" else None


def make(password: str | None, params: ChunkerParams = PARAMS) -> tuple[Repository, MemoryStore, str | None]:
    store = MemoryStore()
    encryption = "none" if password is None else "aes-256-gcm"
    repository, code = Repository.init(store, password, params, encryption, KdfParams(64, 1, 1))
    return repository, store, code


def read(store: MemoryStore, secret: str | None, kind: str = "password") -> by_hand.Repository:
    return by_hand.Repository.open([name for name, _ in store.list()], store.get, secret, kind)


def test_config_and_keys(password: str | None) -> None:
    repository, store, code = make(password)
    found = read(store, password)
    assert found.keys.repo_id.hex() == found.config["repo_id"] == repository.id.hex()
    assert found.config["chunker"] == {
        "kind": "gear",
        "minimum": 256,
        "average": 1024,
        "maximum": 4096,
        "normalization": 2,
    }
    assert found.keys["chunker"] == repository.keys.chunker_key
    if code is not None:
        assert read(store, code, "recovery").keys.master == found.keys.master


@pytest.mark.parametrize("kind", ["gear", "fixed"])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1024, 50_000])
def test_cuts(password: str | None, kind: str, size: int) -> None:
    repository, store, _ = make(password, ChunkerParams(kind, 256, 1024, 4096))
    body = content(size)
    table = kernels.gear_table(repository.keys.chunker_key)
    ends, _ = kernels.cut_files(body, np.array([0]), np.array([size]), table, repository.chunker)
    found = read(store, password)
    chunks = by_hand.cut(body, found.config["chunker"], found.keys["chunker"])
    assert np.cumsum([len(chunk) for chunk in chunks], dtype=int).tolist() == ends.tolist()
    assert len(chunks) > 10 or size < 50_000


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("kind", list(PackKind))
def test_packs(password: str | None, codec: Codec, kind: PackKind) -> None:
    repository, store, _ = make(password)
    writer = PackWriter(repository.keys, kind)
    expected: dict[bytes, bytes] = {}
    for number in range(3):
        chunks = [content(size, number) for size in (1, 700, 5000, 20_000)] + [os.urandom(500)]
        expected |= {repository.keys.chunk_id(chunk): chunk for chunk in chunks}
        ids = np.frombuffer(b"".join(map(repository.keys.chunk_id, chunks)), np.uint8).reshape(-1, 32)
        length = np.array([len(chunk) for chunk in chunks], np.uint32)
        plain = b"".join(chunks)
        offset = (np.cumsum(length) - length).astype(np.uint32)
        writer.add(Segment(codec, len(plain), compressor(codec)(plain), ids, offset, length), plain)
    pack = writer.finish()
    store.put(pack_name(pack.pack_id), pack.parts)
    (found,) = read(store, password).packs()
    assert (found.pack_id, found.kind) == (pack.pack_id, kind)
    assert found.chunks == expected


@pytest.mark.parametrize("plain", [b"", b"short", bytes(100_000)])
def test_objects(password: str | None, plain: bytes) -> None:
    repository, store, _ = make(password)
    repository.put_object(ObjectKind.INDEX, "index/00", plain)
    assert read(store, password).open_object(2, "index/00") == plain


def test_the_vectors_of_the_page() -> None:
    rows = dict(re.findall(r"^\| (.+?) \| `(.+?)` \|$", PAGE.partition("## 12. Test vectors")[2], re.MULTILINE))
    keys = by_hand.Keys(bytes(range(16)), bytes(range(32)))
    for purpose, name in (
        ("chunk id", "id key"),
        ("chunker", "chunker key"),
        ("data packs", "data key"),
        ("meta packs", "meta key"),
        ("objects", "object key"),
    ):
        assert rows.pop(name) == keys[purpose].hex()
    assert rows.pop("id of the chunk `abc`") == keys.chunk_id(b"abc").hex()
    for name, key in (("T[0], T[255]", keys["chunker"]), ("T[0], T[255] without encryption", bytes(32))):
        table = kernels.gear_table(key)
        assert rows.pop(name) == f"{int(table[0]):016x} {int(table[255]):016x}"
    assert by_hand.recovery_key(rows.pop("recovery code of the master key's bytes")) == bytes(range(32))
    stretched = by_hand.stretch("password", bytes(range(16)), {"memory_kib": 64, "iterations": 1, "lanes": 1}).hex()
    assert rows.pop("slot key of `password`, salt `00 .. 0f`, m 64, t 1, p 1") + rows.pop("its check") == stretched
    assert not rows
