"""Write-only machines: they store and cannot read, nobody believes what they cannot know, and they can be stopped."""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from model.batches import Segment
from model.errors import Damaged, LoxError, NoKey, Revoked, UsageError, WrongPassword
from repository.annotations import Changes, annotate, load_annotations
from repository.check import check
from repository.codecs import Codec
from repository.condemned import Reason, condemn
from repository.credentials import Credentials
from repository.epochs import EPOCHS_FOLDER, EpochDocument
from repository.index import ChunkIndex, save_index
from repository.keyless import check_keyless
from repository.keyring import Epoch, KeyRing, WriterKeys
from repository.keys import purpose_info
from repository.pack import HEADER_SIZE, PackKind, PackReader, PackWriter, pack_name
from repository.pack_keys import new_header, open_header, pack_epoch
from repository.recipients import public_key_of, seal_key
from repository.repository import Repository
from repository.retention import Policy, candidates_of, decide
from repository.seal import Cipher, CipherKind, Envelope, ObjectKind
from repository.session_state import load_sessions
from repository.sessions import Session
from repository.snapshot import find_parent, load, load_all
from repository.trash import forget, load_trash, undelete
from repository.verified import VerifiedLog
from repository.writers import NOTES_MAX, WRITERS_FOLDER, WriterKey, load_writers
from stages.access import RepositoryAccess
from tests.repository.samples import back_up, content_of, new_repository, receipt_of

FILE = b"data/file"
SECRET_CONTENT = b"nobody on that machine may read this"


@pytest.fixture
def repository() -> Repository:
    return new_repository()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOX_CACHE_DIR", str(tmp_path / "cache"))


def machine(repository: Repository, label: str = "web") -> Repository:
    """The repository as a new write-only machine has it."""
    return Repository.open(repository.store, repository.issue_writer(label).encode())


def written(repository: Repository, content: bytes = b"written", **fields: object) -> str:
    """A snapshot made without an index to deduplicate against."""
    return back_up(repository, {b"data": None, FILE: content}, **fields).id


def objects(repository: Repository) -> list[str]:
    return [name for name, _ in repository.store.list()]


def test_it_stores_what_others_read(repository: Repository) -> None:
    mine = written(repository, SECRET_CONTENT)
    web = machine(repository)
    theirs = written(web, b"of the web server")
    assert {one.id: one.writer for one in load_all(repository)} == {mine: "", theirs: web.writer}
    assert content_of(repository, load(repository, theirs), FILE) == b"of the web server"
    report = check(repository, "data")
    assert report.sound and report.snapshots == 2
    assert {pack_epoch(repository, bytes.fromhex(name[-32:])) for name, _ in repository.store.list("packs/")} == {0}


def test_with_its_key_and_the_whole_store_nothing_can_be_read(repository: Repository) -> None:
    """Every object of the store, its own among them, is tried with everything the key holds."""
    written(repository, SECRET_CONTENT)
    web = machine(repository)
    before = set(objects(repository))
    written(web, SECRET_CONTENT + b" of its own")
    assert set(objects(repository)) > before
    tried = 0
    for name in objects(repository):
        if name.startswith("packs/"):
            tried += 1
            pack = bytes.fromhex(name[-32:])
            with pytest.raises(WrongPassword):
                web.packs.open_header(repository.store.get(name, 0, HEADER_SIZE), pack)
        elif not name.startswith("keys/") or name.startswith(WRITERS_FOLDER):
            tried += 1
            for kind in ObjectKind:
                with pytest.raises(LoxError):
                    web.get_object(kind, name)
        data = repository.store.get(name)
        assert SECRET_CONTENT not in data
    assert tried > 8
    # Nor with keys that somebody makes of what the key holds.
    known = (web.keys.id_key, web.keys.chunker_key, web.keys.writer and web.keys.writer.secret)
    for material in known:
        assert isinstance(material, bytes)
        guess = KeyRing.of(material, repository.id)
        for name in objects(repository):
            if name.startswith("packs/"):
                header = repository.store.get(name, 0, HEADER_SIZE)
                with pytest.raises((Damaged, NoKey)):
                    PackReader(guess).open_header(header, bytes.fromhex(name[-32:]))
            elif not name.startswith("keys/"):
                envelope = Envelope.parse(repository.store.get(name), name)
                with pytest.raises((Damaged, NoKey)):
                    Cipher(guess).open_envelope(ObjectKind(envelope.kind), name, envelope)


