"""Which program this is. All hosts of a run must have the same: what they hand each other is only pickled."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from model import __version__

ROOT = str(Path(__file__).resolve().parent.parent)  # where our packages are imported from
PACKAGES = ("kernels", "lox", "model", "pipelines", "repository", "runtime", "sources", "stages")
DIGEST = 6  # bytes


@cache
def program() -> str:
    """The version, and a digest of the sources: two checkouts of one version may differ. About 20 ms the first time."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    for package in PACKAGES:
        for path in sorted(Path(ROOT, package).rglob("*.py")):
            source = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)} {len(source)}\0".encode())
            digest.update(source)
    return f"{__version__}+{digest.hexdigest()}"
