"""The repository: create, open, and the objects and keys that everything else goes through."""

from __future__ import annotations

import os
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING

from model.chunking import ChunkerParams
from model.errors import Damaged, Exists, UsageError, WrongPassword
from repository.config import CONFIG_NAME, Config, Operation
from repository.deleting import delete
from repository.epochs import EpochsFound, read_epochs
from repository.finding import read_config
from repository.key_file import WRITE_ONLY_MARK, KeyFile
from repository.keyring import KeyRing, only_writes
from repository.keys import KEY_SIZE, REPO_ID_SIZE, ChunkKeys, KdfParams
from repository.known_writers import KnownWriters
from repository.new_slots import add_key_file_slot, add_password_slot, add_recovery_slot
from repository.rereads import Rereads
from repository.seal import OBJECT_MAX, Cipher, CipherKind, Envelope, ObjectKind
from repository.slots import (
    KeySlot,
    SlotListing,
    Unlocked,
    create_key_file_slot,
    create_password_slot,
    create_recovery_slot,
    read_slots,
    remove_slot,
)
from repository.store import Store, open_store
from repository.unlocking import unlock

if TYPE_CHECKING:
    from repository.credentials import Credentials
    from repository.pack import PackReader
    from repository.rotation import Rotation
    from repository.writers import Writer, WriterKey

_BOTH_OPEN = "both passwords open it now; remove the old one with credentials that may delete: lox key remove"


