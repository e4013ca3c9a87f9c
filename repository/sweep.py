"""The second phase of garbage collection: deleting condemned packs that nobody can need any more.

A pack is deleted once each session that is at work has read a mark that names it, and a fresh look at all snapshots
shows that none needs it. From then on none ever will: new sessions do not rely on condemned packs, and one that was
presumed dead by mistake proves that its packs are in no mark before it commits. So what needs a pack can only become
less, and a deletion that is carried out late hits nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from model.errors import Missing, RunFailed
from repository.condemned import CONDEMNED_PREFIX, Condemned, Reason
from repository.needs import Progress
from repository.pack import pack_name
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.session_state import SessionState, load_sessions, presume_dead, seems_dead, telling
from repository.sessions import Session

BATCH = 64  # packs deleted between two looks at our own session
DELETERS = 8  # requests at a time
CLOCKS_APART = 300 * 10**9  # ns by which the clocks of store and host may differ where one presumes by them
EXCLUSIVE = frozenset({"prune", "repair"})  # work of which there is one at a time
STORE_NOTHING = EXCLUSIVE | {"restore", "check", "undelete"}  # nothing that a later run would use


@dataclass(slots=True)
class Others:
    """The other sessions: those at work, and those that ended with packs stored that no snapshot needs yet."""

    live: list[SessionState] = field(default_factory=list)
    unfinished: list[SessionState] = field(default_factory=list)
    clock: str = ""  # why nobody is presumed dead by the clock


def look_around(repository: Repository, session: Session, keep_unfinished: int | None = None) -> Others:
    """The other sessions, after those of dead processes were fenced off. Raises StoreError.

    What ended unfinished more than `keep_unfinished` ns ago is forgotten; None: nothing is.
    """
    others = Others()
    now = session.store_time()
    if now is not None and abs(now - time.time_ns()) > CLOCKS_APART:
        apart = (now - time.time_ns()) / 1e9
        others.clock = f"the clock of the store is {apart:+,.0f} s off that of this host"
        now = None
    by_id: dict[str, list[SessionState]] = {}
    for state in load_sessions(repository):
        if state.id != session.id:
            by_id.setdefault(state.id, []).append(state)
    for session_id, states in by_id.items():
        at_work = [state for state in states if not state.ended]
        if at_work and not (
            all(seems_dead(repository, state, now) for state in telling(at_work))
            and presume_dead(repository, session_id, states)
        ):
            others.live += at_work
        else:
            others.unfinished += states
    others.unfinished = [each for each in others.unfinished if not _forget_old(repository, each, keep_unfinished, now)]
    return others


def refuse_company(others: Others) -> None:
    """Raises RunFailed if somebody is at work beside whom nobody may delete or mend."""
    for state in others.live:
        if state.purpose in EXCLUSIVE:
            raise RunFailed("another one is at work on this repository", subject=str(state), hint="try again later")


def ripe_packs(marks: Iterable[Condemned], live: Collection[SessionState]) -> dict[bytes, frozenset[Reason]]:
    """Condemned packs of which every live session knows, and why they were condemned."""
    names: dict[bytes, set[str]] = {}
    reasons: dict[bytes, set[Reason]] = {}
    for mark in marks:
        for pack in mark.packs:
            names.setdefault(pack, set()).add(mark.name)
            reasons.setdefault(pack, set()).add(mark.reason)
    known = {frozenset(each) for each in names.values()}
    ripe = {each for each in known if all(state.knows(each) for state in live)}
    return {pack: frozenset(reasons[pack]) for pack, each in names.items() if frozenset(each) in ripe}


def delete_packs(
    repository: Repository, doomed: Mapping[bytes, int], held: Callable[[], None], progress: Progress
) -> int:
    """Delete packs, id → size; the bytes that frees. `held` raises if we may not go on. Raises StoreError."""
    packs = sorted(doomed)

    def delete(pack: bytes) -> int:
        try:
            repository.store.delete(pack_name(pack))
        except Missing:  # an interrupted run has done it
            return 0
        return doomed[pack]

    freed = 0
    with ThreadPoolExecutor(DELETERS, thread_name_prefix="delete") as pool:
        for at in range(0, len(packs), BATCH):
            progress("deleting packs", at, len(packs))
            held()
            freed += sum(pool.map(delete, packs[at : at + BATCH]))
    return freed


def release(
    repository: Repository, marks: Iterable[Condemned], packs: Collection[bytes], damaged_too: bool = False
) -> None:
    """Take `packs` out of the marks; out of those of damaged packs only if told so. Raises StoreError.

    A mark that changes is replaced: the new one is written before the old one goes.
    """
    for mark in marks:
        left = tuple(pack for pack in mark.packs if pack not in packs)
        if len(left) == len(mark.packs) or (mark.reason is Reason.DAMAGED and not damaged_too):
            continue
        if left:
            new = replace(mark, packs=left, name=CONDEMNED_PREFIX + os.urandom(16).hex())
            repository.put_object(ObjectKind.MARK, new.name, new.encode())
        try:
            repository.store.delete(mark.name)
        except Missing:
            continue


def protected_since(repository: Repository, others: Others) -> int | None:
    """The time, by the clock of the store, since which packs may be from runs that are not finished; None: nobody can
    tell. Far in the future if there are no such runs."""
    since = [state.since for state in [*others.live, *others.unfinished] if state.purpose not in STORE_NOTHING]
    if any(each is None for each in since):
        return None
    return min((each for each in since if each is not None), default=1 << 62)


def written_before(
    repository: Repository, packs: Iterable[bytes], since: int | None, progress: Progress
) -> list[bytes]:
    """Those of `packs` that were stored before `since` and so belong to no run under way. Raises StoreError."""
    if since is None:
        return []
    if since == 1 << 62:
        return list(packs)
    before = []
    packs = list(packs)
    for number, pack in enumerate(packs):
        progress("looking at unused packs", number, len(packs))
        try:
            written = repository.store.written(pack_name(pack))
        except Missing:
            continue
        if written is not None and written < since - 5 * 10**9:  # stores count in seconds
            before.append(pack)
    return before


def _forget_old(repository: Repository, state: SessionState, keep: int | None, now: int | None) -> bool:
    if keep is None:
        return False
    try:
        written = repository.store.written(state.name)
        age = time.time_ns() - state.time if written is None or now is None else now - written
        if age < keep:
            return False
        repository.store.delete(state.name)
    except Missing:
        pass
    return True
