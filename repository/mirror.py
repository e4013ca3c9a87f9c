"""Bringing one store of a repository up to another, object by object, without a key.

Both hold the same repository: the same keys, config and names. What is missing is copied byte for byte, checked against
its own checksum on the way, in the order in which it was written: keys, config, packs, index, notes, trash, snapshots.
What is there is listed the other way round, snapshots first. So at any moment the target is a repository of its own in
which every snapshot has all it needs, and an interruption needs no cleaning up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

from model.errors import Damaged, Exists, Missing, NewerFormat, NoRepository, StoreError, UsageError
from repository.cache import list_packs
from repository.cache_dir import default_cache_dir
from repository.condemned import condemned_packs
from repository.config import CONFIG_NAME
from repository.epochs import COPY, EPOCHS_FOLDER, EpochDocument
from repository.footer import PACK_MAX
from repository.index import ChunkIndex
from repository.pack import pack_name
from repository.repository import Repository
from repository.rereads import Rereads
from repository.reserve import RESERVE_PREFIX
from repository.scrub import check_bytes
from repository.seal import OBJECT_MAX, check_envelope
from repository.session_state import DEAD_AFTER, SESSION_PREFIX
from repository.slots import FOLDER as KEYS_PREFIX
from repository.slots import KeySlot
from repository.snapshot import SNAPSHOT_PREFIX
from repository.store import Store
from repository.trash import TRASH_PREFIX
from repository.writers import WRITERS_FOLDER

LANES = 4  # objects on their way at once; each is whole in memory, a pack is 64 MiB
ROUNDS = 20  # times the source is listed anew because something went while it was copied
_ORDER = (KEYS_PREFIX, CONFIG_NAME, "packs/", "index/", "notes/", "gc/", "trash/", SNAPSHOT_PREFIX)
_OTHERS = 2  # the rank of what we do not know: before what may need it
_OF_ONE_STORE = (SESSION_PREFIX, RESERVE_PREFIX)
_NEVER_EMPTY = ("packs/", "index/", SNAPSHOT_PREFIX)  # what was emptied on purpose is a new repository
_SEALED = (CONFIG_NAME, "index/", SNAPSHOT_PREFIX, "notes/", "trash/", "gc/condemned/")

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is); may raise to end it."""


@dataclass(slots=True)
class SyncReport:
    """What was done: `copied` objects of `bytes`, of which `healed` took the place of one that was cut off; `deleted`
    because the source has them no more; `kept`: those that would have been, but somebody is at work on the source, or
    snapshots are gone from the source that nobody purged there: `lost`, by id. `reread`: see `repository.rereads`.

    `findings`: objects of the source that are damaged and so were not copied, by name.
    """

    copied: int = 0
    bytes: int = 0
    present: int = 0
    snapshots: int = 0
    healed: int = 0
    deleted: int = 0
    kept: int = 0
    lost: list[str] = field(default_factory=list)
    reread: int = 0
    findings: dict[str, str] = field(default_factory=dict)


def require_same(source: Store, target: Store) -> None:
    """Raises UsageError unless `target` holds the repository of `source`, whole or in part, or nothing.

    Raises NoRepository if `source` holds none, and StoreError.
    """
    try:
        config = source.get(CONFIG_NAME, 0, OBJECT_MAX + 1)
    except Missing as error:
        raise NoRepository("no repository here", subject=source.url, hint="name the one that has it first") from error
    try:
        same = target.get(CONFIG_NAME, 0, OBJECT_MAX + 1) == config
        what = "another repository lies there"
    except Missing:
        what = "something else lies there"
        ours = {name for name, _ in source.list(KEYS_PREFIX)}
        same = all(name in ours for prefix in _ORDER for name, _ in target.list(prefix))
    if not same:
        raise UsageError(what, subject=target.url, hint="a mirror is an empty place, or a mirror of this repository")


def require_whole(repository: Repository) -> None:
    """Raises Damaged if a pack that the index names is missing or cut off: such a source is no model for others.

    Packs on their way out do not count. Raises StoreError, NewerFormat.
    """
    index = ChunkIndex.load(repository, default_cache_dir())
    named = dict(zip(index.packs, index.pack_table["size"].tolist(), strict=True))
    present = dict(list_packs(repository))
    leaving = condemned_packs(repository)
    lost = [pack for pack, size in named.items() if pack not in leaving and present.get(pack) != size]
    if lost:
        raise Damaged(
            "packs are missing that the index names: nothing is deleted elsewhere",
            subject=repository.store.url,
            why=f"{len(lost)} packs, the first: {pack_name(lost[0])}",
            hint="bring them back with: lox store sync, the other way round",
        )


