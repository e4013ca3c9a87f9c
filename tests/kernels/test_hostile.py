"""No argument, however wrong, may do more to the compiled kernels than raise: each is replaced by each wrong one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_native: Any = pytest.importorskip("kernels._native", reason="not built: pip install -e .", exc_type=ImportError)

PARAMS = (0, 64, 256, 1024, 1 << 58, 1 << 54)
WRONG: list[Any] = [
    *(None, "text", 1.5, -1, 0, 1, 1 << 20, 1 << 31, (1 << 63) - 1, -(1 << 63), 1 << 64, True),
    *(b"", b"x", b"\0" * 7, b"\xff" * 8, b"\xff" * 64, bytearray(b"\x7f" * 88), memoryview(bytes(99))[::3]),
    *(np.arange(20)[::2], np.zeros((3, 3)), np.full(3, -1, dtype=np.int32), np.full(2, 2**62), np.array(5)),
    *((), (0, 64, 256, 1024, 1, 1, 1), (2, 64, 256, 1024, 0, 0), (0, 0, 0, 0, 0, 0), (1, 64, 64, 1 << 40, 0, 0)),
    *((0, -64, 256, 1024, 1, 1), (0, 1024, 256, 64, 1, 1), (0, 64, 256, 1024, -1, 1 << 70), [0, 64, 256, 1024, 1, 1]),
]
OFFSETS = np.array([0, 1, 4], dtype=np.int32)  # b"a", b"b/c"
TWO = np.array([0, 1], dtype=np.int64)
WAY = 2 if _native.can_hash() & 2 else 1


def calls(root: int) -> dict[str, list[Any]]:
    """Arguments that fit, by function."""
    table, ids = np.zeros(256, dtype=np.uint64), bytes(64)
    paths = [b"ab/c", OFFSETS]
    stats = np.zeros(2 * 88, dtype=np.uint8)
    numbers, small = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int32)
    return {
        "candidates": [bytes(3000), table, PARAMS, 5],
        "select": [TWO, PARAMS, 0, 3000, True],
        "cut_files": [bytes(3000), TWO, TWO, table, PARAMS, small],
        "gather": [bytes(10), TWO, small, bytearray(10)],
        "same_bytes": [bytes(10), bytes(10)],
        "find_ids": [ids, ids, numbers],
        "find_guided": [ids, np.array([0, 2], dtype=np.uint32), bytes(4), ids, numbers],
        "hash_chunks": [WAY, bytes(128), bytes(10), TWO, small, np.zeros(64, dtype=np.uint8)],
        "open_beneath": [root, b"a", os.O_RDONLY, 0],
        "list_directory": [root],
        "stat_names": [root, *paths, 0, 2, stats],
        "stat_paths": [root, *paths, stats],
        "scan_directory": [root, b"d", 10],
        "join_sorted": [*paths, *paths, small],
        "look_at": [root, *paths, small.view(np.uint32), np.zeros(2, dtype=np.uint32), np.zeros(3, dtype=np.int32)],
        "read_files": [root, *paths, TWO, bytearray(9), stats, numbers],
        "write_files": [root, *paths, b"body", TWO, TWO, stats, 7, small],
        "create_directories": [root, *paths, small],
    }


def test_every_function_is_tried() -> None:
    assert calls(0).keys() == {name for name in dir(_native) if not name.startswith("_")} - {"can_hash"}


@pytest.mark.parametrize("name", calls(0))
def test_wrong_arguments_only_raise(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    function, good = getattr(_native, name), calls(root)[name]
    for place in range(len(good)):
        for wrong in WRONG:
            arguments = [*good]
            arguments[place] = wrong
            try:
                result = function(*arguments)
            except (TypeError, ValueError, OverflowError, BufferError, OSError):
                continue
            if name == "open_beneath":
                os.close(result)
    for arguments in ([], good[:-1], [*good, 1]):
        with pytest.raises(TypeError):
            function(*arguments)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(root)


def test_outputs_must_be_writable(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_PATH)
    with pytest.raises((TypeError, BufferError, ValueError)):
        _native.stat_paths(root, b"ab/c", OFFSETS, bytes(2 * 88))
    with pytest.raises((TypeError, BufferError, ValueError)):
        _native.read_files(root, b"ab/c", OFFSETS, TWO, b"123", bytearray(2 * 88), bytearray(16))
    os.close(root)
