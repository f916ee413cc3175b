"""Teams get a weight beside each other; none is 1."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As SQL that both stores take: SQLite can add a constraint with its column, and not later.
    op.execute(
        "ALTER TABLE accounts ADD COLUMN weight BIGINT"
        " CONSTRAINT ck_accounts_weight CHECK (weight >= 0)"
    )