def adopt(source: Store, target: Store) -> None:
    """Make `target`, an empty place or a mirror, a mirror of `source`: with its keys and config, nothing else.

    Raises as `require_same`.
    """
    require_same(source, target)
    for name in [*(name for name, _ in source.list(KEYS_PREFIX)), CONFIG_NAME]:
        if not target.exists(name):
            data = source.get(name, 0, OBJECT_MAX + 1)
            _check(name, data, len(data))
            target.put(name, [data])


def sync(
    source: Store,
    target: Store,
    *,
    delete: bool = False,
    purged: Collection[str] | None = (),
    dry_run: bool = False,
    lanes: int = LANES,
    progress: Progress = lambda what, done, total: None,
) -> SyncReport:
    """Copy what `target` lacks of the repository in `source`; with `delete`, remove what the source has no more.

    `purged` are ids of snapshots that may be gone because they were purged; None: whatever is gone may be. If others
    are gone nothing is deleted: they were lost, and nobody knows what they need. With `delete`, raises Damaged if some
    of the source is damaged or a whole folder of it is gone; then nothing is removed. Raises as `require_same`,
    StoreError, and what `progress` raises; what was copied until then stays.
    """
    if source.url == target.url:
        raise UsageError("both are the same place", subject=source.url)
    require_same(source, target)
    with ThreadPoolExecutor(lanes, thread_name_prefix="sync") as pool:
        run = _Sync(source, target, pool, lanes, dry_run, progress)
        run.copy()
    if delete:
        run.delete(purged)
    run.report.reread = run.rereads.count
    return run.report


