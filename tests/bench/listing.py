"""``python -m tests.bench.listing REPOSITORY KEY_FILE``: seconds of opening and listing where Python runs already."""

from __future__ import annotations

import json
import sys
import time

import lox

ROUNDS = 5


def measure(place: str, key_file: str) -> list[float]:
    """Seconds of each round; the first, which imports, is not among them."""
    found = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        lox.open(place, key_file=key_file).snapshots()
        found.append(time.perf_counter() - began)
    return found[1:]


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
