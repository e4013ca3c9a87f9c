"""prune: garbage collection in two phases, without locks.

1. mark: what do all snapshots, those in the trash too, need; what is of use in each pack?
2. rewrite: copy what is needed out of packs that are mostly of no use, and make it findable;
3. condemn: packs that nobody needs are named in a mark, and from then on nobody relies on them;
4. sweep: condemned packs that nobody can need any more are taken out of the index and deleted.

It may run beside backups, and be interrupted anywhere: each step leaves every snapshot as it was, and the next run
goes on. What cannot be deleted yet, because somebody is at work who has not read the marks, is deleted by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import numpy as np

from model.entries import U8
from model.errors import Damaged, Refused, RunFailed, StoreFull
from repository.cache import list_packs
from repository.cache_dir import default_cache_dir
from repository.condemned import Condemned, Reason, condemn, condemned_for, load_condemned
from repository.config import Operation
from repository.index import ChunkIndex
from repository.index_upkeep import rewrite_index
from repository.leftovers import old_leftovers, remove_leftovers
from repository.needs import Needs, Progress
from repository.part_codec import PartRef
from repository.prune_plan import Plan, PrunePolicy, Usage, plan_prune
from repository.prune_report import PruneReport
from repository.reencrypt import old_packs, reseal_objects
from repository.repository import Repository
from repository.reserve import drawing_on_reserve
from repository.rewrite import Rewritten, rewrite
from repository.sessions import Session, open_session
from repository.snapshot import Snapshot, Snapshots
from repository.sweep import (
    Others,
    delete_packs,
    keeps_deleted,
    look_around,
    only_look,
    protected_since,
    refuse_company,
    release,
    ripe_packs,
    written_before,
)
from repository.trash import finish_reseals, load_live, load_trash, purge, purgeable

__all__ = ["PrunePolicy", "PruneReport", "prune"]


def prune(
    repository: Repository,
    policy: PrunePolicy | None = None,
    dry_run: bool = False,
    progress: Progress = lambda what, done, total: None,
    reencrypt: bool = False,
) -> PruneReport:
    """Give back the room of what no snapshot needs.

    With `reencrypt` packs that are sealed under the keys of older epochs are rewritten whatever is in them, up to
    `max_rewrite`, and snapshots, notes and the like are sealed anew. Raises Damaged if something that
    snapshots need is missing or cannot be read: then nothing is deleted; RunFailed if another one is at work,
    Refused if the store does not let us delete, StoreFull if there was no room to rewrite packs, or, though the
    reserve was given up, to begin; other StoreErrors, NewerFormat, and what `progress` raises.
    """
    repository.config.require(Operation.GC)
    policy = policy or PrunePolicy()

    def run() -> _Prune:
        with open_session(repository, "prune") as session:
            session.require_deletes("lox prune")  # better now than after hours
            work = _Prune(repository, policy, progress, reencrypt, session)
            try:
                work.run()
            except Refused as error:
                hint = "nothing is lost; a run that may do it goes on from here"
                raise Refused(
                    "the store refuses what pruning needs", subject=error.subject, why=error.why, hint=hint
                ) from error
            return work

    if dry_run:
        return _Prune(repository, policy, progress, reencrypt, None).plan_only()
    done = drawing_on_reserve(repository.store, run)
    if done.full is not None:
        hint = f"{done.report.deleted} packs were deleted first, lox prune goes on from here; or make room elsewhere"
        raise StoreFull("the store has no room to rewrite packs", subject=done.full.subject, hint=hint) from done.full
    return done.report


class _Prune:
    def __init__(
        self,
        repository: Repository,
        policy: PrunePolicy,
        progress: Progress,
        reencrypt: bool,
        session: Session | None,
    ) -> None:
        self._repository = repository
        self._policy = policy
        self._progress = progress
        self._reencrypt = reencrypt
        self._session = session
        self._parts: set[PartRef] = set()
        self.report = PruneReport(session is None)
        self.full: StoreFull | None = None  # why not all packs were rewritten

    def plan_only(self) -> PruneReport:
        """What a run would do, were nobody else at work."""
        others = only_look(self._repository, self._policy.unfinished)
        needs, usage, plan, marks = self._mark(self._kept(time.time_ns()), others)
        index, report = needs.index, self.report
        report.rewritten, report.rescued = len(plan.rewrite), len(plan.rescue)
        of_those = usage.needed & np.isin(index.segments.pack, plan.rewrite)
        report.bytes_read = int(index.segments.stored[of_those].sum(dtype=np.int64))
        report.bytes_written = plan.copied
        rewritten = {index.packs[row] for row in plan.rewrite}
        needed = {index.packs[row] for row in np.flatnonzero(usage.needed_packs(index)).tolist()} - rewritten
        condemned = {pack for mark in marks for pack in mark.packs} - needed
        new = rewritten | set(plan.unused)
        sizes = dict(list_packs(self._repository))
        ripe = [pack for pack in condemned & ripe_packs(marks, others.live).keys() if pack in sizes]
        if not others.live:
            ripe += new
        report.deleted, report.bytes_deleted = len(ripe), sum(sizes[pack] for pack in ripe)
        self._count_waiting((new | condemned) - set(ripe), sizes, others)
        report.count_leftovers(old_leftovers(self._repository.store, time.time_ns(), others.live))
        return report

    def run(self) -> None:
        """All phases. `report` and `full` say what came of it."""
        session, now = self._at_work(), time.time_ns()
        others = look_around(self._repository, session, self._policy.unfinished)
        refuse_company(others)
        finish_reseals(self._repository)  # an earlier run may have been interrupted
        needs, usage, plan, marks = self._mark(self._kept(now), others)
        self._may_go_on()
        self.report.purged = purge(self._repository, self._policy.trash, now)
        leftovers = old_leftovers(self._repository.store, session.store_time() or now, others.live)
        self.report.count_leftovers(leftovers)
        remove_leftovers(self._repository.store, leftovers)
        release(self._repository, marks, plan.rescue)
        self.report.rescued = len(plan.rescue)
        self._condemn(plan.unused, Reason.UNUSED)
        done = rewrite(self._repository, needs, usage, plan.rewrite, self._progress, self._give_up)
        del usage  # there is much in it
        self._count_rewritten(done)
        self._sweep(needs)
        if self._reencrypt:
            done_anew = reseal_objects(self._repository, self._progress)
            self.report.resealed, self.report.resealed_others = done_anew.snapshots, done_anew.others
            self.report.left_old = done_anew.left
        self.full = done.full

    def _kept(self, now: int) -> Snapshots:
        """The snapshots that need something once the trash has been purged, and what that is."""
        live = load_live(self._repository, default_cache_dir())
        gone = {one.id for one in purgeable(self._repository, self._policy.trash, now)}
        kept = Snapshots((each for each in live if each.id not in gone), live.unreadable)
        kept.extend(each for each in live if each.id in gone and self._repository.store.exists(each.name))
        self.report.purged = sorted(gone)
        self.report.in_trash = len(load_trash(self._repository, cache_dir=default_cache_dir())) - len(gone)
        return kept

    def _give_up(self, packs: list[bytes]) -> None:
        """All that is needed of these is in others."""
        self._condemn(packs, Reason.REWRITTEN)

    def _condemn(self, packs: list[bytes], reason: Reason) -> None:
        self._may_go_on()
        condemn(self._repository, packs, reason, time.time_ns())

    def _at_work(self) -> Session:
        assert self._session is not None, "only a dry run has no session"
        return self._session

    def _may_go_on(self) -> None:
        """Raises RunFailed if we were presumed dead: somebody else may have looked around since."""
        if not self._at_work().held():
            why = "it was not heard of for an hour or more: did this host sleep, or its clock jump?"
            raise RunFailed("this run was presumed dead by another one", why=why, hint="run lox prune again")

    def _mark(self, snapshots: Snapshots, others: Others) -> tuple[Needs, Usage, Plan, list[Condemned]]:
        """What is needed, and what is to be done about the rest. Snapshots come first, so that what a backup commits
        meanwhile is at worst taken for unused now, and found to be needed when packs are to be deleted."""
        for name, error in snapshots.unreadable:
            hint = "nobody knows what it needs, so nothing is deleted; lox check tells more"
            raise type(error)("a snapshot cannot be read", subject=name, why=error.what, hint=hint)
        report, marks = self.report, load_condemned(self._repository)
        condemned = frozenset(pack for mark in marks for pack in mark.packs)
        damaged = condemned_for(marks, Reason.DAMAGED)
        index = self._load_index(condemned, damaged)
        present = dict(list_packs(self._repository))
        needs = Needs(self._repository, index)
        self._follow(needs, snapshots)
        needs.keep_written(condemned_for(marks, Reason.REWRITTEN), condemned)
        usage = Usage.of(needs)
        used = [pack for pack, use in zip(index.packs, usage.needed_packs(index).tolist(), strict=True) if use]
        old = old_packs(self._repository, used, self._progress) if self._reencrypt else ()
        plan = plan_prune(index, usage, self._policy, present, condemned, damaged, old)
        report.old_keys = len(set(old) - {index.packs[row] for row in plan.rewrite})
        self._keep_unfinished(plan, others, present)
        report.packs, report.bytes_before = len(present), sum(present.values())
        report.unused, report.unused_bytes = len(plan.unused), sum(present[pack] for pack in plan.unused)
        report.left_unused = plan.left_unused
        return needs, usage, plan, marks

    def _load_index(self, condemned: frozenset[bytes], damaged: frozenset[bytes]) -> ChunkIndex:
        """What a write-only machine says is doubted more than what was condemned: it may be rubbish under the name of
        what others have."""
        index = ChunkIndex.load(self._repository, default_cache_dir(), only_present=True)
        return index.doubting_packs(condemned).doubting_packs(damaged).doubting_written().doubting_written()

    def _follow(self, needs: Needs, snapshots: list[Snapshot]) -> None:
        parts = needs.roots(snapshots, 1, self._progress)
        new = [part for part in parts if part not in self._parts]
        needs.follow(new, 1, self._progress)
        self._parts.update(new)
        if needs.missing:
            raise Damaged(
                "chunks that snapshots need are in no pack, so nothing is deleted",
                subject=f"{needs.missing} chunks",
                hint="lox check names the files, lox repair mends what it can; else forget the snapshots",
            )

    def _keep_unfinished(self, plan: Plan, others: Others, present: dict[bytes, int]) -> None:
        """Packs that no snapshot needs *yet* are no garbage."""
        since = protected_since(self._repository, others)
        old = set(written_before(self._repository, plan.unused, since, self._progress))
        kept = [pack for pack in plan.unused if pack not in old]
        plan.unused = [pack for pack in plan.unused if pack in old]
        self.report.unfinished, self.report.unfinished_bytes = len(kept), sum(present[pack] for pack in kept)

    def _count_rewritten(self, done: Rewritten) -> None:
        report = self.report
        report.rewritten, report.damaged = len(done.packs), done.damaged
        report.bytes_read, report.bytes_written = done.bytes_read, done.bytes_written
        report.segments_copied, report.segments_repacked = done.segments_copied, done.segments_repacked

    def _sweep(self, before: Needs) -> None:
        """Sessions are looked at before snapshots: who is not seen at work any more has committed."""
        session = self._at_work()
        session.renew()
        others = look_around(self._repository, session, self._policy.unfinished)
        refuse_company(others)
        marks = load_condemned(self._repository)
        ripe = ripe_packs(marks, others.live)
        sizes = dict(list_packs(self._repository))
        ids = list(before.ids_in(ripe))
        before.let_go()  # there is much in it, and what follows takes as much again
        needed, indexed = self._needed_of(ripe, ids, marks)
        doomed = {pack: sizes[pack] for pack in ripe if pack in sizes and pack not in needed}
        self._may_go_on()
        rescued = [pack for pack in needed if Reason.DAMAGED not in ripe[pack]]
        release(self._repository, marks, rescued)
        self.report.rescued += len(rescued)
        present = {pack for pack, _ in list_packs(self._repository)}  # after the index: it names stored packs only
        gone = {pack for pack in indexed if pack not in present}
        gone |= {pack for mark in marks for pack in mark.packs if pack not in present}
        drop = doomed.keys() | gone
        rest = self._rewrite_index(drop, bool(doomed))
        self.report.bytes_deleted, locked = delete_packs(self._repository, doomed, self._may_go_on, self._progress)
        rest()
        self.report.deleted, self.report.locked = len(doomed) - len(locked), len(locked)
        self.report.kept_deleted = bool(doomed) and keeps_deleted(self._repository, session)
        drop = drop - set(locked)  # their marks stay, so that the next run deletes them
        release(self._repository, load_condemned(self._repository), drop, damaged_too=True)
        condemned = {pack for mark in marks for pack in mark.packs}
        self._count_waiting(condemned - drop - needed, sizes, others)

    def _rewrite_index(self, drop: Collection[bytes], room_follows: bool) -> Callable[[], None]:
        """Take packs out of the index; what is to be done once they are deleted. On a store that is full that is all
        of it: until then their marks keep everybody from relying on them."""

        def rewrite_now() -> None:
            written, deleted = rewrite_index(self._repository, drop, self._may_go_on)
            self.report.index_written += written
            self.report.index_deleted += deleted

        try:
            rewrite_now()
        except StoreFull:
            if not room_follows:
                raise
            return rewrite_now
        return lambda: None

    def _needed_of(
        self, ripe: Collection[bytes], ids: list[U8], marks: list[Condemned]
    ) -> tuple[set[bytes], list[bytes]]:
        """Those of the `ripe` packs that some snapshot needs after all: one that was made since we marked, or because
        no other pack has one of the chunks `ids` (any more). And all packs that the index names."""
        snapshots = load_live(self._repository, default_cache_dir())
        for name, error in snapshots.unreadable:
            raise type(error)("a snapshot cannot be read", subject=name, why=error.what)
        condemned = frozenset(pack for mark in marks for pack in mark.packs)
        damaged = condemned_for(marks, Reason.DAMAGED)
        index = self._load_index(condemned, damaged)
        needs = Needs(self._repository, index)
        for some in ids:
            needs.need(some, 1)
        self._follow(needs, snapshots)
        used = Usage.of(needs).needed_packs(index)
        needs.let_go()
        return {index.packs[row] for row in np.flatnonzero(used).tolist()} & set(ripe), index.packs

    def _count_waiting(self, packs: set[bytes], sizes: dict[bytes, int], others: Others) -> None:
        there = [pack for pack in packs if pack in sizes]
        self.report.waiting, self.report.waiting_bytes = len(there), sum(sizes[pack] for pack in there)
        self.report.waiting_for = sorted({str(state) for state in others.live}) if there else []
        if there and others.live and others.clock:
            self.report.waiting_for.append(f"nobody is presumed dead: {others.clock}")