def test_its_key_holds_no_secret_of_any_epoch(repository: Repository) -> None:
    repository.rotate()
    key = repository.issue_writer("web")
    text = key.encode()
    document = urlsafe_b64decode(text.partition(":")[2]).decode()
    for epoch in repository.keys.epochs:
        for secret in (epoch.key, epoch.data_key, epoch.meta_key, epoch.object_key):
            assert secret.hex() not in document
    assert key.id_key.hex() in document
    assert text.isascii() and "\n" not in text
    assert WriterKey.parse(text) == key
    assert key.keys.secret.hex() not in f"{key!r} {key.keys!r}"


@pytest.mark.parametrize(
    "text", ["lox-write-only-2:abc", "lox-write-only-1:abc", "lox-write-only-1:", "lox-write-only-"]
)
def test_a_key_that_is_cut_or_newer_is_told_from_a_password(text: str, repository: Repository) -> None:
    with pytest.raises(WrongPassword, match="write-only"):
        Repository.open(repository.store, text)
    whole = repository.issue_writer("web").encode()
    for at in range(len("lox-write-only-1:"), len(whole), 37):
        flipped = whole[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1 :]
        with pytest.raises(WrongPassword):
            WriterKey.parse(flipped)


def test_its_key_opens_no_other_repository(repository: Repository) -> None:
    text = repository.issue_writer("web").encode()
    with pytest.raises(WrongPassword):
        Repository.open(new_repository().store, text)
    with pytest.raises(UsageError):  # an open repository in the place of ours
        Repository.open(new_repository(encrypted=False).store, text)


def test_what_it_may_not_do(repository: Repository) -> None:
    snapshot = written(repository)
    web = machine(repository)
    for act in (
        lambda: load(web, snapshot),
        lambda: forget(web, snapshot, "policy", 1),
        lambda: annotate(web, snapshot, Changes(comment="x"), 1),
        lambda: condemn(web, [bytes(16)], Reason.UNUSED, 1),
        lambda: web.put_object(ObjectKind.CONFIG, "config", b""),
        web.rotate,
        web.list_writers,
        lambda: web.issue_writer("another"),
        lambda: web.add_password("x"),
        lambda: web.remove_key(repository.list_keys().slots[0].id),
    ):
        with pytest.raises(WrongPassword):
            act()
    assert [one.id for one in load_all(repository)] == [snapshot]


def test_what_it_forges_beyond_its_rights_does_not_count(repository: Repository) -> None:
    """Sealed by hand with its secret, under names that are not for it."""
    key = repository.issue_writer("web")
    ring = KeyRing(key.repo_id, key.id_key, key.chunker_key, writer=key.keys)
    for name in ("gc/condemned/00", "notes/00/00", "trash/snapshots/00/00", "config", f"{WRITERS_FOLDER}00/issued"):
        sealed = forged(Cipher(ring), name)
        with pytest.raises(Damaged, match="may write"):
            repository.cipher.open_object(ObjectKind.MARK, name, sealed)
    assert repository.cipher.open_object(ObjectKind.MARK, "sessions/00", forged(Cipher(ring), "sessions/00")) == b"{}"


