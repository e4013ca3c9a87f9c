"""The commands of ``lox-server``, one a file."""
