"""``lox-server`` and ``python -m control``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from control.cli import Options, root
from model.command_line import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; as a console script, that is what the process exits with."""
    return run(root, "lox-server", Options(), arguments)


if __name__ == "__main__":
    sys.exit(main())