class Repository:
    """An open repository. Thread-safe; not pickled: other processes `attach` with its `credentials`."""

    def __init__(self, store: Store, config: Config, keys: KeyRing, unlocked: Unlocked | None = None) -> None:
        self.store = store
        self.config = config
        self.keys = keys
        if config.chunk_keys is not None:
            keys.share(config.chunk_keys)
        self._writers = KnownWriters(self)
        self.cipher = Cipher(keys, self._writers.accepts)
        self.rereads = Rereads()
        self.unlocked = unlocked  # the key slot that opened it, None without encryption
        if unlocked is not None:
            keys.reload = self.reload_keys

    @classmethod
    def init(
        cls,
        store: Store,
        secret: str | KeyFile | None,
        chunker: ChunkerParams | None = None,
        encryption: str = "aes-256-gcm",
        kdf: KdfParams | None = None,
        related: Repository | None = None,
    ) -> tuple[Repository, str | None]:
        """Create a repository in an empty place, and the recovery code that opens it should `secret` be lost.

        `secret` is a password or a new key file, whose id the repository gets; None goes with `encryption` "none".

        With `related` it cuts and names chunks as that repository does, whatever `chunker` says: what is copied from
        one to the other keeps its ids.

        The config is stored last: before it is there, there is no repository. Raises UsageError if there is one
        already or if `secret` and `encryption` do not go together.
        """
        chunker, shared = (chunker or ChunkerParams(), None) if related is None else _shared(related, encryption)
        repo_id = secret.repo_id if isinstance(secret, KeyFile) else os.urandom(REPO_ID_SIZE)
        config = Config(repo_id, encryption, chunker, chunk_keys=shared)
        if (encryption == "none") != (secret is None):
            raise UsageError("a password goes with encryption, and encryption with a password", subject=encryption)
        for prefix in (CONFIG_NAME, "packs/", "snapshots/"):
            if any(True for _ in store.list(prefix)):
                raise UsageError("there is a repository here already", subject=store.url, why=f"found {prefix}")
        keys, unlocked, code = KeyRing.public(config.repo_id), None, None
        if secret is not None:
            keys = KeyRing.of(os.urandom(KEY_SIZE), repo_id)
            epoch = keys.sealing()
            if isinstance(secret, KeyFile):
                unlocked = create_key_file_slot(store, repo_id, epoch, secret)
            else:
                unlocked = create_password_slot(store, repo_id, epoch, secret, "password of init", kdf)
            _, code = create_recovery_slot(store, repo_id, epoch, "recovery code of init")
        repository = cls(store, config, keys, unlocked)
        try:
            repository.put_object(ObjectKind.CONFIG, CONFIG_NAME, config.encode())
        except Exists as error:
            raise UsageError("there is a repository here already", subject=store.url) from error
        return repository, code

    @classmethod
    def open(cls, store: Store, password: str | None) -> Repository:
        """Open with the text of a password, recovery code, key file or write-only key; None where nothing is encrypted.

        Raises NoRepository, WrongPassword, Damaged, NewerFormat, ConfigError for a key file that is not whole. A
        password given for a repository that is not encrypted is a UsageError: somebody with access to the store may
        have put an open one in the place of ours.
        """
        rereads = Rereads()
        envelope = read_config(store, rereads)
        if envelope.cipher is CipherKind.NONE:
            if password is not None:
                raise UsageError(
                    "a password was given, but the repository is not encrypted",
                    subject=store.url,
                    hint="if you expected encryption, do not write to this repository; else leave the password out",
                )
            return cls._opened(store, envelope, KeyRing.public(envelope.repo_id), None)
        if password is None:
            raise WrongPassword("the repository is encrypted and no password was given", subject=store.url)
        if password.startswith(WRITE_ONLY_MARK):
            return cls._open_to_write(store, envelope, password)
        unlocked = unlock(store, envelope.repo_id, password, rereads)
        opened = cls._opened(store, envelope, read_epochs(store, envelope.repo_id, unlocked).ring, unlocked)
        opened.rereads = rereads
        return opened

    @classmethod
    def attach(cls, store: Store | str, credentials: Credentials) -> Repository:
        """Open as another process did: reads nothing and derives nothing from a password."""
        place = open_store(store) if isinstance(store, str) else store
        return cls(place, Config.decode(credentials.config), credentials.keys, credentials.unlocked)

    @staticmethod
    def is_encrypted(store: Store) -> bool:
        """Whether `open` needs a password. Raises NoRepository, Damaged, NewerFormat."""
        return read_config(store).cipher is not CipherKind.NONE

    @classmethod
    def _opened(cls, store: Store, envelope: Envelope, keys: KeyRing, unlocked: Unlocked | None) -> Repository:
        config = Config.decode(Cipher(keys).open_envelope(ObjectKind.CONFIG, CONFIG_NAME, envelope))
        if config.repo_id != envelope.repo_id or (config.encryption == "none") == keys.encrypted:
            raise Damaged("the config contradicts its envelope", subject=CONFIG_NAME)
        config.require(Operation.READ)
        return cls(store, config, keys, unlocked)

    @classmethod
    def _open_to_write(cls, store: Store, envelope: Envelope, text: str) -> Repository:
        from repository.writers import WriterKey

        writer = WriterKey.parse(text)
        if envelope.repo_id != writer.repo_id:
            raise WrongPassword("the write-only key is of another repository", subject=store.url)
        config = Config.decode(writer.config)
        config.require(Operation.WRITE)
        return cls(store, config, writer.key_ring(store))

    @property
    def id(self) -> bytes:
        return self.config.repo_id

    @property
    def chunker(self) -> ChunkerParams:
        return self.config.chunker

    @property
    def encrypted(self) -> bool:
        return self.keys.encrypted

    @property
    def write_only(self) -> bool:
        """Whether the key at hand stores backups and reads none."""
        return self.keys.writer is not None

    @property
    def writer(self) -> str:
        """What snapshots made with this key have as `writer`."""
        return "" if self.keys.writer is None else self.keys.writer.id.hex()

    @property
    def slot(self) -> KeySlot | None:
        """The key slot that opened it."""
        return None if self.unlocked is None else self.unlocked.slot

    @cached_property
    def packs(self) -> PackReader:
        """Opens the packs of this repository."""
        from repository.pack import PackReader  # needs NumPy, whose import opening a repository need not wait for

        return PackReader(self.keys)

    def credentials(self) -> Credentials:
        """A picklable secret for `attach`."""
        from repository.credentials import Credentials  # light opening: see `known_writers`

        return Credentials(self.id, self.config.encode(), copy(self.keys), self.unlocked)

    def put_object(self, kind: ObjectKind, name: str, plain: bytes, writer: bytes | None = None) -> int:
        """Seal and store an object; the bytes it takes. With `writer`, as the write-only machine of that id would.

        Raises Exists and other StoreErrors, NoKey; WrongPassword for what a write-only machine may not write.
        """
        sealed = self.cipher.seal_object(kind, name, plain, writer)
        self.store.put(name, [sealed])
        return len(sealed)

    def get_object(self, kind: ObjectKind, name: str) -> bytes:
        """Read and open an object. Raises Missing and other StoreErrors, Damaged, NewerFormat, NoKey; WrongPassword on
        a write-only machine."""
        return self.get_written(kind, name)[0]

    def get_written(self, kind: ObjectKind, name: str) -> tuple[bytes, bytes | None]:
        """As `get_object`, and the id of the write-only machine that wrote the object, None if none did."""

        def attempt() -> tuple[bytes, bytes | None]:
            envelope = Envelope.parse(self.store.get(name, 0, OBJECT_MAX + 1), name)
            return self.cipher.open_envelope(kind, name, envelope), envelope.writer

        return self.rereads.read(name, attempt)

    def list_keys(self) -> SlotListing:
        """The key slots, and those that cannot be read."""
        return read_slots(self.store, self.id)

    def read_epochs(self) -> EpochsFound:
        """The epochs as they are in the store now. Raises UsageError without encryption, Damaged, StoreError."""
        return read_epochs(self.store, self.id, self._opener())

    def reload_keys(self) -> None:
        """Learn of epochs that began since the repository was opened. Raises Damaged, StoreError."""
        self.keys.update(self.read_epochs().ring)

    def rotate(self) -> Rotation:
        """Begin a new epoch: what is stored from now on opens with the key slots that are left, and with no key that
        anybody had before. Raises as `rotation.rotate`."""
        from repository.rotation import rotate

        rotation = rotate(self.store, self.id, self._opener(), self._writers.valid)
        self.reload_keys()
        return rotation

    def add_password(self, password: str, label: str = "", kdf: KdfParams | None = None) -> KeySlot:
        """A further password that opens the repository. Raises UsageError for a secret of another kind."""
        self._opener()
        return add_password_slot(self, password, label, kdf).slot

    def add_key_file(self, key: KeyFile) -> KeySlot:
        """A further key file, made for this repository, that opens it."""
        self._opener()
        return add_key_file_slot(self, key).slot

    def add_recovery_code(self, label: str = "") -> tuple[KeySlot, str]:
        """A further recovery code, shown once."""
        self._opener()
        unlocked, code = add_recovery_slot(self, label)
        return unlocked.slot, code

    def remove_key(self, prefix: str) -> KeySlot:
        """Delete the key slot whose id begins with `prefix`. Raises NotFound, UsageError for the last one.

        Whoever knew its secret may have kept a copy: only `rotate` keeps new data from it.
        """
        self._opener()
        return remove_slot(self.store, self.id, prefix)

    def list_writers(self) -> list[Writer]:
        """The write-only machines, revoked ones too. Raises as `load_writers`."""
        self._opener()
        return self._writers.load()

    def issue_writer(self, label: str) -> WriterKey:
        """A key for a machine that stores backups and reads none. Raises UsageError, NoKey, StoreError."""
        self._opener()
        self.reload_keys()
        return self._writers.issue(label)

    def revoke_writer(self, writer: Writer) -> int:
        """What a write-only machine writes from now on does not count; how many objects it wrote so far, which do."""
        self._opener()
        return self._writers.revoke(writer)

    def password_slot(self) -> KeySlot:
        """The slot of the password that opened it. Raises UsageError if something else did."""
        if self.slot is None or self.slot.kdf is None:
            raise UsageError("opened without a password: there is none to change", hint="lox key add adds another key")
        return self.slot

    def change_password(self, password: str, kdf: KdfParams | None = None) -> KeySlot:
        """Replace the password slot that opened this repository: the new one is stored before the old one goes."""
        old = self.password_slot()
        self.unlocked = add_password_slot(self, password, old.label, kdf)
        delete(self.store, old.name, "replacing a password", _BOTH_OPEN)
        return self.unlocked.slot

    def _opener(self) -> Unlocked:
        if self.write_only:
            raise only_writes()
        if self.unlocked is None:
            raise UsageError("the repository is not encrypted: it has no keys", subject=self.store.url)
        return self.unlocked

    def __repr__(self) -> str:
        return f"Repository({self.id.hex()} at {self.store.url})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a repository is not pickled; attach with its credentials")


def _shared(related: Repository, encryption: str) -> tuple[ChunkerParams, ChunkKeys | None]:
    """What a new repository has from `related`. Raises UsageError if only one of the two is encrypted."""
    keys = related.keys
    if related.encrypted != (encryption != "none"):
        raise UsageError(
            "repositories cut and name chunks alike only if both are encrypted, or none",
            subject=related.store.url,
            hint="leave out --encryption none" if related.encrypted else "use --encryption none",
        )
    return related.chunker, None if keys.id_key is None else ChunkKeys(keys.id_key, keys.chunker_key)