def forged(cipher: Cipher, name: str) -> bytes:
    """An object sealed by a program that does not keep to what a write-only machine may write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repository.seal.WRITER_PREFIXES", ("",))
        return cipher.seal_object(ObjectKind.MARK, name, b"{}")


def test_who_knows_only_the_public_key_cannot_write(repository: Repository) -> None:
    key = repository.issue_writer("web")
    stranger = WriterKeys(key.keys.id, os.urandom(32), key.keys.number, key.keys.public)
    ring = KeyRing(key.repo_id, bytes(32), bytes(32), writer=stranger)
    sealed = Cipher(ring).seal_object(ObjectKind.INDEX, "index/00", b"x")
    with pytest.raises(Damaged):
        repository.cipher.open_object(ObjectKind.INDEX, "index/00", sealed)
    header, opened = new_header(ring, PackKind.DATA)
    with pytest.raises(Damaged):
        open_header(repository.keys, header, opened.pack_id)


def test_an_object_opens_under_its_name_and_header_only(repository: Repository) -> None:
    web = machine(repository)
    sealed = web.cipher.seal_object(ObjectKind.INDEX, "index/00", b"content")
    assert repository.cipher.open_object(ObjectKind.INDEX, "index/00", sealed) == b"content"
    with pytest.raises(Damaged):
        repository.cipher.open_object(ObjectKind.INDEX, "index/01", sealed)
    for at in range(len(sealed) - 32):
        flipped = bytearray(sealed[:-32])
        flipped[at] ^= 1
        with pytest.raises(LoxError):
            data = bytes(flipped) + blake3(bytes(flipped)).digest()
            repository.cipher.open_object(ObjectKind.INDEX, "index/00", data)


def test_a_removed_key_ends_what_counts_and_keeps_what_did(repository: Repository) -> None:
    web = machine(repository)
    other = machine(repository, "db")
    before = written(web, b"before")
    trashed = written(web, b"in the trash")
    forget(repository, trashed, "policy", 1)
    stolen = web  # opened before: it does not notice
    (writer, _) = repository.list_writers()
    assert (writer.label, writer.revoked) == ("web", None)
    assert repository.revoke_writer(writer) > 0
    written(other, b"of another machine")
    before_theft = set(objects(repository))
    written(stolen, b"after")
    late = Repository.open(repository.store, "secret")
    snapshots = load_all(late)
    assert {content_of(late, one, FILE) for one in snapshots} == {b"before", b"of another machine"}
    late_names = set(objects(repository)) - before_theft
    with pytest.raises(Revoked):
        late.get_object(ObjectKind.SNAPSHOT, next(name for name in late_names if name.startswith("snapshots/")))
    assert not snapshots.unreadable and check(late, "data").sound
    backed_up_on(late)
    (found,) = load_trash(late)
    undelete(late, found)
    assert (load(late, trashed).writer, load(late, before).writer) == (web.writer, web.writer)
    assert content_of(late, load(late, trashed), FILE) == b"in the trash"
    with pytest.raises(WrongPassword, match="revoked"):
        Repository.open(repository.store, stolen_text(repository, web))
    with pytest.raises(UsageError):
        repository.revoke_writer(load_writers(repository)[0])


def backed_up_on(repository: Repository) -> None:
    """What a revoked machine goes on writing keeps nobody from a backup."""
    assert not RepositoryAccess(repository).index.contains(np.zeros((1, 32), np.uint8)).any()
    snapshot = written(repository, b"and so on")
    load(repository, snapshot)
    forget(repository, snapshot, "test", 1)
    undelete(repository, next(one for one in load_trash(repository) if one.id == snapshot))
    repository.store.delete(f"snapshots/{snapshot}")


def stolen_text(repository: Repository, web: Repository) -> str:
    """The key of a machine as it stands in its file."""
    assert web.keys.writer is not None and web.keys.id_key is not None
    config = repository.config.encode()
    return WriterKey(web.id, config, web.keys.id_key, web.keys.chunker_key, "web", web.keys.writer).encode()


def test_a_rotation_reaches_it_and_an_announcement_cannot_be_forged(repository: Repository) -> None:
    text = repository.issue_writer("web").encode()
    repository.issue_writer("revoked")
    repository.revoke_writer(repository.list_writers()[1])
    thief = KeyRing.of(repository.keys.master, repository.id)
    repository.rotate()
    web = Repository.open(repository.store, text)
    assert web.keys.epoch == 1
    snapshot = written(web, b"in epoch 1")
    assert content_of(repository, load(repository, snapshot), FILE) == b"in epoch 1"
    with pytest.raises(NoKey):  # what it stores now is kept from old keys too
        Cipher(thief).open_object(
            ObjectKind.SNAPSHOT, f"snapshots/{snapshot}", repository.store.get(f"snapshots/{snapshot}")
        )
    document, _ = EpochDocument.make(
        KeyRing.of(bytes(32), repository.id, [Epoch.of(repository.id, 1, b"x" * 16, b"y" * 32)]), [], 1
    )
    document.store(repository.store)
    assert document.number == 2
    assert Repository.open(repository.store, text).keys.writer == web.keys.writer
    (newest,) = (name for name, _ in repository.store.list(EPOCHS_FOLDER + "00000001") if not name.endswith("copy"))
    decoded = EpochDocument.decode(newest.removeprefix(EPOCHS_FOLDER), repository.store.get(newest))
    assert [writer for writer, _ in decoded.writers] == [bytes.fromhex(web.writer)]


def test_an_old_public_key_goes_on_working(repository: Repository) -> None:
    """A machine that is at work while keys are rotated finishes in the old epoch."""
    web = machine(repository)
    repository.rotate()
    assert web.keys.epoch == 0
    snapshot = written(web)
    assert content_of(repository, load(repository, snapshot), FILE) == b"written"
    assert content_of(Repository.open(repository.store, "secret"), load(repository, snapshot), FILE) == b"written"


def test_its_credentials_go_to_other_processes(repository: Repository) -> None:
    web = machine(repository)
    found = Credentials.decode(web.credentials().encode())
    attached = Repository.attach(repository.store, found)
    assert attached.write_only and attached.keys == web.keys
    written(attached)
    assert check(repository, "data").sound


def test_its_session_is_seen_and_knows_no_marks(repository: Repository) -> None:
    condemn(repository, [bytes(16)], Reason.UNUSED, 1)
    web = machine(repository)
    session = Session(web, "backup")
    (state,) = load_sessions(repository)
    assert (state.purpose, state.unreadable, state.marks) == ("backup", "", frozenset())
    assert not state.knows(frozenset(name for name, _ in repository.store.list("gc/condemned/")))
    session.renew()
    assert session.held()
    session.close()
    assert not load_sessions(repository)


def test_nobody_takes_over_what_it_says_of_their_files(repository: Repository) -> None:
    """It may call itself any host: its snapshots are parents of its own only, and push nobody's out."""
    mine = written(repository, b"mine", time=5, host="db")
    web = machine(repository)
    theirs = [written(web, b"x", time=10 + number, host="db") for number in range(3)]
    snapshots = load_all(repository)
    arguments = ("db", (b"/data",), "incremental", 1 << 60)
    parents = [find_parent(snapshots, *arguments), find_parent(snapshots, *arguments, writer=web.writer)]
    assert [parent and parent.id for parent in parents] == [mine, theirs[-1]]
    now = 1_800_000_000 * 10**9
    groups = decide(candidates_of(repository, snapshots, load_annotations(repository), now), Policy(last=1))
    kept = {one.candidate.id for group in groups for one in group.decisions if one.keep}
    assert kept == {mine, theirs[-1]}


