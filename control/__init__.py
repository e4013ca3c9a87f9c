"""The control plane: REST API, database, vault."""
