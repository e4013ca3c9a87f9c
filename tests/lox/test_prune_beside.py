"""``lox prune``: what it tells of, and what others see who read meanwhile."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest

from lox.contents import Catalogue
from model.exits import ExitCode
from tests.lox.running import Shell, spawn
from tests.lox.test_prune import ALL, KIB, MIB, Trees, trees
from tests.lox.test_repair import packs_of

__all__ = ["trees"]


def test_a_share_below_nothing_is_refused_in_words_that_fit(shell: Shell) -> None:
    assert "from 0 to 100" in shell("prune", "--max-unused=-5%").ok(ExitCode.USAGE).err
    assert "above 0" in shell("check", "--read-data-subset", "0%").ok(ExitCode.USAGE).err
    shell("prune", "--max-unused", "0").ok()


@pytest.mark.slow
def test_it_is_as_slow_as_it_is_told(trees: Trees, shell: Shell) -> None:
    trees.fill(1, 8, 128 * KIB)
    first = trees.keep()
    trees.fill(2, 2, KIB)
    for number in range(4):
        shutil.copyfile(trees.copies[first] / f"file{number}", trees.tree / f"old{number}")
    trees.keep()
    shell("forget", first).ok()
    began = time.monotonic()
    row = shell.json("prune", *ALL, "--limit-download", "512KiB/s")[-1]
    assert row["bytes_read"] > 256 * KIB and time.monotonic() - began > row["bytes_read"] / (512 * KIB) * 0.5
    trees.verify()


def test_files_of_killed_writers_are_told(trees: Trees, shell: Shell) -> None:
    left = shell.repository / "packs" / ".tmp-0123456789abcdef"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(bytes(3 * MIB))
    os.utime(left, (1, 1))
    told = "1 file of writers that were killed"
    assert f"{told} would be removed, 3.00 MiB" in shell("prune", "--dry-run").ok().out
    assert f"remove {told[:6]}" in shell("repair").ok().out and left.exists()
    assert f"{told} removed, 3.00 MiB" in shell("prune").ok().out and not left.exists()
    assert "killed" not in shell("prune").ok().out


@pytest.mark.slow
def test_a_snapshot_that_is_purged_while_it_is_read(
    trees: Trees, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear error; and what a prune only moved is found where it lies now."""
    trees.fill(1, 3, KIB)
    first = trees.keep()
    trees.fill(2, 3, KIB)
    second = trees.keep()
    real = Catalogue.snapshot

    def snapshot(catalogue: Catalogue, reference: str) -> object:
        found = real(catalogue, reference)
        assert len(catalogue.fetcher._index.lookup(np.zeros((1, 32), np.uint8)).found)  # it is loaded
        spawn("forget", first, "--allow-last").check_returncode()
        spawn("prune", *ALL).check_returncode()
        return found

    monkeypatch.setattr(Catalogue, "snapshot", snapshot)
    told = shell("ls", first).ok(1)
    assert "forgotten and purged while it was read" in told.err and first[:8] in told.err
    monkeypatch.setattr(Catalogue, "snapshot", real)
    assert "file1" in shell("ls", "--recursive", second).ok().out


@pytest.mark.slow
def test_what_a_prune_moves_while_it_is_read_is_found_again(
    trees: Trees, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):  # so many small packs are joined
        trees.fill(number, 1, KIB)
        last = trees.keep()
    real = Catalogue.snapshot

    def snapshot(catalogue: Catalogue, reference: str) -> object:
        found = real(catalogue, reference)
        assert catalogue.fetcher is not None
        before = packs_of(shell)
        done = spawn("prune", *ALL)
        assert done.returncode == 0 and before.keys().isdisjoint(packs_of(shell))
        return found

    monkeypatch.setattr(Catalogue, "snapshot", snapshot)
    assert "file0" in shell("ls", "--recursive", last).ok().out
