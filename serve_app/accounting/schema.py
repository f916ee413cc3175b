"""The ledger's tables, for SQLite and PostgreSQL alike (migrations/ builds them).

    accounts ─┬─ keys                     who: organisation > team > key; waste and revenue
              ├─ balances                 per month: posted and held
              └─ alerts                   a soft budget threshold that was crossed
    price_versions                        what a token costs from when on; append-only
    holds ─── lines ─── adjustments       a request: reserved, charged, corrected; lines append-only
    tallies, bookmarks                    the engine's own counts, as read from its journals
    usage_days                            lines summed as they are written: reports and /metrics
    months                                which are closed
    replays                               stored answers of requests with an Idempotency-Key
    audit_log                             who changed what; append-only
    leases                                which gateway does the chores

Amounts are nano-dollars, times microseconds since the epoch, days and months UTC.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

# Seeded by the first migration; every other account's id is above.
WASTE_ACCOUNT = 1
REVENUE_ACCOUNT = 2

# Kept so by triggers: no row is ever changed or deleted.
APPEND_ONLY = ("price_versions", "lines", "adjustments", "months", "audit_log")
# A closed month takes no more of these.
OF_A_MONTH = ("holds", "lines", "adjustments")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# SQLite numbers rows by itself only in a column that is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _limit(name: str) -> Column[int | None]:
    """NULL is no limit."""
    return Column(name, BigInteger, CheckConstraint(f"{name} >= 0", name=name))


def _bucket(name: str) -> list[Column[int]]:
    """A token bucket (rates.py): how much is used, in millionths, and when that was so."""
    return [_count(f"{name}_used"), _count(f"{name}_at")]


accounts = Table(
    "accounts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("scope", String(16), nullable=False),
    Column("parent_id", _Id, ForeignKey("accounts.id"), index=True),
    Column("name", String(200), nullable=False),
    Column("active", Boolean, nullable=False, server_default="1"),
    Column("created_us", BigInteger, nullable=False),
    _limit("budget_nano_usd"),  # per month; reached, nothing more is admitted
    _limit("requests_per_minute"),
    _limit("input_tokens_per_minute"),
    _limit("output_tokens_per_minute"),
    _limit("max_concurrent"),
    _limit("max_pictures"),  # per request
    _limit("weight"),  # a team's, beside other teams in the batch; NULL is 1
    Column("alert_percents", JSON, nullable=False, server_default="[]"),
    Column("alert_url", String(2000)),
    _count("concurrent"),
    *_bucket("requests"),
    *_bucket("input_tokens"),
    *_bucket("output_tokens"),
    UniqueConstraint("scope", "parent_id", "name"),
    CheckConstraint("concurrent >= 0", name="concurrent"),
)
# Organisations have no parent, and no two NULLs are equal.
_root = accounts.c.parent_id.is_(None)
Index(
    "ix_accounts_root",
    accounts.c.scope,
    accounts.c.name,
    unique=True,
    sqlite_where=_root,
    postgresql_where=_root,
)

keys = Table(
    "keys",
    metadata,
    Column("account_id", _Id, ForeignKey("accounts.id"), primary_key=True),
    Column("public_id", String(32), nullable=False, unique=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("role", String(16), nullable=False),
    Column("models", JSON, nullable=False),  # [] is all
    Column("endpoints", JSON, nullable=False),  # [] is all
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("replaces_id", _Id, ForeignKey("keys.account_id")),
)

balances = Table(
    "balances",
    metadata,
    Column("account_id", _Id, ForeignKey("accounts.id"), primary_key=True),
    Column("month", String(7), primary_key=True),
    _count("posted_nano_usd"),
    _count("held_nano_usd"),
    CheckConstraint("held_nano_usd >= 0", name="held"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("account_id", _Id, ForeignKey("accounts.id"), nullable=False),
    Column("month", String(7), nullable=False),
    Column("percent", Integer, nullable=False),
    Column("posted_nano_usd", BigInteger, nullable=False),
    Column("budget_nano_usd", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    _count("attempts"),
    Column("next_attempt_us", BigInteger, nullable=False),
    Column("delivered_us", BigInteger),
    Column("given_up_us", BigInteger),
    UniqueConstraint("account_id", "month", "percent"),
)

price_versions = Table(
    "price_versions",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("model", String(200), nullable=False),
    Column("tier", String(16), nullable=False),
    Column("text", BigInteger, nullable=False),
    Column("image", BigInteger, nullable=False),
    Column("cached_text", BigInteger, nullable=False),
    Column("cached_image", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("effective_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", String(200), nullable=False),
    UniqueConstraint("model", "tier", "effective_us"),
)

holds = Table(
    "holds",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("key_id", _Id, ForeignKey("accounts.id"), nullable=False),
    Column("team_id", _Id, ForeignKey("accounts.id"), nullable=False),
    Column("organisation_id", _Id, ForeignKey("accounts.id"), nullable=False),
    Column("model", String(200), nullable=False),
    Column("price_version", _Id, ForeignKey("price_versions.id"), nullable=False),
    Column("month", String(7), nullable=False),
    Column("day", String(10), nullable=False),
    Column("amount_nano_usd", BigInteger, nullable=False),
    Column("text_tokens", BigInteger, nullable=False),
    Column("image_tokens", BigInteger, nullable=False),
    Column("max_output_tokens", BigInteger, nullable=False),
    Column("pictures", Integer, nullable=False),
    Column("state", String(8), nullable=False),
    Column("outcome", String(16)),
    Column("owner", String(64), nullable=False),  # the gateway that renews the lease
    Column("created_us", BigInteger, nullable=False),
    Column("lease_until_us", BigInteger, nullable=False),
    Column("disconnected_us", BigInteger),
    Column("closed_us", BigInteger),
    Column("audited_us", BigInteger),
    Index("ix_holds_month_state", "month", "state"),
)

# What the sweeper looks for: both are few among many.
_open = holds.c.state == "held"
Index("ix_holds_open", holds.c.lease_until_us, sqlite_where=_open, postgresql_where=_open)
_unaudited = holds.c.audited_us.is_(None)
Index("ix_holds_unaudited", holds.c.closed_us, sqlite_where=_unaudited, postgresql_where=_unaudited)

lines = Table(
    "lines",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("request_id", String(36), ForeignKey("holds.request_id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("choice", Integer, nullable=False),
    Column("account_id", _Id, ForeignKey("accounts.id"), nullable=False),  # a team, or waste
    Column("counter_account_id", _Id, ForeignKey("accounts.id"), nullable=False),  # revenue
    Column("kind", String(16), nullable=False),
    Column("key_id", _Id, ForeignKey("accounts.id"), nullable=False),
    Column("model", String(200), nullable=False),
    Column("price_version", _Id, ForeignKey("price_versions.id"), nullable=False),
    Column("tokens", BigInteger, CheckConstraint("tokens > 0", name="tokens"), nullable=False),
    Column("nano_usd", BigInteger, CheckConstraint("nano_usd >= 0", name="usd"), nullable=False),
    Column("month", String(7), nullable=False),
    Column("day", String(10), nullable=False),
    Column("posted_us", BigInteger, nullable=False),
    UniqueConstraint("request_id", "attempt", "choice", "account_id", "kind"),
    Index("ix_lines_day", "day"),
)

adjustments = Table(
    "adjustments",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("line_id", _Id, ForeignKey("lines.id"), nullable=False, index=True),
    # What is given back to the team (and borne by the waste account); all of a line's together
    # never exceed it.
    Column("tokens", BigInteger, nullable=False),
    Column("nano_usd", BigInteger, CheckConstraint("nano_usd > 0", name="usd"), nullable=False),
    Column("month", String(7), nullable=False),  # the open one, not the line's
    Column("day", String(10), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("posted_us", BigInteger, nullable=False),
)

tallies = Table(
    "tallies",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("choice", Integer, primary_key=True),
    Column("group", String(64), nullable=False),
    _count("text"),
    _count("image"),
    _count("cached_text"),
    _count("cached_image"),
    _count("output"),
    _count("rejected_draft"),
)

bookmarks = Table(
    "bookmarks",
    metadata,
    Column("group", String(64), primary_key=True),
    _count("offset"),
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("account_id", _Id, ForeignKey("accounts.id"), primary_key=True),  # a team, or waste
    Column("key_id", _Id, ForeignKey("accounts.id"), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("kind", String(16), primary_key=True),
    _count("tokens"),
    _count("nano_usd"),
)

months = Table(
    "months",
    metadata,
    Column("month", String(7), primary_key=True),
    Column("closed_us", BigInteger, nullable=False),
    Column("closed_by", String(200), nullable=False),
    Column("totals", JSON, nullable=False),
)

replays = Table(
    "replays",
    metadata,
    Column("team_id", _Id, ForeignKey("accounts.id"), primary_key=True),
    Column("key_digest", LargeBinary(32), primary_key=True),
    Column("body_digest", LargeBinary(32), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("state", String(8), nullable=False),  # running | done
    Column("lease_until_us", BigInteger, nullable=False),
    Column("answer", LargeBinary),  # encrypted
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False, index=True),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("detail", JSON, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until_us", BigInteger, nullable=False),
)
