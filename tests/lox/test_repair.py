"""``lox check``, ``lox repair`` and ``lox debug damage`` together: the drill, as an operator would do it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from model.exits import ExitCode
from tests.lox.running import Shell
from tests.pipelines.helpers import differences

MIB = 1 << 20


def grow(tree: Path, generation: int, mib: int) -> None:
    """Some new files, one of them large; one file of the last generation changes, one goes."""
    rng = random.Random(generation)
    folder = tree / f"generation{generation}"
    folder.mkdir(parents=True)
    (folder / "large").write_bytes(rng.randbytes((mib - 1) * MIB))
    for number in range(16):
        (folder / f"small{number}").write_bytes(rng.randbytes(64 << 10))
    if generation:
        last = tree / f"generation{generation - 1}"
        (last / "small0").unlink()
        (last / "small1").write_bytes(rng.randbytes(50_000))


def packs_of(shell: Shell) -> dict[str, Path]:
    found = {str(path.relative_to(shell.repository)): path for path in (shell.repository / "packs").rglob("*")}
    return {name: path for name, path in found.items() if path.is_file()}


class Drill:
    """Some generations of a tree, a copy of each, and what becomes of them."""

    def __init__(self, shell: Shell, base: Path, generations: int, mib: int) -> None:
        self.shell = shell
        self.base = base
        self.tree = base / "tree"
        self.snapshots: list[str] = []
        for generation in range(generations):
            grow(self.tree, generation, mib)
            self.keep()

    def keep(self) -> None:
        """Back up, and keep a copy to compare with."""
        copy = self.base / f"copy{len(self.snapshots)}"
        shutil.copytree(self.tree, copy)
        (summary,) = self.shell.json("backup", self.tree)
        self.snapshots.append(summary["snapshot"])

    def damaged(self, step: str) -> dict[str, set[str]]:
        """Which files of which snapshots do not come out as they went in."""
        found: dict[str, set[str]] = {}
        for number, snapshot in enumerate(self.snapshots):
            out = self.base / f"out-{step}-{number}"
            outcome = self.shell("restore", snapshot, "--target", out)
            assert outcome.code in (ExitCode.OK, ExitCode.DAMAGE_FOUND, ExitCode.PARTIAL), outcome
            restored = out / str(self.tree)[1:]
            copy = self.base / f"copy{number}"
            for path in sorted(copy.rglob("*")):
                if path.is_file():
                    twin = restored / path.relative_to(copy)
                    if not twin.is_file() or twin.read_bytes() != path.read_bytes():
                        found.setdefault(snapshot, set()).add(str(self.tree / path.relative_to(copy)))
            if snapshot not in found:
                assert differences(copy, restored) == ""
            shutil.rmtree(out, ignore_errors=True)  # not even made if nothing of it can be listed
        return found


def told(rows: list[dict[str, object]], *kinds: str) -> dict[str, set[str]]:
    """Files by snapshot, as lines of these kinds tell them."""
    found: dict[str, set[str]] = {}
    for row in rows:
        if row["type"] in kinds:
            assert isinstance(row["snapshots"], list)
            for snapshot in row["snapshots"]:
                found.setdefault(snapshot, set()).add(str(row["path"]))
    return found


def drill(shell: Shell, base: Path, kind: str, seed: int, generations: int, mib: int, packs: int) -> None:
    run = Drill(shell, base, generations, mib)
    assert run.damaged("before") == {}
    shell("check", "--read-data").ok()
    shell("debug", "damage", "--seed", str(seed), "--packs", str(packs), "--kind", kind, "--i-know-what-i-do").ok()
    broken = run.damaged("damaged")

    shell("check", "--read-data").ok(ExitCode.DAMAGE_FOUND)
    before = {name: path.read_bytes() for name, path in packs_of(shell).items()}
    plan = shell.json("repair", code=ExitCode.DAMAGE_FOUND)  # knows from the check which packs are bad
    assert plan[-1]["packs_condemned"] >= packs and not plan[-1]["applied"]
    assert packs_of(shell).keys() == before.keys() and not (shell.repository / "gc").exists()
    done = shell("--json", "repair", "--apply").lines
    assert done[-1]["applied"]
    assert {name: path.read_bytes() for name, path in packs_of(shell).items()}.items() >= before.items()
    stays = run.damaged("repaired")
    assert all(stays[each] <= broken.get(each, set()) for each in stays), "what was cut off may be readable again"
    unknown = {row["snapshot"] for row in done if row["type"] == "snapshot_incomplete"}
    files = told(done, "file_curable", "file_unsure", "file_lost")
    assert {each: found for each, found in files.items() if each not in unknown} == {
        each: found for each, found in stays.items() if each not in unknown
    }, "what is told to be damaged is what is damaged"

    run.keep()
    left = run.damaged("healed")
    lost, perhaps = told(done, "file_lost"), told(done, "file_unsure")
    for each in set(run.snapshots) - unknown:
        assert lost.get(each, set()) <= left.get(each, set()), "what was said to be lost is"
        assert left.get(each, set()) <= lost.get(each, set()) | perhaps.get(each, set()), "and all else is healed"
    assert run.snapshots[-1] not in left
    after = shell("--json", "check", "--read-data")
    named = {
        (snapshot, row["path"])
        for finding in after.lines
        if finding["type"] == "finding"
        for row in finding["files"]
        for snapshot in finding["snapshots"]
    }
    assert after.code == (ExitCode.DAMAGE_FOUND if left or unknown else ExitCode.OK)
    assert named >= {(snapshot, path) for snapshot in left.keys() - unknown for path in left[snapshot]}
    again = shell.json("repair", "--read-data", code=after.code)
    assert again[-1]["packs_condemned"] == again[-1]["set_aside"] == 0


@pytest.mark.parametrize(("kind", "seed"), [("flip", 1), ("truncate", 2), ("delete", 3), ("swap", 4)])
def test_the_drill(shell: Shell, tmp_path: Path, kind: str, seed: int) -> None:
    drill(shell, tmp_path, kind, seed, generations=4, mib=4, packs=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_drill_with_a_larger_repository(shell: Shell, tmp_path: Path, seed: int) -> None:
    kind = ("flip", "truncate", "delete", "swap")[seed]
    drill(shell, tmp_path, kind, seed, generations=4, mib=60, packs=3)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(tmp_path / "tree", 0, 2)
    return tmp_path / "tree"


def test_a_damaged_index_keeps_backups_from_working_until_it_is_repaired(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    (index,) = (path for path in (shell.repository / "index").rglob("*") if path.is_file())
    name = str(index.relative_to(shell.repository))
    shell("debug", "damage", "--seed", "1", "--object", name, "--kind", "flip", "--i-know-what-i-do").ok()
    stopped = shell("backup", tree).ok(ExitCode.DAMAGE_FOUND)
    assert "lox repair" in stopped.err
    told = shell("repair").ok(ExitCode.DAMAGE_FOUND)
    assert f"move aside {name}" in told.out and "--apply" in told.out and index.exists()
    assert "every snapshot can be restored" in shell("repair", "--apply").ok().out
    assert not index.exists() and (shell.repository / "gc" / "quarantine" / name).is_file()
    (summary,) = shell.json("backup", tree)
    assert summary["files_new"] == 0
    shell("check", "--read-data").ok()


def test_debug_damage_wants_to_be_sure(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    before = {name: path.read_bytes() for name, path in packs_of(shell).items()}
    one = ("debug", "damage", "--seed", "1", "--kind", "flip")
    for arguments in (
        (*one, "--packs", "1"),
        (*one, "--i-know-what-i-do"),
        (*one, "--packs", "1", "--object", "config", "--i-know-what-i-do"),
        (*one, "--packs", "99", "--i-know-what-i-do"),
        (*one, "--object", "packs/no", "--i-know-what-i-do"),
        (*one, "--object", "../out", "--i-know-what-i-do"),
    ):
        shell(*arguments).ok(ExitCode.USAGE)
    assert {name: path.read_bytes() for name, path in packs_of(shell).items()} == before
    (row,) = shell.json(*one, "--packs", "1", "--i-know-what-i-do")
    assert packs_of(shell)[row["object"]].read_bytes() != before[row["object"]]


def test_without_a_password_bytes_are_compared_with_their_checksums(
    shell: Shell, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("backup", tree).ok()
    monkeypatch.delenv("LOX_PASSWORD")
    assert "no damage found" in shell("check", "--keyless").ok().out
    shell("debug", "damage", "--seed", "1", "--packs", "1", "--kind", "truncate", "--i-know-what-i-do").ok()
    (name,) = {row["object"] for row in shell.json("check", "--keyless", code=15) if row["type"] == "finding"}
    assert name in packs_of(shell)


def test_the_quick_check_notices_what_a_listing_shows(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    assert shell.json("check", "--quick")[-1]["level"] == "presence"
    pack = sorted(packs_of(shell))[0]
    shell("debug", "damage", "--seed", "1", "--object", pack, "--kind", "delete", "--i-know-what-i-do").ok()
    assert pack in shell("check", "--quick").ok(ExitCode.DAMAGE_FOUND).err


def test_a_sample_is_restored_to_nowhere(shell: Shell, tree: Path) -> None:
    assert shell.json("check", "--restore-sample", "5")[-1]["files_restored"] == 0
    shell("backup", tree).ok()
    (summary,) = shell.json("check", "--restore-sample", "12")
    assert summary["files_restored"] == 12 and summary["bytes_restored"] >= 11 * (64 << 10)
    largest = max(packs_of(shell).values(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    for at in range(600, len(data) - 5000, 1000):
        data[at] ^= 1
    largest.chmod(0o600)
    largest.write_bytes(data)
    rows = shell.json("check", "--restore-sample", "3", code=ExitCode.DAMAGE_FOUND)
    paths = [file["path"] for row in rows if row["type"] == "finding" for file in row["files"]]
    assert len(paths) == 3 and all(path.startswith(str(tree)) for path in paths)


def test_a_rolling_check_goes_round(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    for generation in range(1, 3):
        grow(tree, generation, 2)
        shell("backup", tree).ok()
    read = [shell.json("check", "--read-data-subset", "1/3", "--rolling")[-1]["packs_read"] for _ in range(3)]
    assert sum(read) >= len(packs_of(shell)) and max(read) < len(packs_of(shell))


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--rolling"),
        ("check", "--quick", "--read-data"),
        ("check", "--keyless", "--restore-sample", "2"),
        ("check", "--read-data", "--read-data-subset", "5%"),
        ("check", "--read-data-subset", "3/2"),
        ("check", "--read-data-subset", "1/0"),
        ("repair", "--apply", "--dry-run"),
        ("repair", "--read-data", "--read-data-subset", "5%"),
    ],
)
def test_what_contradicts_itself_is_refused(shell: Shell, arguments: tuple[str, ...]) -> None:
    shell(*arguments).ok(ExitCode.USAGE)
