"""What v1/expected.json says of the repositories beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

V1 = Path(__file__).parent / "v1"
EXPECTED: dict[str, Any] = json.loads((V1 / "expected.json").read_text())

WAYS = [("encrypted", "password"), ("encrypted", "recovery_code"), ("plain", "password")]
"""(repository, key of its secret): all the ways to open them."""
