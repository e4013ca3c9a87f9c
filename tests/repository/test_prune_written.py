"""prune where write-only machines store: what they say costs nobody data, and what is needed they find again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from model.batches import Segment
from model.entries import U8
from model.errors import Damaged
from repository.codecs import Codec
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex, save_index
from repository.pack import PackKind, PackWriter, pack_name
from repository.prune import prune
from repository.reading_index import ReadingIndex
from repository.repair import repair
from repository.repository import Repository
from repository.snapshot import Snapshot
from repository.trash import forget
from repository.verified import VerifiedLog
from stages.access import RepositoryAccess
from tests.repository.prunes import ALL, bytes_of, flipped
from tests.repository.samples import CHUNK, back_up, chunks_of_content, new_repository
from tests.repository.test_sessions import elsewhere


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("LOX_CACHE_DIR", str(tmp_path / "cache"))
    return new_repository()


def machine(repository: Repository, label: str = "web") -> Repository:
    return Repository.open(repository.store, repository.issue_writer(label).encode())


def ids_of(repository: Repository, content: bytes) -> U8:
    ids = b"".join(repository.keys.chunk_id(chunk) for chunk in chunks_of_content(content))
    return np.frombuffer(ids, np.uint8).reshape(-1, 32)


def read(repository: Repository, content: bytes) -> bytes:
    """What everybody who reads gets for the chunks of `content`."""
    index = ReadingIndex(repository, None, lambda error: None)
    return b"".join(ChunkFetcher(repository, index).fetch([one.tobytes() for one in ids_of(repository, content)]))


def store(web: Repository, names: bytes, content: bytes) -> bytes:
    """A pack of `web` that says of `content` that it is `names`; its id."""
    ids = ids_of(web, names)
    offset = np.arange(len(ids), dtype=np.uint32) * np.uint32(CHUNK)
    pack = PackWriter(web.keys, PackKind.DATA)
    pack.add(Segment(Codec.NONE, len(content), content, ids, offset, np.full(len(ids), CHUNK, np.uint32)))
    done = pack.finish()
    web.store.put(pack_name(done.pack_id), done.parts)
    save_index(web, [done.receipt])
    return done.pack_id


def ours(repository: Repository, content: bytes, **fields: object) -> Snapshot:
    return back_up(repository, {b"data": None, b"data/file": content}, **fields)


def test_rubbish_that_a_stolen_key_stores_under_names_of_others_costs_nobody_data(repository: Repository) -> None:
    content = bytes_of(1, 5)
    ours(repository, content)
    for number in range(12):  # which of equals is found first is chance
        store(machine(repository, str(number)), content, bytes_of(100 + number, 5))
    for _ in range(2):
        prune(repository, ALL)
        assert read(repository, content) == content


def test_rubbish_of_one_machine_does_not_take_the_place_of_what_another_stored(repository: Repository) -> None:
    content = bytes_of(1, 5)
    honest = machine(repository, "honest")
    ours(honest, content)
    rubbish = [store(machine(repository, str(number)), content, bytes_of(100 + number, 5)) for number in range(12)]
    for _ in range(2):
        prune(repository, ALL)
    for pack in rubbish:
        repository.store.delete(pack_name(pack))
    assert read(repository, content) == content


def test_who_reads_finds_the_true_chunk_among_rubbish(repository: Repository) -> None:
    content = bytes_of(1, 5)
    ours(machine(repository, "honest"), content)
    for number in range(6):  # which of equals is found first is chance
        store(machine(repository, str(number)), content, bytes_of(100 + number, 5))
    assert read(repository, content) == content


def test_a_wrong_chunk_does_not_take_its_neighbours_with_it(repository: Repository) -> None:
    content = bytes_of(1, 5)
    store(machine(repository), content, content[: 2 * CHUNK] + bytes(CHUNK) + content[3 * CHUNK :])
    ids = [one.tobytes() for one in ids_of(repository, content)]
    fetcher = ChunkFetcher(repository, ReadingIndex(repository, None, lambda error: None))
    for _ in range(2):
        with pytest.raises(Damaged, match="a chunk is not what its id says"):
            fetcher.fetch(ids)
    assert b"".join(fetcher.fetch([*ids[:2], *ids[3:]])) == content[: 2 * CHUNK] + content[3 * CHUNK :]


def test_what_a_damaged_pack_still_has_is_salvaged_whoever_says_that_he_has_it_too(repository: Repository) -> None:
    content, fine = bytes_of(1, 30), bytes_of(1, 30)[: 10 * CHUNK]
    ours(repository, content)
    index = ChunkIndex.load(repository, None)
    name = pack_name(index.packs[index.pack_table["kind"].tolist().index(PackKind.DATA)])
    for number in range(12):
        store(machine(repository, str(number)), content, bytes_of(100 + number, 30))
    data = repository.store.get(name)
    repository.store.delete(name)
    repository.store.put(name, [flipped(data, 25 * CHUNK)])  # in the last of three segments
    log = VerifiedLog(None)
    log.record(bytes.fromhex(name.rpartition("/")[2]), sound=False)  # so that of all packs this one is read
    report = repair(repository, apply=True, verified=log)
    assert report.chunks_salvaged == 20 and len(report.condemned) == 1
    for _ in range(2):
        with suppress(Damaged):  # what was damaged is missed
            prune(repository, ALL)
    assert read(repository, fine) == fine


def test_what_others_have_too_stays_in_the_packs_of_the_machine_that_knows_no_other_copy(
    repository: Repository,
) -> None:
    content = bytes_of(1, 5)
    for number in range(6):
        ours(repository, content + bytes_of(10 + number, 1))
    web = machine(repository)
    ours(web, content)
    for _ in range(3):
        prune(repository, ALL)
        assert RepositoryAccess(web).index.contains(ids_of(web, content)).all()


@pytest.mark.parametrize(("kept", "stays"), [(90, True), (40, True), (10, False)])
def test_a_pack_is_rewritten_only_if_that_frees_more_than_is_stored_again(
    repository: Repository, kept: int, stays: bool
) -> None:
    web, content, rest = machine(repository), bytes_of(1, kept), bytes_of(2, 100 - kept)
    pack = store(web, content + rest, content + rest)
    ours(repository, content)  # what is stored already is not stored again here
    forget(repository, ours(repository, rest).id, "policy", 0)
    for _ in range(2):
        prune(repository, ALL)
    assert repository.store.exists(pack_name(pack)) == stays
    assert RepositoryAccess(web).index.contains(ids_of(web, content)).all() == stays
    assert read(repository, content) == content


def test_many_small_packs_of_a_machine_are_not_joined(repository: Repository) -> None:
    web = machine(repository)
    contents = [bytes_of(number, 2) for number in range(20)]
    for content in contents:
        ours(web, content)
    assert prune(repository, ALL).rewritten == 0
    index = RepositoryAccess(web).index
    assert all(index.contains(ids_of(web, content)).all() for content in contents)


def test_what_was_copied_is_not_copied_again_while_somebody_keeps_the_old_pack_from_going(
    repository: Repository,
) -> None:
    web, content, rest = machine(repository), bytes_of(1, 10), bytes_of(2, 90)
    pack = store(web, content + rest, content + rest)
    ours(repository, content)
    forget(repository, ours(repository, rest).id, "policy", 0)
    session = elsewhere(web)  # knows no marks, as all sessions of write-only machines
    reports = [prune(repository, ALL) for _ in range(4)]
    assert [report.rewritten for report in reports] == [1, 0, 0, 0]
    copied, *later = [report.bytes_written for report in reports]
    assert 0 < copied < 30 * CHUNK and later == [0, 0, 0]
    assert [report.rescued for report in reports] == [0] * 4 and repository.store.exists(pack_name(pack))
    session.close()
    assert prune(repository, ALL).bytes_written == 0
    assert not repository.store.exists(pack_name(pack)) and read(repository, content) == content


def test_a_true_chunk_in_a_rewritten_pack_stays_where_only_another_machine_has_it_too(repository: Repository) -> None:
    """What was copied out of it is safe; what is needed only since then may be rubbish in the other pack."""
    web, content, later = machine(repository), bytes_of(1, 10), bytes_of(2, 90)
    store(web, content + later, content + later)
    ours(repository, content)
    session = elsewhere(web)
    assert prune(repository, ALL).rewritten == 1
    ours(repository, later)
    rubbish = [store(machine(repository, str(number)), later, bytes_of(100 + number, 90)) for number in range(6)]
    prune(repository, ALL)
    session.close()
    for _ in range(2):
        prune(repository, ALL)
    for each in rubbish:
        repository.store.delete(pack_name(each))
    assert read(repository, later) == later
