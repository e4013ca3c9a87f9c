"""What Alembic runs: on the connection that control.db.migrate hands over."""

from __future__ import annotations

from alembic import context

from control.db.everything import metadata

given = context.config.attributes
context.configure(
    connection=given["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    render_item=given.get("render_item"),
    compare_server_default=False,
)
with context.begin_transaction():
    context.run_migrations()
