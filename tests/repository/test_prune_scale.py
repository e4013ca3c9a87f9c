"""What pruning a large repository takes: memory and time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.batches import Receipt
from repository.index import save_index
from repository.pack import PackKind, pack_name
from repository.store import LocalStore
from tests.lox.running import ROOT
from tests.repository.prunes import tree_of
from tests.repository.samples import back_up, new_repository

CHUNKS, PER_PACK, PER_SEGMENT = 4_000_000, 250, 16
MIB = 1 << 20

PRUNE = """
import sys
import numpy as np
from repository import prune as module
from repository.repository import Repository
from repository.store import LocalStore

follow = module._Prune._follow

def need_most(self, needs, snapshots):  # as the manifests of many snapshots would
    follow(self, needs, snapshots)
    for table, marks in zip(needs.index.tables, needs.marks):
        marks[(table.packs["id"][:, 0] > 50)[table.segments["pack"][table.segment]]] |= 1

module._Prune._follow = need_most
repository = Repository.open(LocalStore(sys.argv[1]), None)
report = module.prune(repository, module.PrunePolicy(float(sys.argv[2]), None, 0, 0))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # of this program alone
print(report.deleted, len(report.damaged), int(peak) >> 10)
"""


def receipt(rng: np.random.Generator) -> Receipt:
    """A pack of 64 MiB, and a little room for its table."""
    rows = np.arange(PER_PACK)
    count = -(-PER_PACK // PER_SEGMENT)
    return Receipt(
        pack_id=rng.bytes(16),
        pack_kind=PackKind.DATA,
        pack_size=512 + count * 4 * MIB + 10_000,
        segment_offset=(512 + np.arange(count) * 4 * MIB).astype(np.uint32),
        segment_stored=np.full(count, 4 * MIB, np.uint32),
        segment_plain=np.full(count, PER_SEGMENT * 1000, np.uint32),
        segment_codec=np.ones(count, np.uint8),
        ids=rng.integers(0, 256, (PER_PACK, 32), dtype=np.uint8),
        segment=(rows // PER_SEGMENT).astype(np.uint32),
        offset=(rows % PER_SEGMENT * 1000).astype(np.uint32),
        length=np.full(PER_PACK, 1000, np.uint32),
    )


@pytest.mark.slow
@pytest.mark.parametrize("max_unused", [1.0, 0.0])
def test_four_million_chunks_take_less_than_400_mib(tmp_path: Path, max_unused: float) -> None:
    """16,000 packs that are holes: those that are to be rewritten (of which a chunk is not needed) do not open."""
    repository = new_repository(False, LocalStore(str(tmp_path)))
    rng = np.random.default_rng(1)
    receipts = [receipt(rng) for _ in range(CHUNKS // PER_PACK)]
    for one in receipts:
        path = tmp_path / pack_name(one.pack_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, one.pack_size)
    save_index(repository, receipts)
    back_up(repository, tree_of(a=b"needed"))
    outcome = subprocess.run(
        [sys.executable, "-c", PRUNE, str(tmp_path), str(max_unused)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120)),
    )
    assert outcome.returncode == 0, outcome.stderr
    deleted, damaged, peak = map(int, outcome.stdout.split())
    assert deleted > len(receipts) // 8 and (damaged > 0) == (max_unused == 0.0)
    assert peak < 400
