"""Commands of ``lox-agent``, one a file."""