def test_nobody_relies_on_what_it_says_is_stored_unless_proved(repository: Repository, tmp_path: Path) -> None:
    """It knows how chunks are named, so it could store rubbish under the name of a chunk that others will have."""
    web = machine(repository)
    chunk, chunk_id = b"what others will have", repository.keys.chunk_id(b"what others will have")
    ids = np.frombuffer(chunk_id, np.uint8).reshape(1, 32)
    zero = np.zeros(1, np.uint32)
    rubbish = PackWriter(web.keys, PackKind.DATA)
    rubbish.add(Segment(Codec.NONE, len(chunk), b"r" * len(chunk), ids, zero, zero + np.uint32(len(chunk))))
    pack = rubbish.finish()
    repository.store.put(pack_name(pack.pack_id), pack.parts)
    save_index(web, [pack.receipt])
    assert ChunkIndex.load(repository, None).contains(ids).all()
    assert not RepositoryAccess(repository).index.contains(ids).any()
    assert RepositoryAccess(web).index.contains(ids).all()
    honest = written(web, b"honest content")
    other = np.frombuffer(repository.keys.chunk_id(b"honest content"), np.uint8).reshape(1, 32)
    log = VerifiedLog.open(repository, tmp_path / "cache")
    report = check(repository, "data", verified=log)
    assert not report.sound  # the rubbish is found
    access = RepositoryAccess(repository)
    assert access.index.contains(other).all() and not access.index.contains(ids).any()
    assert content_of(repository, load(repository, honest), FILE) == b"honest content"


