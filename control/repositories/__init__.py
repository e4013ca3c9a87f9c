"""Repositories of a tenant: places without secrets."""
