"""Analyses of a repository, on content that the test knows."""
