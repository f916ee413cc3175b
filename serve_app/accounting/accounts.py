"""The accounts that one transaction works on: locked, read, changed in memory, written back once.

Key, team and organisation rows are locked in ascending order of id before anything else of theirs
is read, so that what is decided on them stays true until the commit; their balances are written
as absolute values. Nobody locks the platform's own accounts, which everybody posts to: amounts are
added to their balances by the store, last of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

from sqlalchemy import RowMapping, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.database import lock_rows, padded
from serve_app.accounting.hold import Payer, Scope
from serve_app.accounting.rates import Bucket
from serve_app.accounting.schema import accounts, balances
from serve_app.accounting.writes import Mode, Write, Writes

RATES = ("requests", "input_tokens", "output_tokens")


@dataclass(slots=True)
class Balance:
    """Of one account in one month, in nano-dollars."""

    posted: int = 0
    held: int = 0


@dataclass(slots=True)
class Account:
    """A locked row. ``budget``: nano-dollars per month; None is no limit, as everywhere."""

    id: int
    scope: Scope
    name: str
    active: bool
    budget: int | None
    max_concurrent: int | None
    max_pictures: int | None
    alert_percents: tuple[int, ...]
    concurrent: int
    requests: Bucket
    input_tokens: Bucket
    output_tokens: Bucket

    def __str__(self) -> str:
        return f"{self.scope} {self.name!r}"


class Accounts:
    def __init__(self, locked: dict[int, Account], read: dict[tuple[int, str], Balance]) -> None:
        self._locked = locked
        self._balances = read
        self._unchanged = {id: _columns(account) for id, account in locked.items()}
        self._platform: Counter[tuple[int, str]] = Counter()

    @classmethod
    async def lock(
        cls, connection: AsyncConnection, ids: Iterable[int], months: Iterable[str]
    ) -> Accounts:
        """Those that exist, with their balances of ``months``."""
        wanted = sorted(set(ids))
        if not wanted:
            return cls({}, {})
        rows = (await connection.execute(_LOCK, {"ids": padded(wanted)})).mappings()
        locked = {row["id"]: _account(row) for row in rows}
        # In a statement of its own: one that waits for a lock still reads what was before.
        found = await connection.execute(
            _BALANCES, {"ids": padded(wanted), "months": padded(list(months))}
        )
        return cls(locked, {(id, month): Balance(*amounts) for id, month, *amounts in found})

    def of(self, payer: Payer) -> tuple[Account, ...] | None:
        """Key, team and organisation, or None where one is missing."""
        found = tuple(self._locked[id] for id in payer.account_ids if id in self._locked)
        return found if len(found) == len(payer.account_ids) else None

    def balance(self, account_id: int, month: str) -> Balance:
        return self._balances.setdefault((account_id, month), Balance())

    def post_to_platform(self, account_id: int, month: str, nano_usd: int) -> None:
        """To waste or revenue."""
        if nano_usd:
            self._platform[account_id, month] += nano_usd

    def save(self, writes: Writes) -> None:
        """Write back what has changed, once."""
        columns = (_columns(account) for account in self._locked.values())
        writes.add(_SAVE, (row for row in columns if row != self._unchanged[row["id"]]))
        writes.add(
            _REPLACE_BALANCES,
            (
                {
                    "account_id": id,
                    "month": month,
                    "posted_nano_usd": balance.posted,
                    "held_nano_usd": balance.held,
                }
                for (id, month), balance in sorted(self._balances.items(), key=itemgetter(0))
            ),
        )
        writes.add(
            _GROW_BALANCES,
            (
                {"account_id": id, "month": month, "posted_nano_usd": nano_usd}
                for (id, month), nano_usd in sorted(self._platform.items())
            ),
        )


def _account(row: RowMapping) -> Account:
    return Account(
        id=row["id"],
        scope=Scope(row["scope"]),
        name=row["name"],
        active=row["active"],
        budget=row["budget_nano_usd"],
        max_concurrent=row["max_concurrent"],
        max_pictures=row["max_pictures"],
        alert_percents=tuple(row["alert_percents"]),
        concurrent=row["concurrent"],
        **{
            rate: Bucket(row[f"{rate}_per_minute"], row[f"{rate}_used"], row[f"{rate}_at"])
            for rate in RATES
        },
    )


def _columns(account: Account) -> dict[str, int]:
    """What a transaction may change of an account, as ``_SAVE`` takes it."""
    values = {"id": account.id, "concurrent": account.concurrent}
    for rate in RATES:
        bucket: Bucket = getattr(account, rate)
        values |= {f"{rate}_used": bucket.used, f"{rate}_at": bucket.at_us}
    return values


_BALANCE_KEY = ("account_id", "month")
_LOCK = lock_rows(
    select(accounts)
    .where(accounts.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(accounts.c.id)
)
_BALANCES = select(balances).where(
    balances.c.account_id.in_(bindparam("ids", expanding=True)),
    balances.c.month.in_(bindparam("months", expanding=True)),
)
_SAVE = Write(
    Mode.UPDATE,
    accounts,
    ("id",),
    ("concurrent", *(f"{rate}_{part}" for rate in RATES for part in ("used", "at"))),
)
_REPLACE_BALANCES = Write(
    Mode.REPLACE, balances, _BALANCE_KEY, ("posted_nano_usd", "held_nano_usd")
)
_GROW_BALANCES = Write(Mode.ADD, balances, _BALANCE_KEY, ("posted_nano_usd",))
