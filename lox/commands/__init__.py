"""One command a file; each module holds `command`. Heavy imports belong into the functions."""
