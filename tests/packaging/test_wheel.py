"""The built wheel, installed into a clean environment, does its work wherever it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import trees
from tests.packaging import project

pytestmark = pytest.mark.slow

LEFT_OUT = (".git", ".venv*", "build", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache", "bench-out")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing that lies about in the working folder gets in or hides that it is missing."""
    source = tmp_path_factory.mktemp("source") / "lox"
    shutil.copytree(project.ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT))
    output = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", output, source], check=True)
    return next(output.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `lox` command of a new environment: our wheel, and the dependencies of the environment that runs the tests.

    Those come in by path, so that installing needs no network; files named by a .pth file in there (such as our own
    editable installation) are not followed.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(place.stdout.strip(), "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return folder / "bin" / "lox"


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """A folder in which every one of our names is taken by somebody else's code, which would not survive being run."""
    folder = tmp_path / "foreign"
    for name in [*project.packages(), "configs"]:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('imported the foreign package')\n")
    yield folder


def run(command: Path, folder: Path, work: Path, *arguments: str | Path) -> str:
    """Run `lox` in `folder` as an unsuspecting user would; gives what it printed."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LOX_"))},
        "LOX_REPOSITORY": str(work / "repository"),
        "LOX_PASSWORD": "secret",
        "LOX_CACHE_DIR": str(work / "cache"),
    }
    done = subprocess.run(
        [command, "--no-progress", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def round_trip(command: Path, foreign: Path, work: Path, executor: str) -> None:
    source, target = work / "source", work / "target"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "text").write_bytes(b"hello\n" * 1000)
    (source / "random").write_bytes(os.urandom(3 << 20))
    target.mkdir()
    run(command, foreign, work, "init")
    run(command, foreign, work, "backup", "--profile", "low-memory", "--executor", executor, source)
    run(command, foreign, work, "restore", "--executor", executor, "latest", "--target", target)
    restored = target / source.relative_to("/")
    assert trees.compare(os.fsencode(source), os.fsencode(restored), owner=os.geteuid() == 0) == []


def test_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops - {"configs"} == set(project.packages())
    shipped = {name for name in names if name.endswith(".py")} - {name for name in names if name.startswith("configs/")}
    assert shipped == {str(path.relative_to(project.ROOT)) for path in project.modules()}


def test_wheel_holds_every_file_that_is_shipped_for_other_programs(wheel: Path) -> None:
    """All of configs/: what is forgotten in pyproject.toml is there in a checkout, and nowhere else."""
    names = set(zipfile.ZipFile(wheel).namelist())
    root = project.ROOT / "configs"
    files = {str(path.relative_to(project.ROOT)) for path in root.rglob("*") if path.is_file()}
    assert {name for name in files - names if "__pycache__" not in name} == set()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc")
def test_wheel_holds_the_compiled_kernels(wheel: Path) -> None:
    assert any(
        name.startswith("kernels/_native") and name.endswith(".so") for name in zipfile.ZipFile(wheel).namelist()
    )


def test_wheel_works_among_foreign_folders_with_our_names(installed: Path, foreign: Path, tmp_path: Path) -> None:
    assert "0.1.0" in run(installed, foreign, tmp_path, "--version")
    round_trip(installed, foreign, tmp_path, "threads")


@pytest.mark.ray
@pytest.mark.skipif(find_spec("ray") is None, reason="needs ray: pip install ray")
def test_ray_workers_import_ours_too(installed: Path, foreign: Path, tmp_path: Path) -> None:
    round_trip(installed, foreign, tmp_path, "ray")
