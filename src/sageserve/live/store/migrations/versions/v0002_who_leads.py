"""Who leads the queue, and how often that was renewed: of several control processes one runs it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what a lease needs to the epoch."""
    op.add_column("epochs", sa.Column("holder", sa.Text, nullable=False, server_default=""))
    op.add_column("epochs", sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"))
