"""What can be backed up. Each kind of source has a package of its own; none of them knows of repositories or stages."""
