"""Columns of byte strings handled at once: `Paths` are Arrow's layout, so Arrow does the work without copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.entries import STAT, Paths, Stats

Rows = npt.NDArray[np.integer[Any]]


def to_arrow(paths: Paths) -> pa.Array:
    """`Paths` as an Arrow array that shares its memory."""
    buffers = [None, pa.py_buffer(paths.offsets), pa.py_buffer(paths.blob)]
    return pa.Array.from_buffers(pa.binary(), len(paths), buffers, null_count=0)


def from_arrow(column: pa.Array | pa.ChunkedArray) -> Paths:
    """A binary column without nulls as `Paths`, copied."""
    array = column
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 0:
            return Paths(b"", np.zeros(1, dtype=np.int32))
        array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    _, offsets, data = array.buffers()
    if len(array) == 0 or offsets is None:
        return Paths(b"", np.zeros(1, dtype=np.int32))
    ends = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    first = ends[0]
    blob = b"" if data is None else memoryview(data)[int(first) : int(ends[-1])].tobytes()
    return Paths(blob, ends - first)


def take(paths: Paths, rows: Rows) -> Paths:
    """The chosen rows, in the order of `rows`."""
    return from_arrow(to_arrow(paths).take(pa.array(rows)))


def concat_stats(parts: Sequence[Stats]) -> Stats:
    """Rows of STAT one after the other. As bytes: NumPy compares all fields of each part, which takes longer."""
    if len(parts) == 1:
        return parts[0]
    return np.frombuffer(bytearray().join([part.data for part in parts]), dtype=STAT)


def below(directories: Sequence[bytes], counts: Sequence[int], names: Paths) -> Paths:
    """Full paths of `names`, of which the first ``counts[0]`` lie in ``directories[0]``, and so on."""
    prefixes = pa.array([directory + b"/" if directory else b"" for directory in directories], pa.binary())
    which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return from_arrow(pc.binary_join_element_wise(prefixes.take(pa.array(which)), to_arrow(names), b""))
