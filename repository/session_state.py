"""What sessions say of themselves in the store, and whether the processes behind them still run."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from model.errors import Damaged, Missing, NewerFormat
from repository.documents import Document, decode_document, encode_document, take
from repository.seal import ObjectKind

if TYPE_CHECKING:
    from repository.repository import Repository

SESSION_PREFIX = "sessions/"
SESSION_MAX = 8 << 20  # bytes of an opened object
DEAD_AFTER = 3600 * 10**9  # ns without a renewal after which a session of another host is presumed dead

HERE: set[str] = set()  # sessions of this process that have not ended

_VERSION = 1
_LISTINGS = 20  # of a session that is renewed whenever it is looked at


@dataclass(frozen=True, slots=True)
class Who:
    """A process, told apart from all others as far as that can be done: `place` is a boot and its process numbers."""

    host: str
    place: str
    pid: int
    begun: int  # clock ticks from the boot to the start of the process: numbers are used again, these are not

    @classmethod
    def this_process(cls) -> Who:
        return cls(socket.gethostname(), _place(), os.getpid(), _begun(os.getpid()) or 0)

    def runs(self) -> bool | None:
        """Whether the process still runs; None where that cannot be known from here."""
        if not self.place or self.place != _place() or self.host != socket.gethostname():
            return None
        return _begun(self.pid) == self.begun


class End(StrEnum):
    """How a session ended. The words are part of the repository format."""

    DONE = "done"  # so it says; objects of it that are left are those it could not delete
    UNFINISHED = "unfinished"  # so it says; what it stored may be used by the next run
    PRESUMED = "presumed"  # so others say; what it stored may be used, and its own objects count as long as they last


@dataclass(frozen=True, slots=True)
class SessionState:
    """One session as an object of it says. Times are ns since the epoch.

    `since` is when it began by the clock of the store, None if that does not tell. `marks` are names of marks it has
    read, None before it has. `end`: how it ended, None while it lasts. `unreadable`: nothing is known but that it is
    there.
    """

    id: str
    name: str
    purpose: str
    who: Who
    time: int  # when this object was made, by the clock of the host
    since: int | None
    marks: frozenset[str] | None
    end: End | None = None
    unreadable: str = ""

    @property
    def ended(self) -> bool:
        """Whether this object says that the session is over."""
        return self.end is not None

    @property
    def over(self) -> bool:
        """Whether the session itself says that it is over: nothing else that is left of it counts."""
        return self.end in (End.DONE, End.UNFINISHED)

    def knows(self, marks: frozenset[str]) -> bool:
        """Whether it has read any of these marks."""
        return self.ended or (self.marks is not None and not self.marks.isdisjoint(marks))

    def __str__(self) -> str:
        if self.unreadable:
            return f"session {self.id[:8]}, which cannot be read: {self.unreadable}"
        return f"{self.purpose} on {self.who.host}, process {self.who.pid}"

    def encode(self) -> bytes:
        """Canonical JSON."""
        document: Document = {
            "version": _VERSION,
            "time": self.time,
            "purpose": self.purpose,
            "host": self.who.host,
            "place": self.who.place,
            "pid": self.who.pid,
            "begun": self.who.begun,
            "since": self.since,
            "marks": None if self.marks is None else sorted(self.marks),
            "end": self.end,
        }
        return encode_document(document)

    @classmethod
    def decode(cls, name: str, data: bytes) -> SessionState:
        """Raises Damaged, NewerFormat."""
        document = decode_document(data, name, SESSION_MAX)
        if (version := take(document, "version", int, name)) > _VERSION:
            raise NewerFormat("the session was written by a newer version", subject=name, why=f"version {version}")
        since, marks = document.get("since"), document.get("marks")
        if since is not None and type(since) is not int:
            raise Damaged("object lacks a valid field", subject=name, why="since should be a time")
        if marks is not None and not (isinstance(marks, list) and all(isinstance(mark, str) for mark in marks)):
            raise Damaged("object lacks a valid field", subject=name, why="marks should be names")
        end = document.get("end")
        if end is not None and end not in list(End):
            raise Damaged("object lacks a valid field", subject=name, why="end should say how it ended")
        who = Who(
            take(document, "host", str, name),
            take(document, "place", str, name),
            take(document, "pid", int, name),
            take(document, "begun", int, name),
        )
        return cls(
            id=name.removeprefix(SESSION_PREFIX).partition("/")[0],
            name=name,
            purpose=take(document, "purpose", str, name),
            who=who,
            time=take(document, "time", int, name),
            since=since,
            marks=None if marks is None else frozenset(marks),
            end=None if end is None else End(str(end)),
        )


def load_sessions(repository: Repository) -> list[SessionState]:
    """What every session says of itself, several objects of one being renewed included. Raises StoreError.

    A session is missed only if it ended before, or began after the call did.
    """
    names = [name for name, _ in repository.store.list(SESSION_PREFIX)]
    states: dict[str, SessionState] = {}
    for session_id in dict.fromkeys(name.removeprefix(SESSION_PREFIX).partition("/")[0] for name in names):
        states |= {state.name: state for state in load_session(repository, session_id)}
    return list(states.values())


def joined(states: list[SessionState]) -> SessionState:
    """Several objects of one session that lasts, as one. Who cannot delete leaves all of them.

    A mark that is still there and was read once is known: nothing it names was relied on since.
    """
    since = [state.since for state in states if state.since is not None]
    read = [state.marks for state in states if state.marks is not None]
    marks = frozenset[str]().union(*read) if read else None
    return replace(max(states, key=lambda state: state.time), since=min(since, default=None), marks=marks)


def presume_dead(repository: Repository, session_id: str, states: list[SessionState]) -> bool:
    """Fence off a session: delete its objects, so that it cannot commit unaware; False if it turned out to live.

    What it stored is kept for a while, as if it had ended unfinished. `states` is what was loaded of it.
    """
    known = [state for state in states if not state.unreadable]
    if known:
        name = f"{SESSION_PREFIX}{session_id}/{os.urandom(16).hex()}"
        last = joined(known)
        since = last.since
        try:
            if since is None:  # it ended before it could say so
                since = repository.store.written(last.name)
        except Missing:
            return False
        last = replace(last, name=name, since=since, end=End.PRESUMED)
        repository.put_object(ObjectKind.MARK, name, last.encode())
    for state in states:
        if not state.ended:
            try:
                repository.store.delete(state.name)
            except Missing:  # whoever deletes it is at work
                return False
    return all(state.ended for state in load_session(repository, session_id))


def telling(states: list[SessionState]) -> list[SessionState]:
    """Those of one session's objects by which it is judged: a renewal that was cut off tells less than what it was to
    replace. Where nothing can be read, all."""
    return [state for state in states if not state.unreadable] or states


def seems_dead(repository: Repository, state: SessionState, store_now: int | None) -> bool:
    """Whether the process behind an object has ended, or has not been heard of for too long.

    `store_now` is the time by the clock of the store, if that can be trusted; without, only processes of this host are
    ever found dead, and those whose own clock is long past ours. Raises StoreError.
    """
    if state.who == Who.this_process():
        return state.id not in HERE
    runs = None if state.unreadable else state.who.runs()
    if runs is not None:
        return not runs
    try:
        written = repository.store.written(state.name)
    except Missing:
        return False
    if written is not None:
        return store_now is not None and written < store_now - DEAD_AFTER
    return not state.unreadable and state.time < time.time_ns() - 24 * DEAD_AFTER


def load_session(repository: Repository, session_id: str) -> list[SessionState]:
    """What one session says of itself. Raises StoreError."""
    prefix = f"{SESSION_PREFIX}{session_id}/"
    for _ in range(_LISTINGS):
        states: list[SessionState] = []
        try:
            for name, _ in repository.store.list(prefix):
                states.append(_load(repository, session_id, name))
        except Missing:  # renewed while we looked: the new object may not have been in the listing
            continue
        return states
    return [_unreadable(session_id, prefix + "0" * 32, "it changes whenever it is looked at")]


def _load(repository: Repository, session_id: str, name: str) -> SessionState:
    try:
        return SessionState.decode(name, repository.get_object(ObjectKind.MARK, name))
    except (Damaged, NewerFormat) as error:
        return _unreadable(session_id, name, str(error))


def _unreadable(session_id: str, name: str, why: str) -> SessionState:
    return SessionState(session_id, name, "", Who("", "", 0, 0), 0, None, None, unreadable=why)


def _place() -> str:
    """What tells one set of process numbers from all others: the boot, and the namespace of processes."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            return f"{boot.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _begun(pid: int) -> int | None:
    """When the process began, in clock ticks since the boot; None if there is none (any more)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as status:
            fields = status.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
