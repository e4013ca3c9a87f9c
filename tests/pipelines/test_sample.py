"""A sample restored to nowhere is the real thing: what it finds bad cannot be restored, what it finds good can."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pipelines.options import EngineOptions
from pipelines.sample import restore_sample
from repository.pack import pack_name
from tests.pipelines.helpers import Place


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_a_sample_of_everything_agrees_with_a_restore(tmp_path: Path, executor: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    rng = random.Random(1)
    for number in range(6):
        (tree / f"large{number}").write_bytes(rng.randbytes(3 << 20))
        (tree / f"small{number}").write_bytes(rng.randbytes(3000))
    with open(tree / "sparse", "wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(rng.randbytes(1 << 20))
    (tree / "empty").touch()
    (tree / "link").symlink_to("large0")
    place = Place(tmp_path / "repository", executor=executor)
    snapshot = place.backup(tree).snapshot
    assert snapshot is not None
    engine = EngineOptions(executor=executor, lanes=2)
    sound = restore_sample(place.repository, [snapshot], 13, engine, seed=3)
    assert (sound.files, sound.failures) == (13, [])
    assert sound.bytes == (6 * (3 << 20)) + 6 * 3000 + (1 << 20)
    listed = sorted(place.repository.store.list("packs/"), key=lambda each: -each[1])
    path = place.path / listed[0][0]
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    damaged = restore_sample(place.repository, [snapshot], 13, engine, seed=4)
    restored = place.restore(snapshot, tmp_path / "out")
    assert {path for path, _, _ in damaged.failures} == {path for path, _ in restored.problems} != set()


def test_of_a_missing_pack_and_a_lost_manifest_is_told(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(100_000))
    place = Place(tmp_path / "repository")
    snapshot = place.backup(tree).snapshot
    assert snapshot is not None
    for name, _ in list(place.repository.store.list("packs/")):
        pack = bytes.fromhex(name[-32:])
        data = place.repository.store.get(name)
        place.repository.store.delete(pack_name(pack))
        report = restore_sample(place.repository, [snapshot], 1, EngineOptions(executor="inline"), seed=1)
        assert len(report.failures) == 1 and report.failures[0][1] == snapshot.id
        place.repository.store.put(name, [data])
