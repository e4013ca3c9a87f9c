"""Sources against real file systems, hostile ones included."""
