"""Every test of the kernels runs on both variants; a variant that was not built is a visible skip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import kernels.buffers
import kernels.chunk
import kernels.ids
import kernels.tree
import kernels.tree_files

NO_COMPILER = "kernels._native is not built: apt install gcc python3-dev && pip install -e ."
REFERENCE = SimpleNamespace(
    **{
        name: getattr(module, name)
        for module in (kernels.buffers, kernels.chunk, kernels.ids, kernels.tree, kernels.tree_files)
        for name in kernels.__all__
        if hasattr(module, name)
    }
)


def variant(name: str) -> Any:
    """The functions of one variant."""
    if name == "reference":
        return REFERENCE
    return pytest.importorskip("kernels.native", reason=NO_COMPILER, exc_type=ImportError)


@pytest.fixture(params=["native", "reference"])
def kernel(request: pytest.FixtureRequest) -> Any:
    return variant(request.param)


@pytest.fixture
def root(tmp_path: os.PathLike[str]) -> Iterator[int]:
    """A descriptor of an empty directory, as callers hold it: good for walking, not for reading."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def nobody(tmp_path: os.PathLike[str]) -> Iterator[int]:
    """The test runs as a user without rights on files of others; its id."""
    os.chmod(tmp_path, 0o755)
    os.seteuid(65534)
    yield 65534
    os.seteuid(0)
