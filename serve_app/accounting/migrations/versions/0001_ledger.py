"""The ledger as first released: its tables, the platform's own two accounts, the guards."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = ("price_versions", "lines", "adjustments", "months", "audit_log")
OF_A_MONTH = ("holds", "lines", "adjustments")


def upgrade() -> None:
    _create_accounts()
    _create_requests()
    _create_reports()
    _create_chores()
    _seed_platform_accounts()
    if op.get_bind().dialect.name == "sqlite":
        _guard_on_sqlite()
    else:
        _guard_on_postgresql()


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("parent_id", ID, nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("active", sa.Boolean(), server_default="1", nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        *_limit("budget_nano_usd"),
        *_limit("requests_per_minute"),
        *_limit("input_tokens_per_minute"),
        *_limit("output_tokens_per_minute"),
        *_limit("max_concurrent"),
        *_limit("max_pictures"),
        sa.Column("alert_percents", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("alert_url", sa.String(length=2000), nullable=True),
        _count("concurrent"),
        _count("requests_used"),
        _count("requests_at"),
        _count("input_tokens_used"),
        _count("input_tokens_at"),
        _count("output_tokens_used"),
        _count("output_tokens_at"),
        sa.CheckConstraint("concurrent >= 0", name=op.f("ck_accounts_concurrent")),
        sa.ForeignKeyConstraint(["parent_id"], ["accounts.id"], name=op.f("fk_accounts_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint(
            "scope", "parent_id", "name", name=op.f("uq_accounts_scope_parent_id_name")
        ),
    )
    op.create_index(op.f("ix_accounts_parent_id"), "accounts", ["parent_id"])
    op.create_index(
        "ix_accounts_root",
        "accounts",
        ["scope", "name"],
        unique=True,
        **_where("parent_id IS NULL"),
    )
    op.create_table(
        "keys",
        sa.Column("account_id", ID, nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("endpoints", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.Column("replaces_id", ID, nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_keys_account_id")),
        sa.ForeignKeyConstraint(
            ["replaces_id"], ["keys.account_id"], name=op.f("fk_keys_replaces_id")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_keys")),
        sa.UniqueConstraint("public_id", name=op.f("uq_keys_public_id")),
    )
    op.create_table(
        "balances",
        sa.Column("account_id", ID, nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        _count("posted_nano_usd"),
        _count("held_nano_usd"),
        sa.CheckConstraint("held_nano_usd >= 0", name=op.f("ck_balances_held")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_balances_account_id")
        ),
        sa.PrimaryKeyConstraint("account_id", "month", name=op.f("pk_balances")),
    )
    op.create_table(
        "alerts",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("posted_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("budget_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        _count("attempts"),
        sa.Column("next_attempt_us", sa.BigInteger(), nullable=False),
        sa.Column("delivered_us", sa.BigInteger(), nullable=True),
        sa.Column("given_up_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_alerts_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        sa.UniqueConstraint(
            "account_id", "month", "percent", name=op.f("uq_alerts_account_id_month_percent")
        ),
    )


def _create_requests() -> None:
    op.create_table(
        "price_versions",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("tier", sa.String(length=16), nullable=False),
        sa.Column("text", sa.BigInteger(), nullable=False),
        sa.Column("image", sa.BigInteger(), nullable=False),
        sa.Column("cached_text", sa.BigInteger(), nullable=False),
        sa.Column("cached_image", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.BigInteger(), nullable=False),
        sa.Column("effective_us", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_versions")),
        sa.UniqueConstraint(
            "model", "tier", "effective_us", name=op.f("uq_price_versions_model_tier_effective_us")
        ),
    )
    op.create_table(
        "holds",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("team_id", ID, nullable=False),
        sa.Column("organisation_id", ID, nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("price_version", ID, nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("amount_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("text_tokens", sa.BigInteger(), nullable=False),
        sa.Column("image_tokens", sa.BigInteger(), nullable=False),
        sa.Column("max_output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=False),
        sa.Column("disconnected_us", sa.BigInteger(), nullable=True),
        sa.Column("closed_us", sa.BigInteger(), nullable=True),
        sa.Column("audited_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["key_id"], ["accounts.id"], name=op.f("fk_holds_key_id")),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["accounts.id"], name=op.f("fk_holds_organisation_id")
        ),
        sa.ForeignKeyConstraint(
            ["price_version"], ["price_versions.id"], name=op.f("fk_holds_price_version")
        ),
        sa.ForeignKeyConstraint(["team_id"], ["accounts.id"], name=op.f("fk_holds_team_id")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_holds")),
    )
    op.create_index("ix_holds_month_state", "holds", ["month", "state"])
    op.create_index("ix_holds_open", "holds", ["lease_until_us"], **_where("state = 'held'"))
    op.create_index("ix_holds_unaudited", "holds", ["closed_us"], **_where("audited_us IS NULL"))
    op.create_table(
        "lines",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("choice", sa.Integer(), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("counter_account_id", ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("price_version", ID, nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("posted_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_lines_account_id")),
        sa.ForeignKeyConstraint(
            ["counter_account_id"], ["accounts.id"], name=op.f("fk_lines_counter_account_id")
        ),
        sa.ForeignKeyConstraint(["key_id"], ["accounts.id"], name=op.f("fk_lines_key_id")),
        sa.ForeignKeyConstraint(
            ["price_version"], ["price_versions.id"], name=op.f("fk_lines_price_version")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["holds.request_id"], name=op.f("fk_lines_request_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lines")),
        sa.CheckConstraint("tokens > 0", name=op.f("ck_lines_tokens")),
        sa.CheckConstraint("nano_usd >= 0", name=op.f("ck_lines_usd")),
        sa.UniqueConstraint(
            "request_id",
            "attempt",
            "choice",
            "account_id",
            "kind",
            name=op.f("uq_lines_request_id_attempt_choice_account_id_kind"),
        ),
    )
    op.create_index("ix_lines_day", "lines", ["day"])
    op.create_table(
        "adjustments",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("line_id", ID, nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("posted_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["line_id"], ["lines.id"], name=op.f("fk_adjustments_line_id")),
        sa.CheckConstraint("nano_usd > 0", name=op.f("ck_adjustments_usd")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adjustments")),
    )
    op.create_index(op.f("ix_adjustments_line_id"), "adjustments", ["line_id"])


def _create_reports() -> None:
    op.create_table(
        "tallies",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("choice", sa.Integer(), nullable=False),
        sa.Column("group", sa.String(length=64), nullable=False),
        _count("text"),
        _count("image"),
        _count("cached_text"),
        _count("cached_image"),
        _count("output"),
        sa.PrimaryKeyConstraint("request_id", "attempt", "choice", name=op.f("pk_tallies")),
    )
    op.create_table(
        "bookmarks",
        sa.Column("group", sa.String(length=64), nullable=False),
        _count("offset"),
        sa.PrimaryKeyConstraint("group", name=op.f("pk_bookmarks")),
    )
    op.create_table(
        "usage_days",
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        _count("tokens"),
        _count("nano_usd"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_usage_days_account_id")
        ),
        sa.ForeignKeyConstraint(["key_id"], ["accounts.id"], name=op.f("fk_usage_days_key_id")),
        sa.PrimaryKeyConstraint(
            "day", "account_id", "key_id", "model", "kind", name=op.f("pk_usage_days")
        ),
    )
    op.create_table(
        "months",
        sa.Column("month", sa.String(length=7), nullable=False),
        sa.Column("closed_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_by", sa.String(length=200), nullable=False),
        sa.Column("totals", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("month", name=op.f("pk_months")),
    )


def _create_chores() -> None:
    op.create_table(
        "replays",
        sa.Column("team_id", ID, nullable=False),
        sa.Column("key_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["team_id"], ["accounts.id"], name=op.f("fk_replays_team_id")),
        sa.PrimaryKeyConstraint("team_id", "key_digest", name=op.f("pk_replays")),
    )
    op.create_index(op.f("ix_replays_expires_us"), "replays", ["expires_us"])
    op.create_table(
        "audit_log",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )


def _seed_platform_accounts() -> None:
    table = sa.table(
        "accounts", sa.column("scope"), sa.column("name"), sa.column("created_us", sa.BigInteger())
    )
    # In this order: they are accounts 1 and 2.
    for scope in ("waste", "revenue"):
        op.execute(table.insert().values(scope=scope, name=scope, created_us=0))


def _guard_on_sqlite() -> None:
    for table in APPEND_ONLY:
        for act in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {table}_refuse_{act} BEFORE {act} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
    for table in OF_A_MONTH:
        op.execute(
            f"CREATE TRIGGER {table}_month_open BEFORE INSERT ON {table} "
            "WHEN EXISTS (SELECT 1 FROM months WHERE month = NEW.month) "
            "BEGIN SELECT RAISE(ABORT, 'the month is closed'); END"
        )


def _guard_on_postgresql() -> None:
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME
                USING ERRCODE = 'integrity_constraint_violation';
        END $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION refuse_closed_month() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT 1 FROM months WHERE month = NEW.month) THEN
                RAISE EXCEPTION 'the month % is closed', NEW.month
                    USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    for table in OF_A_MONTH:
        op.execute(
            f"CREATE TRIGGER {table}_month_open BEFORE INSERT ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_closed_month()"
        )


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _limit(name: str) -> tuple[sa.Column[int | None], sa.CheckConstraint]:
    check = sa.CheckConstraint(f"{name} >= 0", name=op.f(f"ck_accounts_{name}"))
    return sa.Column(name, sa.BigInteger(), nullable=True), check


def _where(condition: str) -> dict[str, Any]:
    """A partial index."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}
