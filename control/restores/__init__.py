"""Restores, and looking into snapshots through an agent."""
