"""Collecting what the installer hands out: the wheel of this program and those it needs, for which hosts."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from email.parser import BytesParser
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from model.errors import ConfigError, LoxError

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
HEAVY = frozenset({"ray"})  # an agent works with threads; Ray alone is larger than all the rest


def collect(
    folder: Path,
    *,
    wheel: Path | None,
    version: str,
    extras: Sequence[str],
    pythons: Sequence[str],
    platforms: Sequence[str],
    index: Sequence[str] = (),
) -> list[str]:
    """Put the wheel of this program and what it needs into `folder`, and return their names.

    `wheel` is that of this program; None fetches `version` of it. `pythons` and `platforms` say for which hosts,
    with none given for one like this. `index` are options of pip. Raises LoxError with what pip said, ConfigError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name:
        work = Path(name)
        if wheel is None:
            _pip(["download", "--no-deps", "--dest", str(work), f"lox-backup=={version}", *index])
        else:
            shutil.copy(wheel, work)
        ours = next(iter(work.glob("lox_backup-*.whl")), None)
        if ours is None:
            raise ConfigError("this is no wheel of lox-backup", subject=str(wheel or version))
        for python in pythons or [""]:
            _download(work, requirements_of(ours, extras), python, platforms, index)
        names = sorted(path.name for path in work.glob("*.whl"))
        for old in folder.glob("*.whl"):
            if old.name not in names:
                old.unlink()
        for new in names:
            (work / new).replace(folder / new)
    return names


def requirements_of(wheel: Path, extras: Sequence[str]) -> list[str]:
    """What `wheel` needs with `extras`, without what is heavy and not needed by an agent. Raises ConfigError."""
    from packaging.requirements import Requirement  # a part of pip's world, only needed here

    try:
        with ZipFile(wheel) as archive:
            name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
            metadata = BytesParser().parsebytes(archive.read(name))
    except (BadZipFile, StopIteration, OSError) as error:
        raise ConfigError("this is no wheel", subject=str(wheel), why=str(error)) from error
    wanted = []
    for line in metadata.get_all("Requires-Dist") or []:
        need = Requirement(line)
        applies = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if applies and need.name not in HEAVY and need.name != "lox-backup":
            need.marker = None
            wanted.append(str(need))
    return wanted


def _download(
    work: Path, requirements: Sequence[str], python: str, platforms: Sequence[str], index: Sequence[str]
) -> None:
    where = [option for platform in platforms for option in ("--platform", platform)]
    version = ["--python-version", python] if python else []
    _pip(["download", "--only-binary", ":all:", "--dest", str(work), *version, *where, *index, *requirements])


def _pip(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoxError(
            "pip could not fetch the packages", why=done.stderr.strip()[-2_000:], hint="see --index-url, --find-links"
        )