def test_an_index_object_of_it_proves_nothing_about_packs_of_others(repository: Repository) -> None:
    web = machine(repository)
    receipt = receipt_of(np.full((4, 32), 7, np.uint8))
    repository.store.put(pack_name(receipt.pack_id), [bytes(receipt.pack_size)])
    receipt.written = False
    save_index(web, [receipt])
    assert not RepositoryAccess(repository).index.contains(receipt.ids).any()


def test_a_copy_of_ours_is_read_before_one_of_theirs(repository: Repository) -> None:
    ours = written(repository, b"the same")
    machines = [machine(repository, str(number)) for number in range(4)]
    theirs = [written(one, b"the same") for one in machines]
    ids = np.frombuffer(repository.keys.chunk_id(b"the same"), np.uint8).reshape(1, 32)
    index = ChunkIndex.load(repository, None)
    assert len([table for table in index.tables if table.find(ids)[0] >= 0]) == 1
    where = index.doubting_written().lookup(ids)
    pack = index.packs[int(where.segments.pack[where.segment[0]])]
    header = repository.store.get(pack_name(pack), 0, HEADER_SIZE)
    assert not repository.packs.open_header(header, pack).written
    for snapshot in (ours, *theirs):
        assert content_of(repository, load(repository, snapshot), FILE) == b"the same"


def test_the_cipher_of_an_envelope_says_who_wrote(repository: Repository) -> None:
    web = machine(repository)
    envelope = Envelope.parse(web.cipher.seal_object(ObjectKind.INDEX, "index/00", b"x"), "index/00")
    assert envelope.cipher is CipherKind.WRITTEN and envelope.writer == bytes.fromhex(web.writer)
    assert web.keys.writer is not None
    assert web.keys.writer.public != public_key_of(bytes(32))


def test_a_machine_cannot_give_a_pack_another_key_than_it_commits_to(repository: Repository) -> None:
    """A salamander: segments that open under one key for some readers and under another for others."""
    web = machine(repository)
    header, opened = new_header(web.keys, PackKind.DATA)
    writer = web.keys.writer
    assert writer is not None
    info = purpose_info("written pack", web.id) + writer.id + writer.secret + header[:72]
    for key, opens in ((os.urandom(32), False), (None, True)):
        forged = bytearray(header)
        if key is not None:
            forged[72 + 8 + 16 : 72 + 8 + 96] = seal_key(key, writer.public, info)
        forged[-16:] = blake3(bytes(forged[:-16])).digest(16)
        if opens:
            assert open_header(repository.keys, bytes(forged), opened.pack_id).written
        else:
            with pytest.raises(Damaged, match="does not open"):
                open_header(repository.keys, bytes(forged), opened.pack_id)


def test_a_damaged_note_is_told_and_makes_no_backup_unreadable(repository: Repository) -> None:
    web = machine(repository)
    other = machine(repository, "db")
    snapshots = {written(web), written(other, b"other")}
    store = repository.store
    assert check_keyless(store).sound
    for name, _ in list(store.list(WRITERS_FOLDER)):
        store.delete(name)
        store.put(name, [b"damaged"])
    late = Repository.open(store, "secret")
    assert {one.id for one in load_all(late)} == snapshots
    assert {finding.subject for finding in check(late, "structure").findings} == {
        name for name, _ in store.list(WRITERS_FOLDER)
    }
    assert not check_keyless(store).sound
    for act in (late.list_writers, lambda: late.issue_writer("x")):
        with pytest.raises(Damaged):
            act()


def test_a_folder_full_of_notes_is_bounded(repository: Repository) -> None:
    for number in range(NOTES_MAX + 1):
        repository.store.put(f"{WRITERS_FOLDER}{number:032x}/issued", [b""])
    with pytest.raises(Damaged, match="too many"):
        load_writers(repository, lambda error: None)
