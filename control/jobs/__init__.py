"""Jobs: what is backed up and when, as an operator defines it."""
