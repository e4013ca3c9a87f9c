"""Hot loops: compiled C with the readable reference beside it. Callers use the names of this module.

``LOX_KERNELS`` chooses once, at import: ``native``, ``reference``, or ``auto`` (native if it was built). `VARIANT` says
which it is. Both variants have the same signatures and give the same results; ``chunk.py``, ``tree.py``,
``tree_files.py``, ``ids.py`` and ``buffers.py`` hold the reference, which is the specification, and ``native.py`` is
the face of C.
"""

from __future__ import annotations

import os
from importlib import import_module

from kernels.chunk import PUBLIC_KEY, gear_table
from kernels.ids import Guide, guide_buckets, guide_places
from kernels.tree_files import SETTABLE_FLAGS, WRITE_MODE, WRITE_OWNER, WRITE_TIMES
from model.errors import ConfigError


def _choose() -> str:
    wanted = os.environ.get("LOX_KERNELS", "") or "auto"
    if wanted not in ("auto", "native", "reference"):
        raise ConfigError("no such variant of the kernels", subject=wanted, hint="LOX_KERNELS is auto|native|reference")
    if wanted == "reference":
        return wanted
    try:
        import_module("kernels._native")
    except ImportError as error:
        if wanted == "native":
            hint = "install a C compiler and Python's headers, then install LOX Backup again"
            raise ConfigError("the compiled kernels are missing", why=str(error), hint=hint) from error
        return "reference"
    return "native"


VARIANT = _choose()

if VARIANT == "native":
    from kernels.native import (
        candidates,
        create_directories,
        cut_files,
        find_guided,
        find_ids,
        gather,
        hash_chunks,
        join_sorted,
        list_directory,
        look_at,
        open_beneath,
        read_files,
        same_bytes,
        scan_directory,
        select,
        stat_names,
        stat_paths,
        write_files,
    )
else:
    from kernels.buffers import gather, same_bytes
    from kernels.chunk import candidates, cut_files, select
    from kernels.ids import find_guided, find_ids, hash_chunks
    from kernels.tree import (
        join_sorted,
        list_directory,
        open_beneath,
        scan_directory,
        stat_names,
        stat_paths,
    )
    from kernels.tree_files import create_directories, look_at, read_files, write_files

__all__ = [
    "PUBLIC_KEY",
    "SETTABLE_FLAGS",
    "VARIANT",
    "WRITE_MODE",
    "WRITE_OWNER",
    "WRITE_TIMES",
    "Guide",
    "candidates",
    "create_directories",
    "cut_files",
    "find_guided",
    "find_ids",
    "gather",
    "gear_table",
    "guide_buckets",
    "guide_places",
    "hash_chunks",
    "join_sorted",
    "list_directory",
    "look_at",
    "open_beneath",
    "read_files",
    "same_bytes",
    "scan_directory",
    "select",
    "stat_names",
    "stat_paths",
    "write_files",
]
