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
from contextlib import suppress
from dataclasses import dataclass, field, replace

from model.errors import Missing, Refused, RunFailed
from repository.condemned import CONDEMNED_PREFIX, Condemned, Reason
from repository.needs import Progress
from repository.pack import pack_name
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.session_state import (
    End,
    SessionState,
    joined,
    load_session,
    load_sessions,
    presume_dead,
    seems_dead,
    telling,
)
from repository.sessions import Session

BATCH = 64  # packs deleted or looked at between two looks at our own session
DELETERS = 8  # requests at a time
CLOCKS_APART = 300 * 10**9  # ns by which the clocks of store and host may differ where one presumes by them
EXCLUSIVE = frozenset({"prune", "repair"})  # work of which there is one at a time
STORE_NOTHING = EXCLUSIVE | {"restore", "dump", "check", "undelete"}  # nothing that a later run would use


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
    by_id = _by_id(load_sessions(repository))
    by_id.pop(session.id, None)
    for session_id, states in by_id.items():
        left = _left_of(repository, session_id, states, now)
        if left is None:
            others.live += _as_one(states)
            continue
        for state in left:
            if keep_unfinished is None or not _is_old(repository, state, keep_unfinished, now):
                others.unfinished.append(state)
                continue
            with suppress(Missing):
                repository.store.delete(state.name)
    return others


def only_look(repository: Repository, keep_unfinished: int) -> Others:
    """As `look_around` before anything is done, changing nothing: of dead processes only those of this host are known.
    Raises StoreError."""
    others = Others()
    for states in _by_id(load_sessions(repository)).values():
        over = any(state.over for state in states)
        at_work = telling([state for state in states if not state.ended])
        if not over and not all(seems_dead(repository, state, None) for state in at_work):
            others.live += _as_one(states)
        elif keep_unfinished:
            left = [state for state in states if state.end is End.UNFINISHED] if over else states
            others.unfinished += [
                each for each in left if not each.ended or not _is_old(repository, each, keep_unfinished, None)
            ]
    return others


def _left_of(
    repository: Repository, session_id: str, states: list[SessionState], now: int | None
) -> list[SessionState] | None:
    """What is left of a session that ended, or is fenced off now, for the next run to use; None: it lives."""
    if any(state.over for state in states):
        return _cleared(repository, states)
    at_work = [state for state in states if not state.ended]
    if not at_work:
        return states
    dead = all(seems_dead(repository, state, now) for state in telling(at_work))
    if not dead or not presume_dead(repository, session_id, states):
        return None
    return load_session(repository, session_id)


def _cleared(repository: Repository, states: list[SessionState]) -> list[SessionState]:
    """Delete what is left of a session that says it is over, but for word of what the next run will use."""
    kept = [state for state in states if state.end is End.UNFINISHED]
    for state in sorted(states, key=lambda state: state.over):  # its last word goes last
        if state not in kept:
            with suppress(Missing):
                repository.store.delete(state.name)
    return kept


def _as_one(states: list[SessionState]) -> list[SessionState]:
    """What a session that lasts says: one state, and those that cannot be read."""
    known = [state for state in states if not state.ended and not state.unreadable]
    return [*([joined(known)] if known else []), *(state for state in states if state.unreadable)]


def _by_id(states: Iterable[SessionState]) -> dict[str, list[SessionState]]:
    found: dict[str, list[SessionState]] = {}
    for state in states:
        found.setdefault(state.id, []).append(state)
    return found


def _is_old(repository: Repository, state: SessionState, keep: int, now: int | None) -> bool:
    """Whether it was written `keep` ns ago or earlier, by the clock of the store if `now` is its time, or is gone."""
    try:
        written = repository.store.written(state.name)
    except Missing:
        return True
    age = time.time_ns() - state.time if written is None or now is None else now - written
    return max(age, 0) >= keep


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
) -> tuple[int, list[bytes]]:
    """Delete packs, id → size; the bytes of those deleted, and packs that the store refuses to delete: it may lock
    them for a time. `held` raises if we may not go on. Raises Refused if all are refused, other StoreErrors."""
    packs = sorted(doomed)
    refused: dict[bytes, Refused] = {}

    def delete(pack: bytes) -> int:
        try:
            repository.store.delete(pack_name(pack))
        except Missing:  # an interrupted run has done it
            return 0
        except Refused as error:
            refused[pack] = error
            return 0
        return doomed[pack]

    deleted = 0
    with ThreadPoolExecutor(DELETERS, thread_name_prefix="delete") as pool:
        for at in range(0, len(packs), BATCH):
            progress("deleting packs", at, len(packs))
            held()
            deleted += sum(pool.map(delete, packs[at : at + BATCH]))
            if len(refused) == at + len(packs[at : at + BATCH]):
                raise next(iter(refused.values()))
    return deleted, sorted(refused)


def keeps_deleted(repository: Repository, session: Session) -> bool:
    """Whether the store keeps what is deleted. Raises StoreError.

    By an object that is new: older ones may be from before the store began to keep versions.
    """
    for _ in range(3):
        try:
            return bool(repository.store.keeps_deleted(session.name))
        except Missing:  # renewed meanwhile
            continue
    return False


def release(
    repository: Repository, marks: Iterable[Condemned], packs: Collection[bytes], damaged_too: bool = False
) -> None:
    """Take `packs` out of the marks; out of those of damaged packs only if told so. Raises StoreError.

    A mark that changes is replaced: the new one is written before the old one goes.
    """
    packs = frozenset(packs)
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

    def is_older(pack: bytes) -> bool:
        try:
            written = repository.store.written(pack_name(pack))
        except Missing:
            return False
        return written is not None and written < since - 5 * 10**9  # stores count in seconds

    before: list[bytes] = []
    packs = list(packs)
    with ThreadPoolExecutor(DELETERS, thread_name_prefix="look") as pool:
        for at in range(0, len(packs), BATCH):
            progress("looking at unused packs", at, len(packs))
            some = packs[at : at + BATCH]
            before += [pack for pack, older in zip(some, pool.map(is_older, some), strict=True) if older]
    return before
