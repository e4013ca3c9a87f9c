"""The verbs of backup and restore, one file each, both directions in it. No stage knows which executor runs it."""
