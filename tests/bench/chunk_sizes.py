"""``python -m tests.bench.chunk_sizes``: what the average chunk length costs and saves, on data people back up.

Versions of software trees (wheels from the package index), two dumps of a PostgreSQL database with edits between
them, and a disk image before and after an upgrade of its files. Every version goes through our chunker, a dictionary of
known ids and zstd segments of 4 MiB, as in a backup. Needs pip; PostgreSQL and mke2fs/debugfs for their parts, which
are otherwise left out with a word. The result is in docs/decisions/.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import zstandard

import kernels
from kernels.chunk import PUBLIC_KEY
from model.chunking import KIB, MIB, ChunkerParams
from tests import trees

WHEELS = {
    "django": ("5.1.1", "5.1.2", "5.1.3", "5.1.4"),
    "botocore": ("1.35.0", "1.35.10", "1.35.50", "1.36.0"),
    "numpy": ("2.1.1", "2.1.2", "2.1.3", "2.2.0"),
    "scipy": ("1.14.0", "1.14.1", "1.15.0", "1.15.1"),
}
AVERAGES = (32, 64, 128, 256, 512, 1024)  # KiB
SEGMENT = 4 * MIB
BODY = 8 * MIB
LEVEL = 3
INDEX_CHUNK, INDEX_SEGMENT, LIST_CHUNK = 44, 24, 36  # bytes of a record in the index, and in a file's chunk list


@dataclass(slots=True)
class Tally:
    """What one data set costs at one average."""

    stored: list[int] = field(default_factory=list)  # bytes each version added
    plain: list[int] = field(default_factory=list)  # bytes of each version
    chunks: int = 0  # different ones
    listed: int = 0  # chunks in the lists of all versions
    segments: int = 0
    cutting: float = 0.0  # seconds in the chunker
    seconds: float = 0.0  # cutting, hashing, looking up, compressing

    @property
    def index(self) -> int:
        return self.chunks * INDEX_CHUNK + self.segments * INDEX_SEGMENT

    @property
    def lists(self) -> int:
        return self.listed * LIST_CHUNK


def store_versions(versions: Sequence[Path], average: int) -> Tally:
    """Back up folders or files one after the other, with `average` KiB."""
    params = ChunkerParams(average=average * KIB)
    table = kernels.gear_table(PUBLIC_KEY)
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    known: set[bytes] = set()
    tally = Tally()
    for version in versions:
        plain = stored = 0
        gathered: list[memoryview] = []
        room = SEGMENT

        def seal(parts: list[memoryview]) -> int:
            tally.segments += 1
            return len(compressor.compress(b"".join(parts)))

        for body, start, length in bodies(version):
            begin = time.perf_counter()
            ends, counts = kernels.cut_files(body, start, length, table, params)
            tally.cutting += time.perf_counter() - begin
            view = memoryview(body)
            tally.listed += len(ends)
            for lower, upper in chunk_bounds(ends, counts, start):
                name = hashlib.sha256(view[lower:upper]).digest()
                if name in known:
                    continue
                known.add(name)
                gathered.append(view[lower:upper])
                room -= upper - lower
                if room <= 0:
                    stored += seal(gathered)
                    gathered, room = [], SEGMENT
            tally.seconds += time.perf_counter() - begin
            plain += len(body)
        if gathered:
            stored += seal(gathered)
        tally.stored.append(stored)
        tally.plain.append(plain)
    tally.chunks = len(known)
    return tally


def chunk_bounds(ends: np.ndarray, counts: np.ndarray, start: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last+1 byte of every chunk, file after file."""
    position = 0
    finish = ends.tolist()
    for count, begin in zip(counts.tolist(), start.tolist(), strict=True):
        yield from pairwise([begin, *finish[position : position + count]])
        position += count


def bodies(version: Path) -> Iterator[tuple[bytes, np.ndarray, np.ndarray]]:
    """The files of a version back to back in bodies of about 8 MiB; a larger file is a body of its own."""
    parts: list[bytes] = []
    size = 0
    for path in sorted(regular_files(version)):
        content = path.read_bytes()
        if parts and size + len(content) > BODY:
            yield pack_body(parts)
            parts, size = [], 0
        parts.append(content)
        size += len(content)
    if parts:
        yield pack_body(parts)


def pack_body(parts: list[bytes]) -> tuple[bytes, np.ndarray, np.ndarray]:
    length = np.array([len(part) for part in parts], dtype=np.int64)
    return b"".join(parts), np.cumsum(length) - length, length


def regular_files(version: Path) -> list[Path]:
    if version.is_file():
        return [version]
    found = trees.walk(os.fsencode(version))
    return [
        Path(os.fsdecode(entry.path)) for _, entry in found if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
    ]


# --- data sets ------------------------------------------------------------------------------------------------------


def software(folder: Path) -> list[Path]:
    """Version k is a tree with the k-th release of every package."""
    count = len(next(iter(WHEELS.values())))
    versions = [folder / f"release-{number}" for number in range(count)]
    for number, version in enumerate(versions):
        if version.exists():
            continue
        wanted = [f"{name}=={releases[number]}" for name, releases in WHEELS.items()]
        with tempfile.TemporaryDirectory() as wheels:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*download, "--dest", wheels, *wanted], check=True)
            for wheel in sorted(Path(wheels).glob("*.whl")):
                zipfile.ZipFile(wheel).extractall(version)
    return versions


