"""Makes the repositories in v1/. They were made once and stay as they are: every later version has to read them.

    python -m tests.golden.make_v1 FOLDER

The tree is always the same; ids and nonces are random, so two runs make equal content in different bytes. Needs root,
because a file of it belongs to somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from model.chunking import KIB, MIB, ChunkerParams
from pipelines.backup import BackupRequest, backup
from pipelines.options import EngineOptions, Watch
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex
from repository.key_file import KeyFile
from repository.keys import KdfParams
from repository.manifest_reader import ManifestReader
from repository.repository import Repository
from repository.snapshot import Snapshot
from repository.store import LocalStore

Entry = dict[str, Any]

CODECS = ("zstd", "lz4", "gzip", "none")  # of the backup after each step
ROTATED = 2  # the step before which a new epoch begins
PASSWORD = "Zoe\u0308's golden repository"  # not in form NFC
CHUNKERS = {
    "encrypted": ChunkerParams(minimum=2 * KIB, average=8 * KIB, maximum=256 * KIB),
    "plain": ChunkerParams(minimum=64, average=512, maximum=1 * KIB),  # so small that the largest file has depth 1
}
ENGINE = EngineOptions(executor="inline", lanes=1)
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}
YEAR_2020 = 1_577_836_800 * 10**9


def take_step(root: Path, step: int) -> None:
    """Bring the tree from one snapshot's state to that of the next; step 0 builds it."""
    rng = random.Random(step)
    if step == 0:
        build(root, rng)
    write(root / f"new in step {step}", text(rng, 8_000))
    if step == 1:
        write(root / "grows", (root / "grows").read_bytes() + text(rng, 2_000))
        (root / "removed later").unlink()
        (root / "folder" / "mode").chmod(0o4755)
    for folder, _, _ in os.walk(root):
        os.utime(folder, ns=(YEAR_2020, YEAR_2020 + 1))


def build(root: Path, rng: random.Random) -> None:
    """A few of everything that needs no privileges to be restored, and a file of somebody else."""
    (root / "folder" / "deeper").mkdir(parents=True)
    (root / "folder-").mkdir()  # after what is in folder: the order is by parts of the path
    (root / "empty folder").mkdir(mode=0o700)
    write(root / "folder" / "deeper" / "text", text(rng, 30_000))
    write(root / "folder" / "mode", b"#!/bin/sh\n")
    write(root / "folder-" / "text", text(rng, 300))
    write(root / "empty", b"")
    write(root / "random", rng.randbytes(3_000))
    write(root / "grows", text(rng, 12_000))
    write(root / "removed later", text(rng, 500))
    # Long runs of few bytes: 10 MiB that differ everywhere and yet compress to next to nothing.
    write(root / "large", b"".join(rng.randbytes(8) * (32 * KIB) for _ in range(40)) + b"end")
    for name in (b"\xff\xfe not UTF-8\nand two lines", b" -*?\"'\\ ", "Zoë".encode(), "Zoe\u0308".encode(), b"n" * 255):
        write(Path(os.fsdecode(os.fsencode(root) + b"/" + name)), name)
    os.link(root / "folder" / "mode", root / "hard link")
    symlink(root / "link", b"folder/deeper/text")
    symlink(root / "folder" / "dangling", b"../\xff nowhere")
    os.mkfifo(root / "pipe", 0o620)
    os.utime(root / "pipe", ns=(YEAR_2020, YEAR_2020))
    write(root / "old", b"from before 1970", mtime=-5 * 10**9 - 1)
    write(root / "attributes", b"has some")
    os.setxattr(root / "attributes", "user.empty", b"")
    os.setxattr(root / "attributes", "user.binary", b"\0\xff")
    write_sparse(root / "sparse", rng)
    os.chmod(root / "folder" / "deeper", 0o1750)
    os.chmod(root / "random", 0o400)
    if os.geteuid() == 0:
        os.chown(root / "random", 1234, 5678)


