"""The keys of one repository: two that never change, and a set of further ones for each epoch.

An epoch is the time from one rotation to the next. What is stored in it is sealed under keys derived from the key of
the epoch, which is random: whoever knows only older ones cannot derive it. Whoever knows a newer one finds all older
ones in its document (repository/epochs.py). The first epoch's key is the master key, from which the id key and the
chunker key are derived for the whole life of the repository: rotation costs no deduplication.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from model.errors import Damaged, NoKey, WrongPassword
from repository.keys import KEY_SIZE, ChunkKeys, hkdf, purpose_info

PUBLIC_CHUNKER_KEY = bytes(KEY_SIZE)  # of repositories without encryption
EPOCH_ID_SIZE = 16
FIRST_ID = bytes(EPOCH_ID_SIZE)
WRITER_ID_SIZE = 16
EPOCH_NUMBER_MAX = 0xFFFFFFFF
EPOCHS_MAX = 1000  # epochs of a repository
RELOAD_SECONDS = 30.0  # an epoch that was not there is not asked for again sooner

_TELLING = ("snapshots/", "index/")  # objects that tell of epochs; every run meets them, so nothing else needs to
_EPOCH_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{32})")


@dataclass(frozen=True, slots=True, repr=False)
class Epoch:
    """One epoch with all of its keys. Two rotations at the same time may give two epochs the same `number`.

    `data_key` and `meta_key` wrap the keys of packs; `object_key` seals objects.
    """

    number: int
    id: bytes
    key: bytes
    data_key: bytes
    meta_key: bytes
    object_key: bytes

    @classmethod
    def of(cls, repo_id: bytes, number: int, epoch_id: bytes, key: bytes) -> Epoch:
        """The epoch whose key is the 32 bytes `key`."""
        purposes = ("data packs", "meta packs", "objects")
        return cls(number, epoch_id, key, *(hkdf(key, purpose_info(purpose, repo_id)) for purpose in purposes))

    @classmethod
    def first(cls, repo_id: bytes, master: bytes) -> Epoch:
        """The epoch that begins when the repository is created."""
        return cls.of(repo_id, 0, FIRST_ID, master)

    @property
    def name(self) -> str:
        """Number and id, as in the name of its document."""
        return epoch_name(self.number, self.id)

    def __repr__(self) -> str:
        return f"Epoch({self.name})"


def only_writes(subject: str = "") -> WrongPassword:
    """The error for a write-only machine that is to read."""
    return WrongPassword(
        "this key only writes", subject=subject, why="it belongs to a write-only machine",
        hint="to read, use a password or the recovery code",
    )  # fmt: skip


def epoch_name(number: int, epoch_id: bytes) -> str:
    """How an epoch is called in names of objects and in documents."""
    return f"{number:08x}-{epoch_id.hex()}"


def parse_epoch_name(text: str) -> tuple[int, bytes] | None:
    """Number and id of a name made by `epoch_name`, None for anything else."""
    match = _EPOCH_NAME.fullmatch(text)
    return (int(match[1], 16), bytes.fromhex(match[2])) if match else None


@dataclass(frozen=True, slots=True, repr=False)
class WriterKeys:
    """What a write-only machine seals with: `public` is the public key of the epoch `number`, `secret` shows to those
    who can read that it was this machine."""

    id: bytes
    secret: bytes
    number: int
    public: bytes

    def __repr__(self) -> str:
        return f"WriterKeys({self.id.hex()})"


@dataclass(slots=True, repr=False)
class KeyRing:
    """The keys of one repository. Without encryption `id_key` is None and only the public chunker key is there.

    `epochs` are those that could be opened, oldest first. `doubt` says why nothing may be sealed under the last of
    them, if so. `reload` brings the ring up to date with the store; it stays in this process. Threads may share it.
    On a write-only machine there are no epochs, but a `writer`. `regressed` is the number of an epoch that this host
    has seen before, or in which some object says that it was sealed, if the store shows older ones only.
    """

    repo_id: bytes
    id_key: bytes | None
    chunker_key: bytes
    epochs: tuple[Epoch, ...] = ()
    doubt: str = ""
    writer: WriterKeys | None = None
    regressed: int = field(default=0, compare=False)
    reload: Callable[[], None] | None = field(default=None, compare=False)
    _missed: dict[int, float] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, master: bytes, repo_id: bytes, later: Iterable[Epoch] = (), doubt: str = "") -> KeyRing:
        """The keys derived from the 32 bytes `master`, and those of `later` epochs."""
        id_key, chunker_key = (hkdf(master, purpose_info(purpose, repo_id)) for purpose in ("chunk id", "chunker"))
        epochs = (Epoch.first(repo_id, master), *sorted(later, key=lambda epoch: epoch.name))
        return cls(repo_id, id_key, chunker_key, epochs, doubt)

    @classmethod
    def public(cls, repo_id: bytes) -> KeyRing:
        """The keys of a repository without encryption: none."""
        return cls(repo_id, None, PUBLIC_CHUNKER_KEY)

    def share(self, keys: ChunkKeys) -> None:
        """Name and cut chunks as another repository does."""
        self.id_key, self.chunker_key = keys.id_key, keys.chunker_key

    @property
    def encrypted(self) -> bool:
        return self.id_key is not None

    @property
    def epoch(self) -> int:
        """The number of the epoch that new packs and objects belong to; 0 without encryption."""
        if self.writer is not None:
            return self.writer.number
        return self.epochs[-1].number if self.epochs else 0

    @property
    def master(self) -> bytes:
        """The key of the first epoch."""
        return self.epochs[0].key

    def sealing(self) -> Epoch:
        """The epoch to seal new things under. Raises NoKey if it is, still, in doubt."""
        if (self.doubt or self.epoch < self.regressed) and self.reload is not None:
            self.reload()
        self._require_newest()
        return self.epochs[-1]

    def writing(self) -> WriterKeys | None:
        """What a write-only machine seals with, None elsewhere. Raises NoKey if it is in doubt."""
        if self.writer is not None:
            self._require_newest()
        return self.writer

    def _require_newest(self) -> None:
        if self.doubt or self.epoch < self.regressed:
            raise NoKey(
                "nothing is written while it is in doubt which keys are the newest",
                why=self.doubt or f"epoch {self.regressed} was seen, which the store does not show any more",
                hint="lox key list shows the epochs",
            )

    def opening(self, number: int, subject: str) -> tuple[Epoch, ...]:
        """The epochs of this number, for the object `subject`. Looks into the store again for one it does not have.

        Raises NoKey if there may be such an epoch, Damaged if there is none, WrongPassword on a write-only machine.
        """
        if self.writer is not None:
            raise only_writes(subject)
        found = tuple(epoch for epoch in self.epochs if epoch.number == number)
        if not found and self.reload is not None and self._may_ask(number):
            self.reload()
            found = tuple(epoch for epoch in self.epochs if epoch.number == number)
        if found:
            return found
        if self.reload is not None and self.epoch < number <= EPOCHS_MAX and subject.startswith(_TELLING):
            self.regressed = max(self.regressed, number)  # its document is lost: no time to write in an older one
        if self.doubt or self.reload is None:
            raise NoKey("sealed in an epoch this key does not open", subject=subject, why=self.doubt or f"{number}")
        raise Damaged("sealed in an epoch that never was", subject=subject, why=str(number))

    def writer_secrets(self, writer_id: bytes, subject: str) -> tuple[bytes, ...]:
        """The secret of a write-only machine, derived from the epoch its id ends with. Raises as `opening`."""
        number = int.from_bytes(writer_id[-4:], "little")
        info = purpose_info("writer", self.repo_id)
        return tuple(hkdf(epoch.key, info, writer_id) for epoch in self.opening(number, subject))

    def update(self, other: KeyRing) -> None:
        """Take over what `other`, read later, knows of the epochs."""
        self.epochs, self.doubt = other.epochs, other.doubt

    def chunk_id(self, chunk: bytes | bytearray | memoryview) -> bytes:
        """The 32-byte name of a chunk: HMAC-SHA-256 under `id_key`, plain SHA-256 without encryption."""
        if self.id_key is None:
            return hashlib.sha256(chunk).digest()
        return hmac.digest(self.id_key, chunk, "sha256")

    def local_key(self, purpose: str) -> bytes:
        """A key that authenticates files in this host's cache; the same in every epoch."""
        return hkdf(self.id_key or b"", purpose_info(purpose, self.repo_id))

    def _may_ask(self, number: int) -> bool:
        now = time.monotonic()
        if now < self._missed.get(number, 0.0):
            return False
        if len(self._missed) >= 64:  # numbers an attacker made up
            self._missed.clear()
        self._missed[number] = now + RELOAD_SECONDS
        return True

    def __getstate__(self) -> object:
        return (self.repo_id, self.id_key, self.chunker_key, self.epochs, self.doubt, self.writer)

    def __setstate__(self, state: tuple[bytes, bytes | None, bytes, tuple[Epoch, ...], str, WriterKeys | None]) -> None:
        self.repo_id, self.id_key, self.chunker_key, self.epochs, self.doubt, self.writer = state
        self.reload, self._missed, self.regressed = None, {}, 0

    def __repr__(self) -> str:
        return f"KeyRing({self.repo_id.hex()}, {'encrypted' if self.encrypted else 'not encrypted'})"
