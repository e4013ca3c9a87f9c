"""Tests mirror the folders; besides there are laws, contracts, stories, golden and bench."""
