"""Alembic's entry point: ``database.migrate`` hands it a connection with a transaction begun."""

from __future__ import annotations

from alembic import context

from serve_app.accounting.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite's data definition is transactional here: we begin and end transactions ourselves.
    transactional_ddl=True,
)
context.run_migrations()
