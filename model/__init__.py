"""The nouns of LOX Backup and its error tree. Imports nothing of ours."""

__version__ = "0.1.0"
