"""Sessions: who is at work on a repository, so that nothing is deleted that somebody is about to rely on.

    sessions/<session id>/<32 hex digits> = sealed JSON: who, for what, since when, and which marks it has read

There are no locks. Whoever adds to a repository, or reads packs for long, says so first and reads the marks of
condemned packs then; garbage collection writes its marks first and looks for sessions then. So of any two, at least
one sees the other: a session that has read a mark relies on nothing the mark condemns, and packs of a mark that some
session has not read are left alone until it ends.

A session is renewed now and then by a new object, after which the old one goes. One that has not been renewed for long
is presumed dead, and its objects are deleted *before* anything else is. Time only decides when to presume: a session
that was presumed dead by mistake (a laptop that slept, a clock that jumped) finds its object gone before it commits or
right after, and then proves that all it relies on is still there (`repository.reliance`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from model.errors import LoxError, Missing, NewerFormat, Refused, StoreError
from repository.condemned import Condemned, load_condemned
from repository.seal import ObjectKind
from repository.session_state import HERE, SESSION_PREFIX, SessionState, Who

if TYPE_CHECKING:
    from repository.repository import Repository

RENEW_EVERY = 300.0  # seconds between two renewals


class Session:
    """This process at work on a repository. All methods may be called from several threads."""

    def __init__(self, repository: Repository, purpose: str, lenient: bool = False) -> None:
        """Registers. With `lenient`, a mark that cannot be read is one that was not read, and no error."""
        self._repository = repository
        self._lenient = lenient
        self._lock = threading.Lock()
        self._intact = True
        self.has_stored = False  # packs that the next run can use, should this one not finish
        self.refusal: Refused | None = None  # why nothing of our own could be deleted, if so
        self.id = os.urandom(16).hex()
        self._state = SessionState(self.id, "", purpose, Who.this_process(), 0, None, None)
        self.marks: list[Condemned] = []
        HERE.add(self.id)
        try:
            self._put(self._state)
            self._state = replace(self._state, since=self.store_time())
            self.read_marks()
        except BaseException:
            self.close()
            raise

    @property
    def condemned(self) -> frozenset[bytes]:
        """Packs of the marks that were read: this process relies on none of them."""
        return frozenset(pack for mark in self.marks for pack in mark.packs)

    @property
    def name(self) -> str:
        """The object that stands for this session now."""
        return self._state.name

    def store_time(self) -> int | None:
        """When the session was renewed last, by the clock of the store; None if nobody can tell. Raises StoreError."""
        try:
            return self._repository.store.written(self._state.name)
        except Missing:  # presumed dead already
            return None

    def read_marks(self) -> None:
        """Read the marks (again), and let it be known. Raises StoreError, Damaged, NewerFormat."""
        self.marks = load_condemned(self._repository, (lambda error: None) if self._lenient else None)
        self.renew(frozenset(mark.name for mark in self.marks))

    def renew(self, marks: frozenset[str] | None = None) -> None:
        """Show that the session lives. Raises StoreError; the session is then what it was before."""
        with self._lock:
            old = self._state
            self._put(replace(old, marks=old.marks if marks is None else marks))
            # In this order: who deletes the old object after we have seen it sees the new one when looking again.
            if old.name and not self._repository.store.exists(old.name):
                self._intact = False
            self.refusal = _drop(self._repository, old.name)

    def held(self) -> bool:
        """Whether nobody has presumed this session dead since it began. Raises StoreError."""
        with self._lock:
            self._intact = self._intact and self._repository.store.exists(self._state.name)
            return self._intact

    def begin_again(self) -> None:
        """Register anew after having been presumed dead, and read the marks again."""
        with self._lock:
            old = self._state.name
            self._put(replace(self._state, marks=None))
            _drop(self._repository, old)
            self._intact = True
        self.read_marks()

    def close(self, unfinished: bool = False) -> None:
        """The end. `unfinished`: packs were stored that no snapshot needs yet and the next run will use.

        Trouble with the store is of no consequence: who cannot be seen to have ended is presumed dead later.
        """
        HERE.discard(self.id)
        with self._lock:
            name = self._state.name
            try:
                if unfinished:
                    self._put(replace(self._state, ended=True))
            except LoxError:
                return
            _drop(self._repository, name)

    def _put(self, state: SessionState) -> None:
        name = f"{SESSION_PREFIX}{self.id}/{os.urandom(16).hex()}"
        state = replace(state, name=name, time=time.time_ns())
        try:
            self._repository.put_object(ObjectKind.MARK, name, state.encode())
        except LoxError:
            _drop(self._repository, name)  # the answer may have been lost, not the object
            raise
        self._state = state


@contextmanager
def open_session(
    repository: Repository, purpose: str, every: float = RENEW_EVERY, lenient: bool = False
) -> Iterator[Session]:
    """A session for as long as the block runs, renewed `every` so many seconds.

    Raises StoreError; and, unless `lenient`, Damaged: with a mark that cannot be read nobody knows what to rely on.
    """
    session = Session(repository, purpose, lenient)
    done = False
    with _renewing(session, every):
        try:
            yield session
            done = True
        finally:
            session.close(unfinished=session.has_stored and not done)


@contextmanager
def reading_session(repository: Repository, purpose: str) -> Iterator[Session | None]:
    """As `open_session` for who only reads: None, and no protection, where nothing can be written."""
    try:
        session = Session(repository, purpose, lenient=True)
    except (StoreError, NewerFormat):
        yield None
        return
    with _renewing(session, RENEW_EVERY):
        try:
            yield session
        finally:
            session.close()


@contextmanager
def _renewing(session: Session, every: float) -> Iterator[None]:
    over = threading.Event()

    def renew() -> None:
        while not over.wait(every):
            try:
                session.renew()
            except LoxError:  # the store is away; should it stay so, the session is found to be gone at the end
                continue

    thread = threading.Thread(target=renew, name="session", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _drop(repository: Repository, name: str) -> Refused | None:
    """Delete an object of our own, if it is there and we may: who is not seen to have ended is presumed dead later."""
    try:
        if name:
            repository.store.delete(name)
    except Refused as error:
        return error
    except StoreError:
        pass
    return None
