"""The repository as Arrow tables: snapshots, entries, chunks, packs. docs/tables.md has their columns with units.

`view.View` is a repository as it was at one moment; `of_entries`, `of_chunks`, `of_packs`, `of_snapshots` make tables of
it, streamed where they may be large; `parts.Parts` reads what several snapshots have in common once.
"""
