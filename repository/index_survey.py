"""Reading every object of the index one by one, while others may replace some: what opens, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model.errors import LoxError, Missing, Revoked
from repository.cache import read_index_object
from repository.index_table import INDEX_PREFIX, IndexTable
from repository.repository import Repository


def survey_index(
    repository: Repository,
    names: Sequence[str],
    on_trouble: Callable[[str, LoxError], None],
    progress: Callable[[str, int, int], None],
) -> list[IndexTable]:
    """The tables of the index objects `names`, and of those that took the place of some meanwhile.

    What cannot be read is told to `on_trouble`; what does not count is left out. Raises what `progress` raises.
    """
    tables: list[IndexTable] = []
    waiting, seen = list(names), set(names)
    for name in waiting:  # grows
        progress("reading the index", len(tables), len(waiting))
        try:
            tables.append(read_index_object(repository, name))
        except Revoked:
            continue
        except Missing as error:
            listed = [each for each, _ in repository.store.list(INDEX_PREFIX)]
            if name in listed:
                on_trouble(name, error)
            waiting += [each for each in listed if each not in seen]  # written before the other went
            seen.update(listed)
        except LoxError as error:
            on_trouble(name, error)
    return tables
