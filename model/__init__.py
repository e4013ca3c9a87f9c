"""The nouns of LOX Backup and its error tree. Imports nothing of ours."""
