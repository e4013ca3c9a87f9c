"""Questions to a whole repository, answered as Arrow tables: for the command line, notebooks and scripts alike.

Each module has functions that take what `lox.open` gives. Columns say which bytes they mean: logical (as users see
them), unique (after deduplication) or stored (in the store, compressed and sealed).
"""
