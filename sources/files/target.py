"""The directory a restore writes to.

The driver goes through the snapshot window by window, in manifest order, in one thread:

    plan = target.prepare(window)          directories are made, every row gets its `Action`
    plan.fetch                             rows whose content has to be brought; of these, files that are not written
    target.begin_files(plan, rows)         in one piece (`is_simple`) get a work file first
    (lanes)  target.writer().write_joined  or write_batch and write_at, from any thread or process
    target.accept(plan, written)           counts, finishes files that are complete
    target.end_window(plan)                when nothing more will come for this window
    ...
    target.finish()                        links, symbolic links, specials, deletions, then directories, deepest first

Everything on disk is reached through descriptors beneath the target, never through a symbolic link, so nothing outside
is touched whatever the snapshot or the target holds. A file gets its mtime last: one that is not finished never looks
as if it were, so a restore that was interrupted goes on where it stopped when it is run again.

As an ordinary user, owners and groups that cannot be set are counted in `TargetSummary.notes`, and files lose their
set-id bits with the owner; devices are problems. Existing directories are kept and merged into.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from model.entries import I32, I64, Kind, kinds_of
from model.errors import UsageError
from model.orders import Written
from sources.files.apply import Applier, Entry
from sources.files.columns import from_arrow, take
from sources.files.existing import KEPT, OVERWRITE, Clearing, reason
from sources.files.target_files import begin, compare, finish, look_after, make_empty, mark_replaced, set_aside
from sources.files.target_folders import Folders, Names, complete_below, is_below
from sources.files.target_nodes import Links, make_name, make_node
from sources.files.target_options import RestoreOptions, TargetSummary, current_umask
from sources.files.target_plan import (
    WRITE_LATER,
    Action,
    Ownership,
    WindowPlan,
    plan_window,
    runs_by_directory,
    unlisted_folders,
)
from sources.files.target_verify import Check, HashChunks, verify
from sources.files.target_writer import TargetWriter, is_simple, open_or_make

__all__ = [
    "Action",
    "Check",
    "RestoreOptions",
    "Target",
    "TargetSummary",
    "TargetWriter",
    "WindowPlan",
    "complete_below",
    "is_simple",
]

NODES = (Kind.SYMLINK, Kind.FIFO, Kind.SOCKET, Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)


class Target:
    """One restore into one directory, which is made if it does not exist. Used by one thread; `writer` is for others.

    Raises UsageError if the directory cannot be had. With `dry_run` nothing is changed; plans and counts are as if.
    """

    def __init__(self, path: bytes, options: RestoreOptions | None = None) -> None:
        options = options or RestoreOptions()
        if options.overwrite not in OVERWRITE:
            raise UsageError("unknown overwrite policy", subject=options.overwrite, hint="use " + ", ".join(OVERWRITE))
        self.path = os.path.realpath(path)  # the user's own way there may lead through links
        self.options = options
        self.summary = TargetSummary()
        self.deleted: list[bytes] = []
        self.root_fd, self.fresh = open_or_make(self.path, options.dry_run)
        found = os.fstat(self.root_fd) if self.root_fd >= 0 else None
        self._writer = TargetWriter(self.path, (found.st_dev, found.st_ino) if found else (0, 0))
        self._applier = Applier(self.summary.notes, privileges=options.privileges)
        umask = None if options.permissions else current_umask()
        self._ownership = Ownership(options.owner, options.numeric_owner, options.privileges, umask)
        self._folders = Folders(self.root_fd, top=self.fresh or self.path == b"/", dry_run=options.dry_run)
        self._clearing = Clearing(self.root_fd, options.keep, options.dry_run)
        self._names = Names(options.complete) if options.delete else None
        self._links = Links()
        self._nodes: list[tuple[Entry, Action]] = []
        self._not_restored: set[bytes] = set()  # files that failed or were kept

    paths_of = staticmethod(from_arrow)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        self._writer.close()
        if self.root_fd >= 0:
            os.close(self.root_fd)
        self.root_fd = -1

    def writer(self) -> TargetWriter:
        """What lanes write through; it can be pickled."""
        return self._writer

    def prepare(self, entries: pa.Table) -> WindowPlan:
        """Decide what happens with a window of entries (rows of the manifest, in its order) and make its directories.

        Files without content are made here as well. `plan.fetch` has the rows whose content must be brought.
        """
        plan = plan_window(entries, self._ownership, self.summary.notes)
        runs = runs_by_directory(plan.paths)
        if self._names is not None:
            self._names.note(plan, runs)
        if not self.options.devices:
            self._leave_out_devices(plan)
        if not self.fresh:
            self._meet_existing(plan)
        self._folders.make(plan, runs, self._clearing)
        self._links.join(plan)
        mark_replaced(plan)
        self._note_troubles(plan, plan.problems)
        self._note_troubles(plan, unlisted_folders(plan))
        self.summary.skipped += len(plan.rows(Kind.FILE, Action.SAME, Action.KEEP))
        if self.options.dry_run:
            self._count_as_if(plan)
        else:
            if not self.fresh and self.options.permissions:
                self._note_troubles(plan, look_after(self.root_fd, plan, self._applier))
            self._make_empty(plan)
        self._defer(plan)
        fetch = plan.fetch
        plan.left = np.zeros(len(plan), dtype=np.int64)
        plan.left[fetch] = plan.content_size[fetch]
        return plan

    def begin_files(self, plan: WindowPlan, rows: I32) -> None:
        """Make the work files of rows that will not be written in one piece; rows begun before are left."""
        rows = np.array([row for row in rows.tolist() if row not in plan.begun], dtype=np.int32)
        for row, text in begin(self.root_fd, plan, rows).items():
            self.fail(plan, row, text)

    def accept(self, plan: WindowPlan, written: Written) -> None:
        """Take in what a lane wrote; files that are complete are finished. What was accepted before is ignored."""
        if written.seq in plan.accepted:
            return
        plan.accepted.add(written.seq)
        for row, text in written.problems.items():
            self.fail(plan, row, text)
        plan.left[written.rows] -= written.written
        self.summary.bytes += int(written.written.sum())
        sound = np.isin(plan.action[written.rows], (Action.CREATE, Action.REPLACE))
        whole = sound & (plan.left[written.rows] == 0)
        self.summary.files += int(np.count_nonzero(whole & written.finished))
        self.finish_files(plan, written.rows[whole & ~written.finished])

    def finish_files(self, plan: WindowPlan, rows: I32) -> None:
        """Give files whose content is there their metadata, and their name if they are work files."""
        for row in rows.tolist():
            try:
                text = "; ".join(finish(self.root_fd, plan, row, self._applier))
            except OSError as error:
                text = error.strerror or reason(error.errno or errno.EIO)
            if text:
                self.fail(plan, row, text)
            self.summary.files += row not in plan.begun

    def fail(self, plan: WindowPlan, row: int, text: str) -> None:
        """Report that a file cannot be whole; only the first reason counts."""
        if plan.action[row] != Action.FAIL:
            plan.fail(row, text)
            self._note_troubles(plan, {row: text})

    def end_window(self, plan: WindowPlan) -> None:
        """Nothing more comes for this window: what is not complete is reported, what there is of it set aside."""
        sound = np.isin(plan.action, (Action.CREATE, Action.REPLACE))
        for row in np.flatnonzero(sound & (plan.left > 0)).tolist():
            self.fail(plan, row, "its content did not come whole")
        self._note_troubles(plan, plan.problems)
        self._not_restored.update(take(plan.paths, plan.rows(Kind.FILE, Action.FAIL, Action.KEEP)))
        for row in sorted(plan.begun):
            text = set_aside(self.root_fd, plan, row)
            if text:
                self.summary.problems.append((plan.paths[row], text))

    def to_verify(self, entries: pa.Table) -> tuple[I32, I64, dict[int, I64]]:
        """Files of a window that should now be as in the snapshot: rows, sizes, and position in rows → extents."""
        plan = plan_window(entries, self._ownership, Counter())
        rows = plan.rows(Kind.FILE, Action.CREATE, where=plan.content_size > 0)
        if self._not_restored:
            paths = take(plan.paths, rows)
            rows = rows[[path not in self._not_restored for path in paths]]
        extents = {at: plan.extents[row] for at, row in enumerate(rows.tolist()) if row in plan.extents}
        return rows, plan.stat["size"][rows], extents

    def verify(self, check: Check, hash_chunks: HashChunks) -> dict[int, str]:
        """Read files back and compare their chunks. Returns ``check.rows`` → what is wrong, also in problems."""
        wrong = verify(self.root_fd, check, hash_chunks)
        file_of = {int(row): file for file, row in enumerate(check.rows.tolist())}
        self.summary.problems += [(check.paths[file_of[row]], text) for row, text in wrong.items()]
        return wrong

    def finish(self) -> TargetSummary:
        """Everything that comes after the files: links, deletions, directories."""
        self.make_nodes()
        self.make_links()
        self.delete_extraneous()
        self.finish_directories()
        self.summary.notes += Counter()  # drops what was counted zero times
        return self.summary

    def make_nodes(self) -> None:
        """Make symbolic links, FIFOs, sockets and devices."""
        for entry, action in self._nodes:
            troubles = []
            if not self.options.dry_run:
                try:
                    troubles = make_node(self.root_fd, entry, action, self._applier)
                except OSError as error:
                    troubles = [reason(error.errno or errno.EIO)]
            self.summary.problems += [(entry.path, text) for text in troubles]
            self.summary.others += not troubles
        self._nodes.clear()

    def make_links(self) -> None:
        """Give files their further names."""
        for name in self._links.names:
            text = ""
            if not self.options.dry_run:
                try:
                    text = make_name(self.root_fd, name)
                except FileNotFoundError:
                    text = "what it is another name of was not restored"
                except OSError as error:
                    text = reason(error.errno or errno.EIO)
            if text:
                self.summary.problems.append((name.path, text))
            self.summary.links += not text
        self._links.names.clear()

    def delete_extraneous(self) -> None:
        """Remove what the snapshot does not have (see `RestoreOptions`); `deleted` has the paths."""
        if self._names is None or self.root_fd < 0:
            return
        for path in self._names.extraneous(self.root_fd, self._folders):
            try:
                for removed, text in self._clearing.remove_tree(path):
                    self._count_deletion(removed, text)
            except OSError as error:
                self.summary.problems.append((path, f"not deleted: {error.strerror}"))
        self._names = None

    def finish_directories(self) -> None:
        """Give directories their metadata. Nothing can be changed in the target afterwards."""
        for path, text in self._folders.finish(self._applier):
            if text:
                self.summary.problems.append((path, text))
            self.summary.directories += 1

    def _count_deletion(self, path: bytes, text: str) -> None:
        if not text:
            self.summary.deleted += 1
            self.deleted.append(path)
        elif text in KEPT:
            self.summary.notes[f"not deleted: {text}"] += 1
        else:
            self.summary.problems.append((path, f"not deleted: {text}"))

    def _meet_existing(self, plan: WindowPlan) -> None:
        found = compare(self.root_fd, plan, self.options.overwrite)
        in_way = (plan.action == Action.REPLACE) & (kinds_of(found["mode"]) == Kind.DIRECTORY)
        for row in np.flatnonzero(in_way & (plan.kinds != Kind.DIRECTORY)).tolist():
            path = plan.paths[row]
            may_delete = self.options.delete and any(is_below(path, top) for top in self.options.complete)
            text = self._clearing.make_way(path, whole_trees=may_delete)
            if text:
                plan.fail(row, text)
            else:
                plan.action[row] = Action.CREATE

    def _count_as_if(self, plan: WindowPlan) -> None:
        rows = plan.rows(Kind.FILE, Action.CREATE, Action.REPLACE)
        self.summary.files += len(rows)
        self.summary.bytes += int(plan.content_size[rows].sum())

    def _leave_out_devices(self, plan: WindowPlan) -> None:
        for kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE):
            rows = plan.rows(kind, Action.CREATE)
            plan.action[rows] = Action.KEEP
            self.summary.notes["devices left out"] += len(rows)

    def _make_empty(self, plan: WindowPlan) -> None:
        empty = plan.rows(Kind.FILE, Action.CREATE, Action.REPLACE, where=plan.content_size == 0)
        hollow = np.isin(empty, list(plan.extents)) & (plan.stat["size"][empty] > 0)  # nothing but a hole
        for row, text in make_empty(self._writer, plan, empty[~hollow]).items():
            self.fail(plan, row, text)
        self.begin_files(plan, empty[hollow])
        later = hollow | ((plan.stat["flags"][empty] & WRITE_LATER) != 0)
        sound = plan.action[empty] != Action.FAIL
        self.summary.files += int(np.count_nonzero(sound & ~later))
        self.finish_files(plan, empty[sound & later])

    def _defer(self, plan: WindowPlan) -> None:
        self._folders.defer(plan, existing=self.options.permissions)
        for kind in NODES:
            for row in plan.rows(kind, Action.CREATE, Action.REPLACE, Action.SAME).tolist():
                self._nodes.append((plan.entry(row), Action(plan.action[row])))

    def _note_troubles(self, plan: WindowPlan, problems: Mapping[int, str]) -> None:
        """Each row once: the first reason counts."""
        new = sorted(problems.keys() - plan.reported)
        plan.reported.update(new)
        self.summary.problems += [(plan.paths[row], problems[row]) for row in new]