def postgres(folder: Path) -> list[Path]:
    """Two plain dumps of a million rows, with 5,000 rows in a row and 100 here and there updated, and some added and
    deleted in between."""
    dumps = [folder / "dump-0.sql", folder / "dump-1.sql"]
    if all(dump.exists() for dump in dumps):
        return dumps
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        print("left out: PostgreSQL is not installed (apt-get install postgresql)", file=sys.stderr)
        return []
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="lox-pg-") as place:
        os.chmod(place, 0o777)
        data, binaries = Path(place) / "data", programs[-1]
        options = f"-k {place} -c listen_addresses='' -c fsync=off"

        def call(program: str, *arguments: str | Path, output: Path | None = None) -> None:
            with open(output or os.devnull, "wb") as sink:
                subprocess.run([*user, binaries / program, *arguments], check=True, stdout=sink, cwd=place)

        call("initdb", "-D", data, "-A", "trust", "-U", "postgres")
        call("pg_ctl", "-D", data, "-o", options, "-l", Path(place) / "log", "-w", "start")
        try:
            for statements, dump in zip((CREATE, EDIT), dumps, strict=True):
                call("psql", "-h", place, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", statements)
                call("pg_dump", "-h", place, "-U", "postgres", output=dump)
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    return dumps


CREATE = """
create table orders (id bigint primary key, customer bigint, placed timestamptz, amount numeric, remark text);
insert into orders select i, (i * 7919) % 100003, timestamptz '2024-01-01' + i * interval '7 seconds',
    round(((i * 104729) % 1000000) / 100.0, 2), md5(i::text) || repeat(md5((i % 977)::text), 2)
    from generate_series(1::bigint, 1000000) i;
"""
EDIT = """
update orders set amount = amount + 1 where id between 400000 and 404999;
update orders set remark = 'paid' where id % 10000 = 17;
delete from orders where id between 700000 and 700199;
insert into orders select i, i % 100003, timestamptz '2024-06-01' + i * interval '1 second', 1.5, md5((-i)::text)
    from generate_series(1000001, 1005000) i;
"""


def image(folder: Path) -> list[Path]:
    """An ext4 image of the first release, and the same after its files were replaced by those of the second."""
    images = [folder / "disk-0.img", folder / "disk-1.img"]
    if all(path.exists() for path in images):
        return images
    if shutil.which("mke2fs") is None or shutil.which("debugfs") is None:
        print("left out: mke2fs and debugfs are not installed (apt-get install e2fsprogs)", file=sys.stderr)
        return []
    before, after = software(folder)[1:3]
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", before, images[0], "600M"], check=True)
    shutil.copyfile(images[0], images[1])
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as script:
        script.writelines(f"{line}\n" for line in upgrade(before, after))
        script.flush()
        subprocess.run(["debugfs", "-w", "-f", script.name, images[1]], check=True, capture_output=True)
    return images


def upgrade(before: Path, after: Path) -> Iterator[str]:
    """Commands for debugfs that make the changed files of `after` replace those of `before`."""
    old = {path.relative_to(before): path for path in regular_files(before)}
    new = {path.relative_to(after): path for path in regular_files(after)}
    made = {path.parent for path in old}
    for name in sorted(old.keys() - new.keys()):
        yield f'rm "/{name}"'
    for name, path in sorted(new.items()):
        if name in old and old[name].read_bytes() == path.read_bytes():
            continue
        if name in old:
            yield f'rm "/{name}"'
        for parent in [*reversed(name.parents)][1:]:
            if parent not in made:
                made.add(parent)
                yield f'mkdir "/{parent}"'
        yield f'write "{path}" "/{name}"'


DATA = {"software trees": software, "database dumps": postgres, "disk images": image}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.chunk_sizes", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/lox-bench/chunk-sizes"))
    parser.add_argument("--averages", type=int, nargs="*", default=AVERAGES, metavar="KIB")
    options = parser.parse_args()
    folder = options.work.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print(
        "| data | average KiB | plain MB | first stored MB | later stored MB | all MB | chunks | index MB | lists MB "
        "| cut MB/s | all MB/s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, make in DATA.items():
        versions = make(folder)
        for average in options.averages if versions else ():
            print(table_row(name, average, store_versions(versions, average)), flush=True)
    return 0


def table_row(name: str, average: int, tally: Tally) -> str:
    plain = sum(tally.plain)
    costs = sum(tally.stored) + tally.index + tally.lists
    numbers = [
        f"{average}",
        f"{plain / 1e6:,.0f}",
        f"{tally.stored[0] / 1e6:.1f}",
        f"{sum(tally.stored[1:]) / 1e6:.1f}",
        f"{costs / 1e6:.1f}",
        f"{tally.chunks:,}",
        f"{tally.index / 1e6:.2f}",
        f"{tally.lists / 1e6:.2f}",
        f"{plain / tally.cutting / 1e6:,.0f}",
        f"{plain / tally.seconds / 1e6:,.0f}",
    ]
    return f"| {name} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    sys.exit(main())