class _Sync:
    def __init__(
        self, source: Store, target: Store, pool: ThreadPoolExecutor, lanes: int, dry_run: bool, progress: Progress
    ) -> None:
        self._source, self._target = source, target
        self._pool, self._lanes = pool, lanes
        self._dry_run = dry_run
        self._progress = progress
        self._total = 0
        self.report = SyncReport()
        self.rereads = Rereads()

    def copy(self) -> None:
        for _ in range(ROUNDS):
            missing = self._missing()
            if all(self._copy_rank(rank, some) for rank, some in groupby(missing, lambda one: _rank(one[0]))):
                return
        raise StoreError("the source changes faster than it can be copied", subject=self._source.url)

    def _missing(self) -> list[tuple[str, int]]:
        """What the target lacks, in the order in which it is copied."""
        snapshots = dict(self._source.list(SNAPSHOT_PREFIX))  # before all else: what they need is then listed below
        wanted = {
            name: size
            for name, size in self._source.list()
            if not name.startswith(_OF_ONE_STORE) and (not name.startswith(SNAPSHOT_PREFIX) or name in snapshots)
        }
        there = dict(self._target.list())
        missing = [each for each in wanted.items() if there.get(each[0]) != each[1]]
        missing = [each for each in missing if each[0] not in self.report.findings]
        self.report.present = len(wanted) - len(missing)
        self._total = self.report.bytes + sum(size for _, size in missing)
        return sorted(missing, key=lambda each: (_rank(each[0]), each[0]))

    def _copy_rank(self, rank: int, objects: Iterable[tuple[str, int]]) -> bool:
        """Copy objects that do not need each other. False if one went meanwhile that others may have needed."""
        if self._dry_run:
            return self._count(objects)
        gone = False
        for name, size, what in self._outcomes(objects):
            self._progress("copying objects", self.report.bytes, self._total)
            if what == "gone":
                gone = True
            elif what not in ("", "healed"):
                self.report.findings[name] = what
            else:
                self.report.healed += what == "healed"
                self.report.copied += 1
                self.report.bytes += size
                self.report.snapshots += name.startswith(SNAPSHOT_PREFIX)
        return not gone or rank == _rank(SNAPSHOT_PREFIX)

    def _count(self, objects: Iterable[tuple[str, int]]) -> bool:
        for name, size in objects:
            self.report.copied += 1
            self.report.bytes += size
            self.report.snapshots += name.startswith(SNAPSHOT_PREFIX)
        return True

    def _outcomes(self, objects: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int, str]]:
        """Each with what came of it, as many under way as there are lanes."""
        waiting = iter(objects)
        under_way: list[tuple[str, int, Future[str]]] = []
        while True:
            while len(under_way) < self._lanes and (each := next(waiting, None)) is not None:
                under_way.append((*each, self._pool.submit(self._copy_one, *each)))
            if not under_way:
                return
            name, size, future = under_way.pop(0)
            yield name, size, future.result()

    def _copy_one(self, name: str, size: int) -> str:
        """Copy one object; "gone", "healed", what is wrong with it, or nothing to say."""

        def attempt() -> bytes:
            data = self._source.get(name, 0, PACK_MAX + 1)
            _check(name, data, size)
            return data

        try:
            data = self.rereads.read(name, attempt)
        except Missing:
            return "gone"
        except (Damaged, NewerFormat) as error:
            return str(error)
        try:
            self._target.put(name, [data])
        except Exists:
            if self._target.size(name) != size:  # cut off by something that is no store of ours
                self._target.delete(name)
                self._target.put(name, [data])
                return "healed"
        return ""

    def delete(self, purged: Collection[str] | None) -> None:
        """Remove what the source has no more, what needs others first. Raises Damaged for a source that is no model."""
        if self.report.findings:
            raise Damaged(
                "objects of the source are damaged: nothing is deleted elsewhere",
                subject=self._source.url,
                why=f"{len(self.report.findings)} objects, the first: {min(self.report.findings)}",
                hint="lox check tells more; what is sound was copied",
            )
        there = [name for name, _ in self._target.list() if not name.startswith(_OF_ONE_STORE)]
        wanted = {name for name, _ in self._source.list()}
        extra = sorted((name for name in there if name not in wanted), key=lambda name: (-_rank(name), name))
        known = None if purged is None else {*purged, *_trashed(wanted), *_trashed(there)}
        gone = {name.removeprefix(SNAPSHOT_PREFIX) for name in extra if name.startswith(SNAPSHOT_PREFIX)}
        self.report.lost = [] if known is None else sorted(gone - known)
        self._require_model(there, wanted, gone if known is None else known)
        if self.report.lost or (extra and any(True for _ in _at_work(self._source))):
            self.report.kept = len(extra)  # a backup under way may have sent them here before it stored them there
            return
        for number, name in enumerate(extra):
            self._progress("deleting objects", number, len(extra))
            if not self._dry_run:
                try:
                    self._target.delete(name)
                except Missing:
                    continue
            self.report.deleted += 1

    def _require_model(self, there: Collection[str], wanted: Collection[str], known: Collection[str]) -> None:
        """Raises Damaged if the source has lost all of something; snapshots `known` to be gone do not count."""
        accounted = {SNAPSHOT_PREFIX + each for each in known}
        for prefix in _NEVER_EMPTY:
            lost = any(name.startswith(prefix) and name not in accounted for name in there)
            if lost and not any(name.startswith(prefix) for name in wanted):
                raise Damaged(
                    "the source has lost a whole folder: nothing is deleted elsewhere",
                    subject=f"{self._source.url} {prefix}",
                    hint="bring it back with: lox store sync, the other way round",
                )


def _trashed(names: Iterable[str]) -> set[str]:
    """Ids of the snapshots that lie in the trash."""
    return {name.split("/")[2] for name in names if name.startswith(TRASH_PREFIX)}


def _at_work(store: Store) -> Iterator[str]:
    """Objects of sessions that may still run."""
    for name, _ in store.list(SESSION_PREFIX):
        try:
            written = store.written(name)
        except Missing:
            continue
        if written is None or written > time.time_ns() - 2 * DEAD_AFTER:
            yield name


def _rank(name: str) -> int:
    return next((rank for rank, prefix in enumerate(_ORDER) if name.startswith(prefix)), _OTHERS)


def _check(name: str, data: bytes, size: int) -> None:
    """Raises Damaged or NewerFormat if an object is not what its own checksum says."""
    if len(data) != size:
        raise Damaged("object has another length than listed", subject=name)
    if name.startswith("packs/"):
        try:
            pack_id = bytes.fromhex(name.rpartition("/")[2])
        except ValueError:
            return  # not a pack of ours, and nobody reads it
        if trouble := check_bytes(pack_id, data):
            raise Damaged("a pack is damaged", subject=name, why=trouble)
    elif name.startswith(EPOCHS_FOLDER):
        EpochDocument.decode(name.removeprefix(EPOCHS_FOLDER).removesuffix(COPY), data)
    elif name.startswith(WRITERS_FOLDER):
        check_envelope(data, b"LOXO", name)
    elif name.startswith(KEYS_PREFIX):
        KeySlot.decode(name.removeprefix(KEYS_PREFIX), data)
    elif name.startswith(_SEALED):
        check_envelope(data, b"LOXO", name)
