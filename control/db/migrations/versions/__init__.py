"""One file a step, the first line says what it does."""
