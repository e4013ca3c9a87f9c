"""Rotation: new data is kept from old keys, nothing is lost, whoever interrupts, races or plants."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from blake3 import blake3

from model.errors import Damaged, LoxError, NewerFormat, NoKey, Refused, UsageError, WrongPassword
from repository.check import check
from repository.credentials import Credentials
from repository.epochs import EPOCHS_FOLDER, EpochDocument, list_epochs, load_epoch, read_epochs
from repository.keyring import EPOCH_ID_SIZE, EPOCHS_MAX, Epoch, KeyRing
from repository.pack import HEADER_SIZE, PackKind, PackReader, PackWriter, pack_name
from repository.pack_keys import new_header, open_header, pack_epoch
from repository.repository import Repository
from repository.rotation import Rotation, rotate, trusted_slots
from repository.seal import Cipher, ObjectKind
from repository.slots import KeySlot, create_password_slot
from repository.snapshot import load_all
from repository.store import MemoryStore, Store
from repository.store.wrapped import WrappedStore
from repository.store.wrappers import Fault, FaultyStore, RecordingStore
from tests.repository.damage import every_flip
from tests.repository.samples import CHEAP, back_up, content_of, new_repository

FILE = b"data/file"


@pytest.fixture
def repository() -> Repository:
    return new_repository()


def copy_of(store: Store) -> MemoryStore:
    """A second store with the same objects."""
    copy = MemoryStore()
    for name, _ in store.list():
        copy.put(name, [store.get(name)])
    return copy


def replace_object(store: Store, name: str, data: bytes) -> None:
    if store.exists(name):
        store.delete(name)
    store.put(name, [data])


def packs_of(store: Store) -> list[bytes]:
    return [bytes.fromhex(name.rpartition("/")[2]) for name, _ in store.list("packs/")]


def backed_up(repository: Repository, content: bytes) -> str:
    return back_up(repository, {b"data": None, FILE: content}).id


def everything_opens(store: Store, secret: str, contents: list[bytes]) -> None:
    repository = Repository.open(store, secret)
    snapshots = load_all(repository)
    assert not snapshots.unreadable
    assert sorted(content_of(repository, one, FILE) for one in snapshots) == sorted(contents)


def test_what_a_removed_key_and_the_old_keys_still_open(repository: Repository) -> None:
    """The thief has password, slot and all keys of the time before, and reads the store as it is now."""
    store = repository.store
    stolen = repository.add_password("stolen", kdf=CHEAP)
    thief = Repository.open(store, "stolen")
    old_snapshot, old_packs = backed_up(repository, b"before"), set(packs_of(store))
    repository.remove_key(stolen.id)
    rotation = repository.rotate()
    assert (rotation.before, rotation.epoch, repository.keys.epoch) == (0, 1, 1)
    assert stolen.id not in {slot.id for slot in rotation.slots}
    new_snapshot = backed_up(repository, b"after")
    new_packs = set(packs_of(store)) - old_packs

    thief.reload_keys()
    assert [epoch.number for epoch in thief.keys.epochs] == [0]
    assert thief.get_object(ObjectKind.SNAPSHOT, f"snapshots/{old_snapshot}")
    with pytest.raises(NoKey):
        thief.get_object(ObjectKind.SNAPSHOT, f"snapshots/{new_snapshot}")
    for pack in old_packs:
        thief.packs.read_footer(store, pack, store.size(pack_name(pack)))
    assert new_packs
    for pack in new_packs:
        with pytest.raises(NoKey):
            thief.packs.open_header(store.get(pack_name(pack), 0, HEADER_SIZE), pack)
    with pytest.raises(NoKey):  # and it does not write what the others cannot trust to be theirs
        thief.put_object(ObjectKind.INDEX, "index/00", b"")
    with pytest.raises(WrongPassword):
        Repository.open(store, "stolen")


def test_old_keys_do_not_open_new_packs_whatever_number_they_claim(repository: Repository) -> None:
    old = KeyRing.of(repository.keys.master, repository.id)
    repository.rotate()
    header, opened = new_header(repository.keys, PackKind.DATA)
    assert open_header(repository.keys, header, opened.pack_id).pack_id == opened.pack_id
    claimed = bytearray(header)
    claimed[72 + 4 : 72 + 8] = bytes(4)
    claimed[-16:] = blake3(bytes(claimed[:-16])).digest(16)
    with pytest.raises(Damaged):
        open_header(old, bytes(claimed), opened.pack_id)


def test_everything_opens_with_every_key_that_is_left(repository: Repository) -> None:
    _, code = repository.add_recovery_code()
    contents = [b"first"]
    backed_up(repository, b"first")
    for number in range(1, 5):
        repository.rotate()
        contents.append(b"epoch %d" % number)
        backed_up(repository, contents[-1])
        repository.add_password(f"of {number}", kdf=CHEAP)
    for secret in ("secret", code, "of 1", "of 4"):
        everything_opens(repository.store, secret, contents)
    assert sorted({pack_epoch(repository, pack) for pack in packs_of(repository.store)}) == [0, 1, 2, 3, 4]
    assert check(repository, "data").sound


def test_rotation_costs_no_deduplication(repository: Repository) -> None:
    content = os.urandom(1000)
    backed_up(repository, content)
    names, tables = repository.keys.chunk_id(content), repository.keys.chunker_key
    before = set(packs_of(repository.store))
    repository.rotate()
    opened = Repository.open(repository.store, "secret")
    assert (opened.keys.chunk_id(content), opened.keys.chunker_key) == (names, tables)
    backed_up(opened, content)
    assert set(packs_of(repository.store)) == before


def test_opening_costs_one_document_however_many_epochs(repository: Repository) -> None:
    for _ in range(6):
        repository.rotate()
    recording = RecordingStore(repository.store)
    opened = Repository.open(recording, "secret")
    assert [epoch.number for epoch in opened.keys.epochs] == list(range(7))
    assert len(recording.of("get", EPOCHS_FOLDER)) == 1


def test_a_writer_with_older_keys_goes_on_and_reads_what_is_newer(repository: Repository) -> None:
    old = Repository.open(repository.store, "secret")
    attached = Repository.attach(repository.store, Credentials.decode(old.credentials().encode()))
    writer = PackWriter(old.keys, PackKind.DATA)
    repository.rotate()
    pack = writer.finish()
    repository.store.put(pack_name(pack.pack_id), pack.parts)
    assert pack_epoch(repository, pack.pack_id) == 0
    repository.packs.read_footer(repository.store, pack.pack_id, pack.size)
    old.put_object(ObjectKind.INDEX, "index/old", b"old")
    assert repository.get_object(ObjectKind.INDEX, "index/old") == b"old"
    repository.put_object(ObjectKind.INDEX, "index/new", b"new")
    for late in (old, attached):
        assert late.keys.epoch == 0
        assert late.get_object(ObjectKind.INDEX, "index/new") == b"new"
        assert late.keys.epoch == 1


def test_credentials_carry_every_epoch(repository: Repository) -> None:
    repository.rotate()
    found = Credentials.decode(repository.credentials().encode())
    assert found == repository.credentials()
    recording = RecordingStore(repository.store)
    assert Repository.attach(recording, found).keys.epoch == 1
    assert not recording.calls


@pytest.mark.parametrize("late", [False, True], ids=["refused", "answer lost"])
def test_an_interruption_anywhere_loses_nothing(late: bool) -> None:
    template = new_repository()
    template.add_password("other", kdf=CHEAP)
    backed_up(template, b"before")
    template.rotate()
    backed_up(template, b"between")
    failed = 0
    for verb in ("get", "put", "list"):
        for skip in range(40):
            store = copy_of(template.store)
            fault = Fault(verb, "keys/", Refused("cut off"), late, skip=skip, times=1)
            opened = Repository.open(store, "secret")
            opened.store = FaultyStore(store, [fault])
            try:
                opened.rotate()
                break
            except Refused:
                failed += 1
            after = Repository.open(store, "secret")
            backed_up(after, b"after")
            for secret in ("secret", "other"):
                everything_opens(store, secret, [b"before", b"between", b"after"])
            after.rotate()
            assert check(after, "data").sound
        else:
            raise AssertionError("the fault list is too short")
    assert failed >= (2 if late else 6)


class Interleaving(WrappedStore):
    """Does something else at the n-th call of the rotation, as another host would."""

    def __init__(self, inner: Store, at: int, other: Callable[[], object]) -> None:
        super().__init__(inner)
        self.calls, self._at, self._other = 0, at, other

    def _step(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            self._other()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._step()
        return super().get(name, offset, length)

    def put(self, name: str, parts: object) -> None:
        self._step()
        super().put(name, parts)  # type: ignore[arg-type]

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        self._step()
        return super().list(prefix)


def at_every_step(
    template: Repository, other: Callable[[Repository], object]
) -> Iterator[tuple[MemoryStore, Rotation]]:
    """For each step of a rotation a store in which `other` came before it, and what the rotation said."""
    at = 0
    while True:
        at += 1
        store = copy_of(template.store)
        mine = Repository.open(store, "secret")
        theirs = Repository.open(store, "other")
        interleaving = Interleaving(store, at, partial(other, theirs))
        mine.store = interleaving
        rotation = mine.rotate()
        if interleaving.calls < at:
            return
        yield store, rotation


@pytest.fixture
def template() -> Repository:
    repository = new_repository()
    repository.add_password("other", kdf=CHEAP)
    backed_up(repository, b"before")
    return repository


def test_two_rotations_at_once_lose_nothing(template: Repository) -> None:
    def other(theirs: Repository) -> None:
        theirs.rotate()
        backed_up(theirs, b"theirs")

    steps = 0
    for store, _ in at_every_step(template, other):
        steps += 1
        mine = Repository.open(store, "secret")
        assert not mine.keys.doubt
        backed_up(mine, b"mine")
        for secret in ("secret", "other"):
            everything_opens(store, secret, [b"before", b"theirs", b"mine"])
        assert check(mine, "data").sound
    assert steps > 8


def test_a_key_added_during_a_rotation_opens_everything_or_is_said_to_be_left_out(template: Repository) -> None:
    """That it is one of ours cannot be told from the keys it was made with, if the rotation has not seen it before."""
    left_out = []
    for store, rotation in at_every_step(template, lambda theirs: theirs.add_password("added", "new", CHEAP)):
        mine = Repository.open(store, "secret")
        backed_up(mine, b"after")
        left_out.append([slot.label for slot in rotation.strange])
        if not left_out[-1]:
            everything_opens(store, "added", [b"before", b"after"])
    assert len(left_out) > 8
    assert all(labels in ([], ["new"]) for labels in left_out) and [] in left_out


def test_a_key_removed_before_a_rotation_is_never_let_in_by_another(template: Repository) -> None:
    """Somebody removes a key and rotates while we rotate with a list of slots that still has it."""
    stolen = template.add_password("stolen", kdf=CHEAP)
    kept = Repository.open(template.store, "stolen").unlocked
    assert kept is not None

    def other(theirs: Repository) -> None:
        theirs.remove_key(stolen.id)
        theirs.rotate()

    steps = 0
    for store, _ in at_every_step(template, other):
        steps += 1
        thief = read_epochs(store, template.id, kept)
        mine = Repository.open(store, "secret")
        assert mine.keys.sealing().key not in {epoch.key for epoch in thief.ring.epochs}
    assert steps > 8


def test_many_rotations_in_threads(template: Repository) -> None:
    store, failures = template.store, []

    def work(number: int) -> None:
        try:
            repository = Repository.open(store, "secret")
            for turn in range(3):
                repository.rotate()
                backed_up(repository, b"%d in %d" % (turn, number))
        except LoxError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [error for error in failures if not isinstance(error, NoKey)]
    repository = Repository.open(store, "other")
    if repository.keys.doubt:
        repository.rotate()
    assert not Repository.open(store, "secret").keys.doubt
    assert not load_all(repository).unreadable


def forged_slot(repository: Repository, epoch: Epoch) -> KeySlot:
    """A slot as somebody makes it who has the key of an epoch, or one that is none of ours."""
    return create_password_slot(repository.store, repository.id, epoch, "planted", "harmless", CHEAP).slot


def test_a_planted_slot_is_never_sealed_to(repository: Repository) -> None:
    without_key = forged_slot(repository, Epoch.first(repository.id, bytes(32)))
    assert trusted_slots([without_key], repository.keys, ())[0] == ()
    first = repository.rotate()
    assert first.strange == (without_key,)
    with_old_key = forged_slot(repository, repository.keys.epochs[0])
    unlocked = with_old_key.open("planted")
    assert unlocked is not None
    second = repository.rotate()
    assert set(second.strange) == {without_key, with_old_key}
    assert [slot.label for slot in second.slots] == ["password of init", "recovery code of init"]
    assert [epoch.number for epoch in read_epochs(repository.store, repository.id, unlocked).ring.epochs] == [0]


def test_a_slot_whose_public_key_was_exchanged_is_not_sealed_to(repository: Repository) -> None:
    slot = repository.add_password("other", kdf=CHEAP)
    document = json.loads(slot.encode()) | {"public": os.urandom(32).hex()}
    replace_object(repository.store, slot.name, resealed(document))
    assert [strange.id for strange in repository.rotate().strange] == [slot.id]


def resealed(document: dict[str, object]) -> bytes:
    """A document with a checksum that fits, as anybody can make it."""
    from repository.documents import document_checksum, encode_document

    inner = {key: value for key, value in document.items() if key != "checksum"}
    return encode_document(inner | {"checksum": document_checksum(inner)})


def planted_epoch(repository: Repository, ring: KeyRing) -> Epoch:
    """An epoch as somebody makes it who has the keys of `ring`."""
    document, epoch = EpochDocument.make(ring, repository.list_keys().slots, 1)
    document.store(repository.store)
    return epoch


@pytest.mark.parametrize("rotated", [0, 1])
def test_an_epoch_planted_without_any_key_stops_writing_and_not_reading(repository: Repository, rotated: int) -> None:
    for _ in range(rotated):
        repository.rotate()
    snapshot = backed_up(repository, b"mine")
    planted_epoch(repository, KeyRing.of(bytes(32), repository.id, [Epoch.of(repository.id, 1, b"x" * 16, bytes(32))]))
    opened = Repository.open(repository.store, "secret")
    (found,) = load_all(opened)
    assert (found.id, content_of(opened, found, FILE)) == (snapshot, b"mine")
    for write in (lambda: backed_up(opened, b"new"), opened.rotate, lambda: opened.add_password("x", kdf=CHEAP)):
        with pytest.raises(NoKey):
            write()
    assert not check(opened, "structure").sound
    for name in (name for name, _ in list(repository.store.list(EPOCHS_FOLDER))):
        if not name.removeprefix(EPOCHS_FOLDER).startswith(repository.keys.sealing().name):
            repository.store.delete(name)
    backed_up(opened, b"new")


def test_who_has_old_keys_cannot_make_others_write_under_keys_of_theirs(repository: Repository) -> None:
    old = KeyRing.of(repository.keys.master, repository.id)
    repository.rotate()
    planted = planted_epoch(repository, old)
    slot = forged_slot(repository, planted)
    opened = Repository.open(repository.store, "secret")
    with pytest.raises(NoKey) as caught:
        backed_up(opened, b"new")
    assert "know of each other" in caught.value.why and caught.value.exit_code == 12
    rotation = opened.rotate()
    assert (rotation.epoch, rotation.strange) == (2, (slot,))
    backed_up(opened, b"new")
    everything_opens(repository.store, "secret", [b"new"])
    unlocked = slot.open("planted")
    assert unlocked is not None
    assert opened.keys.sealing().key not in {
        epoch.key for epoch in read_epochs(repository.store, repository.id, unlocked).ring.epochs
    }


def test_epoch_numbers_follow_on_each_other(repository: Repository) -> None:
    first = repository.keys.epochs[0]
    far = Epoch.of(repository.id, 0xFFFFFFFE, bytes(16), bytes(32))
    planted_epoch(repository, KeyRing(repository.id, b"", b"", (first, far)))
    (name,) = list_epochs(repository.store)
    assert name.startswith("ffffffff-")
    planted = load_epoch(repository.store, name, repository.id)
    assert repository.unlocked is not None
    assert planted.open(repository.unlocked) is not None  # made by somebody with all keys: nothing else would be
    near = KeyRing(repository.id, b"", b"", (first,))
    document, _ = EpochDocument.make(near, repository.list_keys().slots, 1)
    assert document.number == 1


def test_a_damaged_document_is_read_from_its_copy_and_told(repository: Repository) -> None:
    repository.rotate()
    (name,) = list_epochs(repository.store)
    replace_object(repository.store, EPOCHS_FOLDER + name, b"{}")
    opened = Repository.open(repository.store, "secret")
    backed_up(opened, b"x")
    assert [finding.subject for finding in check(opened, "structure").findings] == [EPOCHS_FOLDER + name]
    repository.store.delete(EPOCHS_FOLDER + name)
    everything_opens(repository.store, "secret", [b"x"])


def test_every_byte_of_a_document_counts(repository: Repository) -> None:
    repository.rotate()
    (name,) = list_epochs(repository.store)
    data = repository.store.get(EPOCHS_FOLDER + name)
    for flipped in every_flip(data[:200] + data[-200:]):
        with pytest.raises((Damaged, NewerFormat)):
            EpochDocument.decode(name, flipped[:200] + data[200:-200] + flipped[200:])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipients", [{"slot": "x", "public": "00" * 32, "sealed": "00" * 80}] * 65),
        ("recipients", [5]),
        ("recipients", [{"slot": "x", "public": "00" * 32, "sealed": "00" * 79}]),
        ("past", "0g"),
        ("past", "00"),
        ("number", 1 << 40),
        ("number", True),
        ("public", ""),
        ("mac", "00" * 31),
    ],
)
def test_a_forged_document_is_damage(repository: Repository, field: str, value: object) -> None:
    repository.rotate()
    (name,) = list_epochs(repository.store)
    document = json.loads(repository.store.get(EPOCHS_FOLDER + name)) | {field: value}
    assert repository.unlocked is not None
    with pytest.raises(Damaged):
        EpochDocument.decode(name, resealed(document)).open(repository.unlocked)


def test_a_folder_full_of_documents_is_bounded(repository: Repository) -> None:
    for number in range(1, EPOCHS_MAX + 2):
        repository.store.put(f"{EPOCHS_FOLDER}{number:08x}-{'0' * 2 * EPOCH_ID_SIZE}", [b"{}"])
    with pytest.raises(Damaged):
        Repository.open(repository.store, "secret")


def test_an_epoch_that_never_was_is_damage_and_is_asked_for_once(repository: Repository) -> None:
    stranger = KeyRing.of(repository.keys.master, repository.id, [Epoch.of(repository.id, 7, b"x" * 16, bytes(32))])
    sealed = Cipher(stranger).seal_object(ObjectKind.INDEX, "index/00", b"x")
    recording = RecordingStore(repository.store)
    opened = Repository.open(repository.store, "secret")
    opened.store = recording
    for _ in range(5):
        with pytest.raises(Damaged, match="never was"):
            opened.cipher.open_object(ObjectKind.INDEX, "index/00", sealed)
    assert len(recording.of("list", EPOCHS_FOLDER)) == 1


def test_a_pack_that_gives_each_recipient_another_key_does_not_open(repository: Repository) -> None:
    """AES-GCM does not commit to a key, the header does: two slots with two keys, and one commitment."""
    repository.rotate()
    header, opened = new_header(repository.keys, PackKind.DATA)
    other, _ = new_header(repository.keys, PackKind.DATA)
    forged = bytearray(header)
    forged[7] = 2
    forged[72 : 72 + 104], forged[176 : 176 + 104] = other[72 : 72 + 104], header[72 : 72 + 104]
    forged[-16:] = blake3(bytes(forged[:-16])).digest(16)
    with pytest.raises(Damaged):  # the wrapped key is bound to the number of recipients as well
        PackReader(repository.keys).open_header(bytes(forged), opened.pack_id)


def test_rotation_needs_encryption_and_a_slot_that_is_there(repository: Repository) -> None:
    with pytest.raises(UsageError):
        new_repository(encrypted=False).rotate()
    assert repository.slot is not None and repository.unlocked is not None
    repository.remove_key(repository.slot.id)
    with pytest.raises(NoKey):
        rotate(repository.store, repository.id, repository.unlocked)
    assert not list_epochs(repository.store)
