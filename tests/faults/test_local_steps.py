"""A power cut at any step of the local store: A3 and A8 of the fault catalogue.

Of the steps really taken, every prefix is cut, and of what was not synced then every subset is lost. Whatever is left
shows the store as it is after some whole operations: all that were answered, and any of those under way. So no torn
object is ever seen, nothing reported as stored is lost, and each such state is one that the crash enumeration judges.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore
from repository.trash import forget, load_trash, undelete
from tests.faults.disk import Disk, Killed, Objects, Operation, RecordedStore, Recorder, Step
from tests.faults.scenarios import CHEAP, CHUNKS, FIRST, World, back_up

ROOT = Path(__file__).parents[2]
Script = Callable[[Repository, Path], None]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def allowed(operations: list[Operation], at: int) -> list[Objects]:
    """What a store may show after a cut before step `at`: all that was answered, and any of what was under way."""
    whole: Objects = {}
    open_ones: list[Operation] = []
    for operation in operations:
        if operation.begin > at:
            continue
        if operation.end is not None and operation.end <= at:
            _do(whole, operation)
        else:
            open_ones.append(operation)
    found = []
    for count in range(len(open_ones) + 1):
        for some in itertools.combinations(open_ones, count):
            state = dict(whole)
            for operation in some:
                _do(state, operation)
            found.append(state)
    return found


def _do(objects: Objects, operation: Operation) -> None:
    if operation.data is None:
        objects.pop(operation.name, None)
    else:
        objects[operation.name] = operation.data


def disk_with(folder: str) -> Disk:
    """A disk on which this folder, and those above it, are safe."""
    disk = Disk()
    while folder != "/":
        disk.entries[folder] = 0
        folder = os.path.dirname(folder)
    return disk


def cut_everywhere(recorder: Recorder, root: str) -> tuple[int, int]:
    """Cuts the power at every step; how many steps there were, and how many subsets."""
    disk, states = disk_with(os.path.dirname(root)), 0
    for at, step in enumerate([*recorder.steps, None]):
        expected = allowed(recorder.operations, at)
        for left in disk.after_power_cut(root):
            states += 1
            assert left in expected, f"before step {at}: {step and step.what} {step and step.path}"
        if step is not None:
            disk.apply(step)
    return len(recorder.steps), states


def test_every_step_of_a_repositorys_life(recorder: Recorder, tmp_path: Path) -> None:
    world = World(tmp_path / "tree")
    world.tree.mkdir()
    store = RecordedStore(str(tmp_path / "repository"), recorder)
    repository, _ = Repository.init(store, FIRST, CHUNKS, kdf=CHEAP)
    for _ in range(2):
        world.edit()
        back_up(repository, world.tree)
    repository.add_password("another", "deputy", CHEAP)
    repository.change_password("yet another", CHEAP)
    forget(repository, load_all(repository)[0].id, "by name", 1)
    undelete(repository, load_trash(repository)[0])
    steps, states = cut_everywhere(recorder, store.url)
    print(f"{len(recorder.operations)} operations, {steps} steps, {states} subsets of what was not synced")
    assert len(recorder.operations) > 15 and steps > 100 and states > 2 * steps


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("size", [0, 10, 3 << 20])
def test_every_step_of_one_object(recorder: Recorder, tmp_path: Path, size: int, links: bool) -> None:
    """With and without hard links, also past the page cache."""
    recorder.links = links
    store = RecordedStore(str(tmp_path / "new" / "place"), recorder)
    store.put("packs/aa/one", [os.urandom(size), b"tail"])
    store.delete("packs/aa/one")
    store.put("packs/aa/two", [b"x"])
    cut_everywhere(recorder, store.url)


def test_a_store_that_forgot_a_sync_would_be_found_out(recorder: Recorder, tmp_path: Path) -> None:
    """The model can say no: without any one of the syncs of a put, something is lost or torn."""
    store = RecordedStore(str(tmp_path / "place"), recorder)
    store.put("packs/aa/one", [b"content"])
    steps = list(recorder.steps)
    syncs = [at for at, step in enumerate(steps) if step.what.startswith("sync")]
    assert len(syncs) == 5  # the store in its parent, packs/, packs/aa/, the file, its name
    for without in syncs:
        recorder.steps = [Step("nothing") if at == without else step for at, step in enumerate(steps)]
        recorder.steps[without] = Step("sync folder", "/nowhere")
        with pytest.raises(AssertionError, match="before step"):
            cut_everywhere(recorder, store.url)


def test_killed_at_any_step_and_run_again_all_is_durable(recorder: Recorder, tmp_path: Path) -> None:
    """What a killed process made and did not sync, its successor must not take for safe."""
    root = str(tmp_path / "place")

    def run() -> RecordedStore:
        store = RecordedStore(root, recorder)
        store.put("config", [b"settled"])
        store.put("packs/aa/one", [b"content"])
        return store

    run()
    whole = len(recorder.steps)
    for kill_at in range(whole):
        shutil.rmtree(root)
        recorder.steps, recorder.operations, recorder.kill_at = [], [], kill_at
        with pytest.raises(Killed):
            run()
        recorder.kill_at = None
        first = len(recorder.operations)
        store = RecordedStore(root, recorder)
        for name in ("config", "packs/aa/one"):
            if not store.exists(name):
                store.put(name, [b"again"])
        store.put("packs/aa/two", [b"more"])
        promised = {one.name: one.data for one in recorder.operations if one.end is not None}
        assert {one.name for one in recorder.operations[first:]} <= set(promised)
        disk = disk_with(str(tmp_path))
        for step in recorder.steps:
            disk.apply(step)
        for left in disk.after_power_cut(root):
            assert promised.items() <= left.items(), f"killed at step {kill_at}"


TRACED = """
import sys
from repository.store import LocalStore
store = LocalStore(sys.argv[1])
store.put("config", [b"settled"])
store.put("packs/aa/one", [b"x" * 5000, b"tail"])
store.delete("packs/aa/one")
"""


def test_the_steps_are_those_the_kernel_sees(recorder: Recorder, tmp_path: Path) -> None:
    """The recorder misses nothing: strace counts the same calls."""
    if shutil.which("strace") is None:
        pytest.skip("no strace: apt-get install strace")
    calls = "mkdir,mkdirat,link,linkat,rename,renameat,renameat2,unlink,unlinkat,fsync,fdatasync,writev,pwrite64"
    log, place = tmp_path / "log", tmp_path / "traced"
    command = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={calls}", sys.executable, "-c", TRACED, str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr:
        pytest.skip("processes may not be traced here: run outside of a container, or with CAP_SYS_PTRACE")
    assert done.returncode == 0, done.stderr
    seen = [
        re.sub(r"at2?$", "", found[1])
        for line in log.read_text().splitlines()
        if (found := re.match(r"\d+ +(\w+)\(", line)) and str(tmp_path) in line and " = -1 " not in line
    ]
    store = RecordedStore(str(tmp_path / "recorded"), recorder)
    store.put("config", [b"settled"])
    store.put("packs/aa/one", [b"x" * 5000, b"tail"])
    store.delete("packs/aa/one")
    names = {"sync": "fsync", "sync folder": "fsync", "write": "writev"}
    mine = [names.get(step.what, step.what) for step in recorder.steps if step.what != "create"]
    assert seen == mine


def test_a_power_cut_leaves_what_the_real_store_reads(recorder: Recorder, tmp_path: Path) -> None:
    """The objects that the model calls visible are those a local store lists, leftovers and all."""
    store = RecordedStore(str(tmp_path / "place"), recorder)
    store.put("packs/aa/one", [b"content"])
    recorder.kill_at = len(recorder.steps) + 2  # the temporary file is there, its name is not
    with pytest.raises(Killed):
        store.put("packs/aa/two", [b"half"])
    disk = disk_with(str(tmp_path))
    for step in recorder.steps:
        disk.apply(step)
    recorder.kill_at = None
    listed = {name: store.get(name) for name, _ in LocalStore(store.url).list()}
    assert listed in list(disk.after_power_cut(store.url))
    assert [path.name for path in (tmp_path / "place/packs/aa").iterdir() if path.name.startswith(".tmp-")]
