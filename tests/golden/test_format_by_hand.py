"""What our code writes is what docs/format.md says: read back by code that was written from that page alone."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3

import kernels
from model.batches import Segment
from model.chunking import ChunkerParams
from pipelines.copy import CopyRequest, copy
from pipelines.options import EngineOptions, Watch
from repository.annotations import Changes, Pin, annotate
from repository.codecs import Codec, compressor
from repository.keys import KdfParams
from repository.pack import PackKind, PackWriter, pack_name
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.store import MemoryStore
from repository.trash import forget
from tests.golden import by_hand
from tests.golden.expected import EXPECTED, V1, WAYS
from tests.golden.make_v1 import KINDS, decoded
from tests.packaging import project
from tests.repository.samples import back_up

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
        repository.rotate()
        repository.rotate()
        repository.put_object(ObjectKind.INDEX, "index/00", b"of epoch 2")
        for secret, kind in ((password, "password"), (code, "recovery")):
            opened = read(store, secret, kind)
            assert opened.keys.epochs == {epoch.number: epoch.key for epoch in repository.keys.epochs}
            assert opened.open_object(2, "index/00") == b"of epoch 2"


def test_a_copy_in_a_repository_made_for_it() -> None:
    source, _, _ = make("pw")
    store = MemoryStore()
    target, _ = Repository.init(store, "other", kdf=KdfParams(64, 1, 1), related=source)
    tree = {b"d": None, b"d/f": content(9000)}
    made = back_up(source, tree)
    copy(source, target, CopyRequest((made,)), EngineOptions("inline"), Watch())
    found = read(store, "other")
    assert found.config["chunker"] == read_config(source)["chunker"]
    assert found.keys["chunker"] == source.keys.chunker_key
    assert found.keys.chunk_id(b"abc") == source.keys.chunk_id(b"abc")
    assert found.keys.of("objects", 0) != source.keys.sealing().object_key
    ((_, snapshot),) = found.snapshots().items()
    assert snapshot["original"] == {"repository": source.id.hex(), "snapshot": made.id}
    entries = {row["path"]: row for row in found.entries(snapshot)}
    assert found.content(entries[b"d/f"]) == tree[b"d/f"]


def read_config(repository: Repository) -> dict[str, Any]:
    return dict(json.loads(repository.config.encode()))


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


def test_notes_and_trash(password: str | None) -> None:
    repository, store, _ = make(password)
    snapshot = back_up(repository, {b"data": None}, tags=("made", "old"))
    annotate(repository, snapshot.id, Changes(add=("new",), remove=("old",), hold=("audit", "case")), 5)
    annotate(repository, snapshot.id, Changes(pin=Pin(7), release=("audit",), comment="x"), 5)
    annotate(repository, snapshot.id, Changes(add=("old",), remove=("old",), pin=Pin()), 3)
    by_page = read(store, password)
    document = by_page.snapshots()[snapshot.id]
    tags, holds, pin, comment = set(document["tags"]), set[str](), None, ""
    names = [name for name, _ in store.list(f"notes/{snapshot.id}/")]
    notes = sorted((json.loads(by_page.open_object(4, name)) | {"name": name} for name in names), key=note_order)
    for note in notes:
        changes = note["changes"]
        tags = (tags - set(changes.get("remove", []))) | set(changes.get("add", []))
        holds = (holds - set(changes.get("release", []))) | set(changes.get("hold", []))
        pin, comment = changes.get("pin", pin), changes.get("comment", comment)
    assert (tags, holds, pin, comment) == ({"made", "new", "old"}, {"case"}, {"until": None}, "x")
    annotate(repository, snapshot.id, Changes(pin=False, release=("case",)), 9)
    forget(repository, snapshot.id, "policy", 11)
    ((name, _),) = store.list(f"trash/snapshots/{snapshot.id}/")
    trashed = json.loads(read(store, password).open_object(4, name))
    assert (trashed["version"], trashed["time"], trashed["rule"]) == (1, 11, "policy")
    assert json.loads(bytes.fromhex(trashed["snapshot"])) == document
    assert read(store, password).snapshots() == {}


def note_order(note: dict[str, Any]) -> tuple[int, str]:
    return note["time"], note["name"]


def test_the_vectors_of_the_page() -> None:
    rows = dict(re.findall(r"^\| (.+?) \| `(.+?)` \|$", PAGE.partition(". Test vectors\n")[2], re.MULTILINE))
    keys = by_hand.Keys(bytes(range(16)), {0: bytes(range(32))})
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
    header = {"created": 1, "label": "agent", "repo_id": bytes(range(16)).hex(), "version": 1}
    expanded = by_hand.key_file_key(header, bytes(range(32)), bytes(range(16))).hex()
    names = ("slot key of a key file with the master key's bytes, `agent`, 1; salt `00 .. 0f`", "check of the key file")
    assert "".join(rows.pop(name) for name in names) == expanded
    assert not rows


def test_reading_by_hand_uses_no_code_of_ours() -> None:
    foreign = project.imports(Path(by_hand.__file__)) - set(sys.stdlib_module_names)
    assert foreign == {"cryptography", "pyarrow", "zstandard"}


def golden(name: str, key: str) -> by_hand.Repository:
    """A repository of v1/, opened by the secret that expected.json has under `key`."""
    folder, secret = V1 / name, EXPECTED["repositories"][name][key]
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kind = {"recovery_code": "recovery", "key_file": "key-file"}.get(key, "password")
    return by_hand.Repository.open(names, lambda name: (folder / name).read_bytes(), secret, kind)


def described(repository: by_hand.Repository, row: by_hand.Row) -> dict[str, Any]:
    """An entry as expected.json has it, but for hard links."""
    kind = KINDS[stat.S_IFMT(row["mode"])]
    assert kind == ("file", "directory", "symlink", "fifo")[row["kind"]]
    assert row["problem"] is None
    entry: dict[str, Any] = {
        "kind": kind,
        "mode": f"{stat.S_IMODE(row['mode']):04o}",
        "mtime": row["mtime"],
        "owner": f"{row['uid']}:{row['gid']}",
    }
    if kind == "symlink":
        entry["target"] = decoded(row["target"])
    if kind == "file":
        entry |= {"size": row["size"], "sha256": hashlib.sha256(repository.content(row)).hexdigest()}
        if row["nlink"] > 1:
            entry["links"] = row["nlink"]
    if row["xattrs"] is not None:
        entry["xattrs"] = {decoded(pair["name"]): pair["value"].hex() for pair in row["xattrs"]}
    return entry


@pytest.mark.parametrize(("name", "key"), WAYS)
def test_the_golden_repositories_from_config_to_content(name: str, key: str) -> None:
    expected, found = EXPECTED["repositories"][name], golden(name, key)
    assert sorted(found.snapshots()) == sorted(facts["id"] for facts in expected["snapshots"])
    root = os.fsencode(EXPECTED["root"])
    for facts, tree in zip(expected["snapshots"], EXPECTED["trees"], strict=True):
        snapshot = found.snapshots()[facts["id"]]
        assert (snapshot["version"], snapshot["host"], snapshot["tags"]) == (1, "golden", [facts["codec"]])
        assert (snapshot["parent"], snapshot["problems"]) == (facts["parent"], 0)
        assert [bytes.fromhex(path) for path in snapshot["paths"]] == [b"/" + root]
        rows = {row["path"]: row for row in found.entries(snapshot)}
        below = {decoded(path[len(root) + 1 :]): row for path, row in rows.items() if path.startswith(root + b"/")}
        assert all(root.startswith(path) for path in rows if not path.startswith(root + b"/"))
        first: dict[tuple[int, int], str] = {}
        entries = {path: described(found, row) for path, row in below.items()}
        for path, entry in sorted(entries.items(), key=lambda pair: os.fsencode(pair[0])):
            if "links" in entry:
                entry["linked"] = first.setdefault((below[path]["device"], below[path]["ino"]), path)
        assert entries == tree
        files = {path: row for path, row in below.items() if row["kind"] == 0}
        chunks = {path: [len(chunk) for chunk in found.chunks(row)] for path, row in files.items()}
        assert {path: len(lengths) for path, lengths in chunks.items()} == facts["chunks"]
        extents = {path: row["extents"] for path, row in files.items() if row["extents"] is not None}
        assert {path: [list(pair.values()) for pair in pairs] for path, pairs in extents.items()} == facts["extents"]
        for path in chunks.keys() - {"large"}:
            data = b"".join(found.chunks(files[path]))
            assert list(map(len, by_hand.cut(data, found.config["chunker"], found.keys["chunker"]))) == chunks[path]
    assert (rows[root + b"/large"]["depth"] == 1) == (name == "plain")
    assert {(row["uid"], row["user"]) for row in below.values()} == {(0, b"root"), (1234, b"")}


@pytest.mark.parametrize(("name", "key"), WAYS)
def test_golden_packs_by_their_footers(name: str, key: str) -> None:
    """They hold what the index says, under every codec there is."""
    found = golden(name, key)
    packs = found.packs()
    assert {chunk_id for pack in packs for chunk_id in pack.chunks} == found.index.keys()
    assert {codec for pack in packs if pack.kind == 1 for codec in pack.codecs} == {0, 1, 2, 3}
    assert {place.segment.pack_id for place in found.index.values()} == {pack.pack_id for pack in packs}


def test_the_golden_key_file() -> None:
    found = golden("encrypted", "key_file")
    assert found.keys.epochs == golden("encrypted", "password").keys.epochs
    (slot,) = [by_hand.checked_document(found.read(name)) for name in found.names if re.fullmatch("keys/07[^/]*", name)]
    assert slot.keys() | {"argon2id", "checksum"} == {field for names, _ in rows_of("4.2 Key slots") for field in names}
    text = EXPECTED["repositories"]["encrypted"]["key_file"]
    document = json.loads(base64.urlsafe_b64decode(text.partition(":")[2]))
    assert document.keys() == {field for names, _ in rows_of("4.6 Key files") for field in names}


@pytest.mark.parametrize(("name", "key"), WAYS[1:])
def test_golden_checksums(name: str, key: str) -> None:
    """The part that reading by hand leaves out, for want of BLAKE3 in the libraries it uses."""
    found = golden(name, key)
    for data in (found.read(object_name) for object_name in found.names if not object_name.startswith("keys/")):
        assert data[-32:] == blake3(data[:-32]).digest()
        if data.startswith(b"LOXP"):
            assert data[496:512] == blake3(data[:496]).digest(16)
    if name == "plain":  # where the tags of segments are BLAKE3, too
        for segment in {place.segment for place in found.index.values()}:
            data = found.read(segment.pack_name)
            sealed = data[segment.offset : segment.offset + segment.stored]
            aad = by_hand.PackHeader.open(data, found.keys).associated(
                segment.ordinal, segment.codec, segment.size, segment.stored
            )
            assert sealed[-16:] == blake3(aad + sealed[:-16]).digest(16)


def rows_of(title: str) -> list[tuple[list[str], str]]:
    """Of the rows of the page's tables below `title`: the names in the first column, and the text of the second."""
    section = re.split(r"^##+ ", PAGE.partition(f" {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (`[^|]*) \|([^|]*)\|", section, re.MULTILINE)
    return [(re.findall(r"`(.+?)`", names), text.strip()) for names, text in rows]


@pytest.mark.parametrize(("name", "key"), WAYS[1:])
def test_the_page_lists_every_field(name: str, key: str) -> None:
    found = golden(name, key)

    def listed(title: str) -> set[str]:
        return {field for names, _ in rows_of(title) for field in names}

    assert found.config.keys() == listed("5. Config")
    for object_name in found.names:
        if object_name.startswith("keys/epochs/"):
            assert json.loads(found.read(object_name)).keys() == listed("4.4 Documents of epochs")
        elif object_name.startswith("keys/"):
            assert json.loads(found.read(object_name)).keys() | {"argon2id"} == listed("4.2 Key slots")
    for snapshot in found.snapshots().values():
        assert snapshot.keys() == listed("11. Snapshot")
        (root,) = snapshot["manifest"]["chunks"]
        table_of_parts = found.chunk(bytes.fromhex(root["id"]))
        part = found.chunk(by_hand.table(table_of_parts)[0]["id"])
        assert columns(table_of_parts) == listed_columns("10.2 Table of parts")
        assert columns(part) == listed_columns("10.3 Entries")


def columns(plain: bytes) -> list[str]:
    """The columns of an Arrow stream as the page writes them."""
    fields = [(field.name, str(field.type), field.nullable) for field in pa.ipc.open_stream(plain).schema]
    written = [(name, kind.replace("item: ", "").replace("[32]", "(32)"), nullable) for name, kind, nullable in fields]
    return [f"{name} {kind}{'' if nullable else ' not null'}" for name, kind, nullable in written]


def listed_columns(title: str) -> list[str]:
    return [f"{field} {text.replace('`', '')}" for names, text in rows_of(title) for field in names]


@pytest.mark.parametrize("key", ["password", "recovery_code"])
def test_what_a_write_only_machine_wrote(key: str) -> None:
    expected, folder = EXPECTED["written"], V1 / "written"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kind = "recovery" if key == "recovery_code" else "password"
    found = by_hand.Repository.open(names, lambda name: (folder / name).read_bytes(), expected[key], kind)
    assert sorted(found.keys.epochs) == [0, 1, 2]
    for facts in expected["snapshots"]:
        sealed = found.read(f"snapshots/{facts['id']}")
        assert (sealed[6], sealed[36:52].hex()) == (2, facts["writer"])
        rows = [row for row in found.entries(found.snapshots()[facts["id"]]) if row["kind"] == 0]
        content = {row["path"].rpartition(b"/")[2].decode(): found.content(row) for row in rows}
        assert {name: hashlib.sha256(data).hexdigest() for name, data in content.items()} == facts["files"]
    (issued,) = [name for name in names if name.startswith("keys/writers/")]
    assert json.loads(found.open_object(4, issued))["label"] == "golden"
    text = expected["write_only_key"].partition(":")[2]
    held = by_hand.checked_document(base64.urlsafe_b64decode(text))
    assert held.keys() | {"checksum"} == {field for names, _ in rows_of("4.5 Write-only machines") for field in names}
    assert held["secret"] == found.keys.writer_secret(bytes.fromhex(held["writer"])).hex()
    assert held["public"] == by_hand.public_key(found.keys.of("epoch", held["epoch"])).hex()
    assert (held["id_key"], held["chunker_key"]) == (found.keys["chunk id"].hex(), found.keys["chunker"].hex())
    assert json.loads(held["config"]) == found.config
