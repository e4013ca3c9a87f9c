"""`make demo`: a real backup of a system folder, a second one, a restore and the comparison, with the numbers.

Takes the largest of a few system folders of at most a gigabyte; ``--folder`` names another. Asks nothing, needs no
privileges, leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import trees

LIMIT = 1_000_000_000  # bytes
CANDIDATES = ("/usr", "/usr/lib", "/usr/share", "/usr/include", "/usr/bin")
DIFFERENCES_SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, help="what to back up instead of a system folder")
    parser.add_argument("--work", type=Path, help="where repository and restored files go (default: TMPDIR)")
    options = parser.parse_args()
    folder, size = choose(options.folder)
    print(f"LOX Backup, demonstration with {folder}: {size.files:,} files, {size.size / 1e6:,.0f} MB")
    with tempfile.TemporaryDirectory(prefix="lox-demo-", dir=options.work) as work:
        free = shutil.disk_usage(work).free
        if free < 2 * size.size + (64 << 20):
            print(f"{work}: {free / 1e6:,.0f} MB free are too few; name a roomier place with ARGS='--work DIR'")
            return 1
        return demonstrate(folder, size, Path(work))


def choose(wanted: Path | None) -> tuple[Path, trees.TreeSize]:
    """The folder to show, and its size: the largest candidate within `LIMIT`, else the smallest there is."""
    if wanted is not None:
        return wanted.resolve(), trees.measure(os.fsencode(wanted))
    found = []
    for candidate in CANDIDATES:
        path = Path(candidate)
        if path.is_dir() and not path.is_symlink():
            found.append((path, trees.measure(os.fsencode(path))))
    fitting = [pair for pair in found if pair[1].size <= LIMIT]
    if fitting:
        return max(fitting, key=lambda pair: pair[1].size)
    return min(found, key=lambda pair: pair[1].size)


def demonstrate(folder: Path, size: trees.TreeSize, work: Path) -> int:
    repository, target = work / "repository", work / "restored"
    password = work / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16) + "\n")
    target.mkdir()
    environment = {
        **os.environ,
        "LOX_REPOSITORY": str(repository),
        "LOX_PASSWORD_FILE": str(password),
        "LOX_CACHE_DIR": str(work / "cache"),
    }

    def lox(*arguments: str) -> float:
        """Run one command as a user would, and give its wall time in seconds."""
        print(f"\n$ lox {' '.join(arguments)}", flush=True)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lox", *arguments], env=environment, check=True)
        return time.perf_counter() - start

    lox("init")
    first = lox("backup", str(folder))
    stored = trees.measure(os.fsencode(repository)).size
    second = lox("backup", str(folder))
    lox("snapshots")
    restored = lox("restore", "latest", "--target", str(target))
    lines = differences(folder, target / folder.relative_to("/"))
    print(f"\n{'first backup':24} {first:8.2f} s   {size.size / first / 1e6:8,.0f} MB/s")
    print(f"{'second, unchanged':24} {second:8.2f} s")
    print(f"{'restore':24} {restored:8.2f} s   {size.size / restored / 1e6:8,.0f} MB/s")
    print(f"{'repository':24} {stored / 1e6:8,.1f} MB  {stored / max(1, size.size):8.1%} of the folder")
    print(f"{'differences':24} {len(lines):8}")
    for line in lines[:DIFFERENCES_SHOWN]:
        print(f"  {line}")
    return 1 if lines else 0


def differences(source: Path, restored: Path) -> list[str]:
    """What rsync would change to make the restored tree the source; without rsync, what our own comparison finds."""
    owner = os.geteuid() == 0
    if shutil.which("rsync") is None:
        print("\ncomparing (rsync is not installed: own comparison) ...", flush=True)
        return trees.compare(os.fsencode(source), os.fsencode(restored), owner=owner)
    flags = "-aHAXn" if owner else "-rlptHn"
    command = ["rsync", flags, "--delete", "--checksum", "--itemize-changes", f"{source}/", f"{restored}/"]
    print(f"\n$ {' '.join(command)}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = done.stdout.splitlines()
    return lines if done.returncode == 0 else [*lines, f"rsync: {done.stderr.strip()}"]


if __name__ == "__main__":
    sys.exit(main())
