"""Runs: what agents report, kept, shown live and looked after."""
