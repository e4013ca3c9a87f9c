"""Which stages in which order: the graphs of backup, restore and verify, and what a run of them reports."""
