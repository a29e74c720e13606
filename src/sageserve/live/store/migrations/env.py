"""Alembic's entry: runs the steps over the connection it is handed. Read next: `../database.py`, the caller."""

from alembic import context

from sageserve.live.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
