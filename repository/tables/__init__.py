"""The repository as Arrow tables: snapshots, entries, chunks, packs. docs/tables.md has their columns with units.

`view.View` is a repository as it was at one moment; `of_snapshots`, `of_entries` and `of_chunks` make tables of it,
streamed where they may be large; `parts.Parts` reads what several snapshots have in common once.
"""
