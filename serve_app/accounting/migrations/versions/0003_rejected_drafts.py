"""Tallies count the drafts that were computed for nothing; none were counted before."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As SQL that both stores take.
    op.execute("ALTER TABLE tallies ADD COLUMN rejected_draft BIGINT NOT NULL DEFAULT '0'")
