"""Files in pieces, batches, their jobs and results, and the epoch of the control process that owns the queue."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "epochs",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO epochs (id, epoch) VALUES (1, 0)")
    _files()
    _batches()
    _jobs()


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("number", _number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("files_by_owner", "files", ["owner", "number"])
    op.create_index("files_by_end", "files", ["expires_at"])
    op.create_table(
        "pieces",
        sa.Column("file", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _batches() -> None:
    counts = [sa.Column(name, sa.Integer, nullable=False) for name in ("total", "done", "failed")]
    names = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    tokens = [sa.Column(name, sa.BigInteger, nullable=False) for name in names]
    op.create_table(
        "batches",
        sa.Column("number", _number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("input_file", sa.Text, nullable=False),
        sa.Column("completion_window", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("output_expires", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        *counts,
        *tokens,
        sa.Column("errors", sa.Text, nullable=False),
        sa.Column("output_file", sa.Text),
        sa.Column("error_file", sa.Text),
        sa.Column("stamps", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("batches_by_owner", "batches", ["owner", "number"])
    op.create_index("batches_by_state", "batches", ["state"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("deadline", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("custom_id", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("jobs_by_deadline", "jobs", ["model", "state", "deadline", "batch", "line"])
    op.create_table(
        "results",
        sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("good", sa.Boolean, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    )
