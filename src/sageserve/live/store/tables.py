"""The tables of the SQL store, as SQLAlchemy knows them. The migrations make the same ones; a test compares.

Instants are microseconds since 1970. Must not hold a query. Read next: `migrations/versions/`, `sql.py`.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text

METADATA: Final = MetaData()
_NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only what it calls INTEGER

EPOCHS: Final = Table(
    "epochs",
    METADATA,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),  # one row, 1
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False, server_default=""),  # who leads; empty: nobody
    Column("beat", BigInteger, nullable=False, server_default="0"),  # grows with every renewal
)
FILES: Final = Table(
    "files",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("size", BigInteger, nullable=False),
    Column("ready", Boolean, nullable=False),
    Index("files_by_owner", "owner", "number"),
    Index("files_by_end", "expires_at"),
    sqlite_autoincrement=True,
)
PIECES: Final = Table(
    "pieces",
    METADATA,
    Column("file", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
BATCHES: Final = Table(
    "batches",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("metadata", Text, nullable=False),  # JSON
    Column("output_expires", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("errors", Text, nullable=False),  # JSON
    Column("output_file", Text),
    Column("error_file", Text),
    Column("stamps", Text, nullable=False),  # JSON
    Index("batches_by_owner", "owner", "number"),
    Index("batches_by_state", "state"),
    sqlite_autoincrement=True,
)
JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("deadline", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),  # of the control process that took it; 0: none did
    Column("attempts", Integer, nullable=False),
    Column("custom_id", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("jobs_by_deadline", "model", "state", "deadline", "batch", "line"),
)
RESULTS: Final = Table(
    "results",
    METADATA,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),  # with the line: a job has one result at most
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("good", Boolean, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
)
