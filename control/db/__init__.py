"""The database of the control plane: tables, engine, migrations."""
