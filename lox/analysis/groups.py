"""How files are grouped when it is asked where space goes: by what an entry says, or by its snapshot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lox.analysis.sharing import GROUPS_MAX
from model.entries import I32, I64, Kind
from model.errors import UsageError
from model.names import shown
from repository.entry_table import column
from repository.tables.of_entries import extensions
from repository.tables.view import View

DAY = 24 * 3600 * 10**9
AGES = (
    (0, "in the future"), (DAY, "up to a day"), (7 * DAY, "up to a week"), (30 * DAY, "up to a month"),
    (91 * DAY, "up to 3 months"), (365 * DAY, "up to a year"), (730 * DAY, "up to 2 years"),
    (1826 * DAY, "up to 5 years"),
)  # fmt: skip
OLDER = "older than 5 years"
WAYS = ("path", "owner", "ext", "age", "host", "tag")


class Groups(ABC):
    """Groups of files, numbered as they are met. Each group belongs to one or several rows of the answer."""

    per_entry: bool  # whether entries say their group; else their snapshot does

    def __init__(self) -> None:
        self._number: dict[object, int] = {}

    def number(self, key: object) -> int:
        """The number of a group. Raises UsageError if there are too many."""
        if len(self._number) >= GROUPS_MAX:
            raise UsageError("too many groups", why=f"more than {GROUPS_MAX:,}", hint="use a smaller --depth")
        return self._number.setdefault(key, len(self._number))

    def __len__(self) -> int:
        return len(self._number)

    def rows(self) -> list[tuple[str, ...]]:
        """For each group the rows it belongs to, by name."""
        return [self.names(key) for key in self._number]

    @abstractmethod
    def names(self, key: object) -> tuple[str, ...]:
        """The rows a group belongs to, for the eye."""

    def of_entries(self, rows: pa.Table) -> I32:
        """The group of each row of a manifest."""
        raise NotImplementedError

    def of_snapshots(self, view: View) -> I32:
        """The group of each snapshot."""
        raise NotImplementedError


class _PerEntry(Groups):
    per_entry = True

    def _numbers(self, keys: pa.Array | pa.ChunkedArray, key_of: Callable[[Any], object]) -> I32:
        """Groups of a column, of which only what is different is looked at."""
        words = pc.dictionary_encode(keys)
        words = words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words
        codes = np.array([self.number(key_of(word)) for word in words.dictionary.to_pylist()], np.int32)
        return codes[words.indices.to_numpy()] if len(codes) else np.zeros(0, np.int32)


class ByPath(_PerEntry):
    """By folder, down to `depth` names below ``/``; a file above that counts for the folder it is in."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self._depth = depth

    def of_entries(self, rows: pa.Table) -> I32:
        folders = pc.replace_substring_regex(rows["path"], rb"/?[^/]*$", b"")
        return self._numbers(folders, lambda folder: b"/".join(folder.split(b"/")[: self._depth]))

    def names(self, key: object) -> tuple[str, ...]:
        assert isinstance(key, bytes)
        return (f"/{shown(key)}",)


class ByOwner(_PerEntry):
    """By the name of the owner, or its number if it has none."""

    def of_entries(self, rows: pa.Table) -> I32:
        groups = self._numbers(rows["user"], lambda user: user)
        nameless = pc.equal(pc.binary_length(rows["user"]), 0).to_numpy()
        if nameless.any():
            uids, row = np.unique(column(rows, "uid")[nameless], return_inverse=True)
            groups = groups.copy()
            groups[nameless] = np.array([self.number(b"%d" % uid) for uid in uids.tolist()], np.int32)[row]
        return groups

    def names(self, key: object) -> tuple[str, ...]:
        assert isinstance(key, bytes)
        return (shown(key) or "(no file)",)


class ByExtension(_PerEntry):
    """By extension, in lower case."""

    def of_entries(self, rows: pa.Table) -> I32:
        files = pc.equal(rows["kind"], int(Kind.FILE))
        return self._numbers(extensions(rows["path"], files), lambda text: text)

    def names(self, key: object) -> tuple[str, ...]:
        return (f".{key}" if key else "(none)",)


class ByAge(_PerEntry):
    """By the time since the last change of the content, as of `now` (ns since the epoch)."""

    def __init__(self, now: int) -> None:
        super().__init__()
        self._now = now

    def of_entries(self, rows: pa.Table) -> I32:
        # A time before 1678 or after 2262 does not exist here; the difference may be too large all the same.
        age = self._now - column(rows, "mtime").astype(np.float64)
        bucket, row = np.unique(np.searchsorted([limit for limit, _ in AGES], age), return_inverse=True)
        return np.array([self.number(int(one)) for one in bucket], np.int32)[row]

    def names(self, key: object) -> tuple[str, ...]:
        assert isinstance(key, int)
        return (AGES[key][1] if key < len(AGES) else OLDER,)


class ByHost(Groups):
    """By the host that made the snapshot."""

    per_entry = False

    def of_snapshots(self, view: View) -> I32:
        return np.array([self.number(snapshot.host) for snapshot in view.snapshots], np.int32)

    def names(self, key: object) -> tuple[str, ...]:
        return (shown(str(key).encode("utf-8", "surrogateescape")),)


class ByTag(Groups):
    """By the tags the snapshot has now; one that has several is in as many rows."""

    per_entry = False

    def of_snapshots(self, view: View) -> I32:
        tags = [tuple(sorted(view.annotations.of(snapshot).tags)) for snapshot in view.snapshots]
        return np.array([self.number(some) for some in tags], np.int32)

    def names(self, key: object) -> tuple[str, ...]:
        assert isinstance(key, tuple)
        return tuple(shown(tag.encode("utf-8", "surrogateescape")) for tag in key) or ("(no tag)",)


def groups_by(way: str, depth: int, now: int) -> Groups:
    """Groups in one of `WAYS`. Raises UsageError for another."""
    match way:
        case "path":
            return ByPath(depth)
        case "owner":
            return ByOwner()
        case "ext":
            return ByExtension()
        case "age":
            return ByAge(now)
        case "host":
            return ByHost()
        case "tag":
            return ByTag()
    raise UsageError("no such way to group files", subject=way, hint=f"one of {', '.join(WAYS)}")


def memberships(rows: Sequence[tuple[str, ...]]) -> tuple[list[str], I64, I64]:
    """Names of all rows, and which group belongs to which: pairs (group, row), ascending by group."""
    names: dict[str, int] = {}
    pairs = [(group, names.setdefault(name, len(names))) for group, some in enumerate(rows) for name in some]
    group, row = np.array(pairs, np.int64).reshape(-1, 2).T
    return list(names), group, row
