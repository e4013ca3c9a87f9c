"""``lox-agent`` and ``python -m agent``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.app import Settings, root
from agent.redact import redact
from model.command_line import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; as a console script, that is what the process exits with."""
    return run(root, "lox-agent", Settings(), arguments, redact)


if __name__ == "__main__":
    sys.exit(main())
