"""The benchmark: LOX and every peer found on PATH, on equal inputs, in turns. See ``python -m tests.bench --help``."""