def text(rng: random.Random, size: int) -> bytes:
    """Words that compress well and never repeat as a whole."""
    words = [rng.randbytes(4).hex().encode() for _ in range(100)]
    return b" ".join(rng.choice(words) for _ in range(size // 9 + 1))[:size]


def write(path: Path, content: bytes, mtime: int | None = None) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    mtime = YEAR_2020 + zlib.crc32(content) if mtime is None else mtime
    os.utime(path, ns=(YEAR_2020, mtime))


def write_sparse(path: Path, rng: random.Random) -> None:
    with open(path, "wb") as file:
        for offset in (MIB, 3 * MIB):
            file.seek(offset)
            file.write(text(rng, 16 * KIB))
        file.truncate(16 * MIB + 1)
    path.chmod(0o644)
    os.utime(path, ns=(YEAR_2020, YEAR_2020))


def symlink(path: Path, target: bytes) -> None:
    os.symlink(target, os.fsencode(path))
    os.utime(path, ns=(YEAR_2020, YEAR_2020 + 2), follow_symlinks=False)


# What there is to compare, without any code of the program


def decoded(name: bytes) -> str:
    """A name or path as it stands in expected.json."""
    return name.decode("utf-8", "surrogateescape")


def describe(root: Path) -> dict[str, Entry]:
    """Everything below `root` by its path."""
    top = os.fsencode(root)
    paths = [os.path.join(folder, name) for folder, folders, files in os.walk(top) for name in folders + files]
    described = {decoded(os.path.relpath(path, top)): describe_one(path) for path in sorted(paths)}
    first: dict[int, str] = {}
    for path, entry in described.items():
        if "links" in entry:
            entry["linked"] = first.setdefault(os.lstat(top + b"/" + os.fsencode(path)).st_ino, path)
    return described


def describe_one(path: bytes) -> Entry:
    status = os.lstat(path)
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    entry: Entry = {
        "kind": kind,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "mtime": status.st_mtime_ns,
        "owner": f"{status.st_uid}:{status.st_gid}",
    }
    if kind == "symlink":
        entry["target"] = decoded(os.readlink(path))
    if kind == "file":
        with open(path, "rb") as file:
            entry |= {"size": status.st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        if status.st_nlink > 1:
            entry["links"] = status.st_nlink
        if xattrs := {name: os.getxattr(path, name).hex() for name in os.listxattr(path)}:
            entry["xattrs"] = xattrs
    return entry


# The repositories


def recorded(repository: Repository, snapshot: Snapshot, root: bytes) -> dict[str, dict[str, Any]]:
    """What only the manifest knows of files below `root`: how many chunks they have, where sparse ones have data."""
    fetcher = ChunkFetcher(repository, ChunkIndex.load(repository, None))
    reader = ManifestReader(snapshot.root, fetcher.fetch)
    table = pa.concat_tables(list(reader.subtree(root))).combine_chunks()
    chunks = np.diff(reader.content(table).offsets).tolist()
    rows = zip(table["path"].to_pylist(), table["kind"].to_pylist(), chunks, table["extents"].to_pylist(), strict=True)
    paths = {path: (count, extents) for path, kind, count, extents in rows if kind == 0}
    return {
        "chunks": {decoded(path[len(root) + 1 :]): count for path, (count, _) in paths.items()},
        "extents": {
            decoded(path[len(root) + 1 :]): [[extent["offset"], extent["length"]] for extent in extents]
            for path, (_, extents) in paths.items()
            if extents is not None
        },
    }


def make(folder: Path, root: Path) -> Entry:
    """Make all repositories in `folder`; what expected.json says of them."""
    repositories: dict[str, Entry] = {}
    opened: dict[str, Repository] = {}
    for name, chunker in CHUNKERS.items():
        encryption, password = ("aes-256-gcm", PASSWORD) if name == "encrypted" else ("none", None)
        store = LocalStore(os.fspath(folder / name))
        opened[name], code = Repository.init(store, password, chunker, encryption, KdfParams(64, 1, 1))
        repositories[name] = {"password": password, "recovery_code": code, "snapshots": []}
    trees = []
    for step, codec in enumerate(CODECS):
        take_step(root, step)
        trees.append(describe(root))
        time.sleep(0.1)  # what changed just before a backup is read again by the next
        for name, repository in opened.items():
            if step == ROTATED and repository.encrypted:
                repository.rotate()
            request = BackupRequest((os.fsencode(root),), host="golden", user="maker", tags=(codec,), codec=codec)
            report = backup(repository, request, ENGINE, Watch())
            assert report.snapshot is not None and report.problems == []
            facts: Entry = {"id": report.snapshot.id, "parent": report.snapshot.parent, "codec": codec}
            facts |= recorded(repository, report.snapshot, os.fsencode(root)[1:])
            repositories[name]["snapshots"].append(facts)
    key = KeyFile.make(opened["encrypted"].id, "golden")
    opened["encrypted"].add_key_file(key)
    repositories["encrypted"]["key_file"] = key.encode()
    return {"root": os.fspath(root)[1:], "repositories": repositories, "trees": trees}


def make_written(folder: Path, root: Path) -> Entry:
    """A repository that a write-only machine wrote before and after a rotation; what expected.json says of it."""
    store = LocalStore(os.fspath(folder / "written"))
    repository, code = Repository.init(store, PASSWORD, encryption="aes-256-gcm", kdf=KdfParams(64, 1, 1))
    key = repository.issue_writer("golden").encode()
    files, snapshots = {}, []
    for step in range(2):
        (root / "small").mkdir(exist_ok=True)
        write(root / "small" / f"of step {step}", text(random.Random(step), 5_000))
        files[f"of step {step}"] = hashlib.sha256((root / "small" / f"of step {step}").read_bytes()).hexdigest()
        time.sleep(0.1)
        machine = Repository.open(store, key)
        request = BackupRequest((os.fsencode(root / "small"),), host="golden", user="maker")
        report = backup(machine, request, ENGINE, Watch())
        assert report.snapshot is not None and report.files_new == 1
        snapshots.append({"id": report.snapshot.id, "files": dict(files), "writer": machine.writer})
        repository.rotate()
    return {"password": PASSWORD, "recovery_code": code, "write_only_key": key, "snapshots": snapshots}


def main() -> None:
    if len(sys.argv) != 2 or os.geteuid() != 0:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir()
    root = Path(tempfile.gettempdir()) / "lox-golden" / "tree"
    root.mkdir(parents=True)
    try:
        expected = make(folder, root)
        os.environ["LOX_CACHE_DIR"] = os.fspath(root.parent / "cache")
        expected["written"] = make_written(folder, root)
    finally:
        shutil.rmtree(root.parent)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # as git would
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
