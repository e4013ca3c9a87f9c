"""Noise and damage through every parser of stored bytes, before and after authentication: F10 of the fault catalogue.

Whatever comes, a parser gives a value or raises one of our errors, within bounded memory. Damage is also given a
checksum that fits, as an attacker does.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import LoxError, NewerFormat
from repository.annotations import Changes, Note, Pin
from repository.cache import load_tables
from repository.check import check
from repository.codecs import Codec, compressor, decompress
from repository.condemned import Condemned, Reason
from repository.config import Config
from repository.documents import document_checksum
from repository.fetch import ChunkFetcher
from repository.footer import decode_footer, encode_footer
from repository.index import ChunkIndex
from repository.index_table import decode_index
from repository.keyless import check_keyless
from repository.pack import PackReader, pack_name
from repository.part_codec import PartRef, decode_part, decode_parts
from repository.repository import Repository
from repository.scrub import verify_pack
from repository.seal import Cipher, Envelope, ObjectKind
from repository.slots import KeySlot
from repository.snapshot import Snapshot, load_all
from repository.store import MemoryStore
from repository.trash import forget, load_trash
from repository.verified import VerifiedLog
from tests.faults.bounded import bounded_memory
from tests.faults.forging import with_checksum
from tests.faults.oplog import store_of
from tests.repository.damage import damaged
from tests.repository.samples import back_up, new_repository
from tests.repository.test_pack import TEXT, pack_of

ROOM = 96 << 20
TREE = {b"d": None, b"d/f": b"content" * 60, b"d/g": b"other" * 40}


@dataclass(frozen=True, slots=True)
class Parser:
    """A parser and bytes that it takes."""

    parse: Callable[[bytes], object]
    sample: bytes


def _parsers() -> dict[str, Parser]:
    secret = new_repository()
    snapshot = back_up(secret, TREE)
    ((index_name, _),) = secret.store.list("index/")
    pack = pack_of(secret.keys, TEXT)
    pack_bytes = b"".join(bytes(part) for part in pack.parts)
    slot = secret.list_keys().slots[0]
    part, parts = _manifest(secret, snapshot)
    cipher, reader = Cipher(secret.keys), PackReader(secret.keys)
    mark = Condemned(1, Reason.UNUSED, (bytes(16), bytes(16)))
    note = Note(5, Changes(add=("a",), pin=Pin(7), hold=("law",), comment="why"))
    sealed = secret.store.get(index_name)

    def read_footer(data: bytes) -> object:
        store = MemoryStore()
        store.put(pack_name(pack.pack_id), [data])
        return reader.read_footer(store, pack.pack_id, len(data))

    return {
        "envelope": Parser(lambda data: Envelope.parse(data, "x"), sealed),
        "envelope with a checksum": Parser(lambda data: Envelope.parse(with_checksum(data), "x"), sealed[:-32]),
        "sealed object": Parser(lambda data: cipher.open_object(ObjectKind.INDEX, index_name, data), sealed),
        "config": Parser(Config.decode, secret.config.encode()),
        "key slot": Parser(lambda data: KeySlot.decode("x", data), slot.encode()),
        "snapshot": Parser(lambda data: Snapshot.decode("x", data), snapshot.encode()),
        "note": Parser(lambda data: Note.decode("x", data), note.encode()),
        "mark": Parser(lambda data: Condemned.decode("x", data), mark.encode()),
        "index": Parser(decode_index, secret.get_object(ObjectKind.INDEX, index_name)),
        "footer": Parser(
            lambda data: decode_footer(data, pack.pack_id, 1, pack.size, "x"), encode_footer(pack.receipt)
        ),
        "head of a pack": Parser(lambda data: reader.open_header(data, pack.pack_id), pack_bytes[:512]),
        "pack": Parser(lambda data: verify_pack(secret.keys, pack.pack_id, data), pack_bytes),
        "footer of a pack": Parser(read_footer, pack_bytes),
        "footer of a pack with a checksum": Parser(lambda data: read_footer(with_checksum(data)), pack_bytes[:-32]),
        "table of parts": Parser(lambda data: decode_parts(data, "x"), parts),
        "part": Parser(lambda data: decode_part(data, part[0], "x"), part[1]),
        **{
            f"codec {codec.name.lower()}": Parser(partial(_decompress, codec), compressor(codec)(b"text " * 100))
            for codec in Codec
        },
    }


def _decompress(codec: Codec, data: bytes) -> bytes:
    return decompress(codec, data, 500)


def _manifest(repository: Repository, snapshot: Snapshot) -> tuple[tuple[PartRef, bytes], bytes]:
    """A part of its manifest with its place in the table, and the table."""
    fetcher = ChunkFetcher(repository, ChunkIndex.load(repository, None))
    (table,) = fetcher.fetch(snapshot.root.chunks)
    ref = decode_parts(table, "x")[0]
    (plain,) = fetcher.fetch([ref.id])
    return (ref, plain), table


PARSERS = _parsers()
EVERY = pytest.mark.parametrize("name", PARSERS)


def survives(parse: Callable[[bytes], object], data: bytes) -> None:
    with bounded_memory(ROOM):
        try:
            parse(data)
        except LoxError as error:
            assert str(error) and len(str(error)) < 2000


@EVERY
def test_what_was_written_is_read(name: str) -> None:
    """The samples are good, so that damage is near them."""
    PARSERS[name].parse(PARSERS[name].sample)


@EVERY
@settings(max_examples=60)
@given(data=st.data())
def test_noise_and_damage(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    survives(parser.parse, data.draw(st.binary(max_size=600)))
    survives(parser.parse, data.draw(damaged(parser.sample)))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["00" * 16, "00" * 32, "ff" * 32, "latest", "../../x", "\0", "-1", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = ["config", "key slot", "snapshot", "note", "mark"]


@pytest.mark.parametrize("name", DOCUMENTS)
@settings(max_examples=150)
@given(data=st.data())
def test_documents_with_other_values(name: str, data: st.DataObject) -> None:
    """Valid JSON, with one or two values exchanged for anything, at any depth."""
    document = json.loads(PARSERS[name].sample)
    for _ in range(data.draw(st.integers(1, 2))):
        holder = document
        while True:
            key = data.draw(st.sampled_from(sorted(holder)))
            if isinstance(holder[key], dict) and holder[key] and data.draw(st.booleans()):
                holder = holder[key]
                continue
            holder[key] = data.draw(JSON)
            break
    if name == "key slot":
        document.pop("checksum", None)
        document["checksum"] = document_checksum(document)
    survives(PARSERS[name].parse, json.dumps(document).encode())


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"version":1' + "0" * 5000 + "}",
        '{"version":1e999}',
        '{"version":NaN}',
        '"\\ud800"',
        '{"version":1,"version":2}',
        "\ufeff{}",
        "",
        "null",
    ],
    ids=lambda text: repr(text[:14]),
)
def test_json_that_is_meant_to_hurt(name: str, text: str) -> None:
    survives(PARSERS[name].parse, text.encode("utf-8", "surrogatepass"))


def _filled(encrypted: bool) -> Repository:
    repository = new_repository(encrypted)
    back_up(repository, TREE)
    forget(repository, back_up(repository, TREE).id, "by name", time.time_ns())
    return repository


SHARED = _filled(True)
FILLED = {encrypted: _filled(encrypted) for encrypted in (True, False)}


@settings(max_examples=100)
@given(data=st.data())
def test_a_whole_repository_of_damage(data: st.DataObject) -> None:
    """Any object damaged, its checksum made to fit: listing, checking and reading never raise anything but ours."""
    repository = FILLED[data.draw(st.booleans())]
    objects = {name: repository.store.get(name) for name, _ in repository.store.list()}
    name = data.draw(st.sampled_from(sorted(objects)))
    wrong = data.draw(damaged(objects[name]))
    if data.draw(st.booleans()):
        wrong = with_checksum(wrong[:-32])
    store = store_of(objects | {name: wrong})
    hurt = Repository.attach(store, repository.credentials())
    with bounded_memory(ROOM):
        check_keyless(store)
        check(hurt, "data")
        load_all(hurt)
        load_trash(hurt, lambda name, error: None)
        with suppress(NewerFormat):  # what a newer version wrote whole is not passed over
            load_tables(hurt, None, on_damage=lambda error: None)


@settings(max_examples=60)
@given(noise=st.binary(max_size=300), cut=st.integers(0, 40))
def test_the_log_of_verified_packs(noise: bytes, cut: int) -> None:
    """A local file that anybody may have written to: forgotten where it makes no sense."""
    with tempfile.TemporaryDirectory() as folder:
        log = VerifiedLog.open(SHARED, Path(folder))
        log.record(bytes(16), True, 5)
        path = next(Path(folder).rglob("verified"))
        path.write_bytes(path.read_bytes()[:cut] + noise)
        read = VerifiedLog.open(SHARED, Path(folder))
        assert set(read.times) <= {bytes(16)} and not read.damaged


@settings(max_examples=40)
@given(data=st.data())
def test_the_cache_of_the_index(data: st.DataObject) -> None:
    """A cache file that somebody changed gives the index it should, or none of it is used."""
    with tempfile.TemporaryDirectory() as folder:
        ChunkIndex.load(SHARED, Path(folder))
        (path,) = Path(folder).rglob("*.index")
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        with bounded_memory(ROOM):
            found = ChunkIndex.load(SHARED, Path(folder))
        expected = ChunkIndex.load(SHARED, None)
        assert len(found) == len(expected)
        assert all(found.contains(table.ids).all() for table in expected.tables)
