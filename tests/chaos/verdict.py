"""Whether the books are right, worked out anew: plain SQL on the store, plain reading of the files.

Of the code under test only the journal's record format is used (``decoder/journal.py``), which has
tests of its own.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from serve_app.decoder.journal import SUFFIX, decode
from tests.chaos.traffic import Ending, Seen, told

# Kind -> whose price it has.
KINDS = {
    **{kind: kind for kind in ("text", "image", "cached_text", "cached_image", "output")},
    "rejected_draft": "output",
}
WASTE = 1
Place = tuple[str, int, int, str]  # request, attempt, choice, kind


async def query(url: str, sql: str) -> list[dict[str, Any]]:
    """Rows by column name; nothing of the ledger's own database code is used."""
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [dict(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


def journal_counts(folder: Path) -> Counter[Place]:
    """What the groups' journals say was computed, read from the first byte on."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        group, _, _ = path.name.removesuffix(SUFFIX).rpartition(".")
        files[group].append(path)
    total: Counter[Place] = Counter()
    for paths in files.values():
        data = b"".join(path.read_bytes() for path in paths)
        latest: dict[Place, int] = {}
        for tally in decode(data).tallies:
            for kind in KINDS:
                place = (tally.request_id, tally.attempt, tally.choice, kind)
                latest[place] = max(latest.get(place, 0), getattr(tally, kind))
        total.update(latest)
    return +total


@dataclass(frozen=True)
class Books:
    """All that the verdict looks at, as read once everything was at rest."""

    holds: dict[str, dict[str, Any]]
    lines: list[dict[str, Any]]
    balances: list[dict[str, Any]]
    accounts: dict[int, dict[str, Any]]
    counted: Counter[Place]

    @classmethod
    async def read(cls, url: str, journals: Path) -> Books:
        prices = ", ".join(
            f"price_versions.{price} AS {kind}_price" for kind, price in KINDS.items()
        )
        holds = await query(
            url,
            f"SELECT holds.*, {prices} FROM holds"
            " JOIN price_versions ON price_versions.id = holds.price_version",
        )
        accounts = await query(url, "SELECT * FROM accounts")
        return cls(
            {row["request_id"]: row for row in holds},
            await query(url, "SELECT * FROM lines"),
            await query(url, "SELECT * FROM balances"),
            {row["id"]: row for row in accounts},
            journal_counts(journals),
        )

    def team_tokens(self, request_id: str) -> Counter[str]:
        """What the request's team pays for, by kind, over all choices."""
        charged: Counter[str] = Counter()
        for line in self.lines:
            if line["request_id"] == request_id and line["account_id"] != WASTE:
                charged[line["kind"]] += line["tokens"]
        return charged

    @property
    def team_nano_usd(self) -> int:
        return sum(line["nano_usd"] for line in self.lines if line["account_id"] != WASTE)

    @property
    def waste_nano_usd(self) -> int:
        return sum(line["nano_usd"] for line in self.lines if line["account_id"] == WASTE)

    @property
    def journal_nano_usd(self) -> int:
        return sum(
            count * self.holds[request_id][f"{kind}_price"]
            for (request_id, _, _, kind), count in self.counted.items()
        )

    def problems(self) -> Iterator[str]:
        """Everything that is wrong, in words; nothing where the books are right."""
        yield from self._open_ends()
        yield from self._counts()
        yield from self._amounts()
        yield from self._balances()

    def _open_ends(self) -> Iterator[str]:
        for request_id, hold in self.holds.items():
            if hold["state"] == "held":
                yield f"{request_id} is still held by {hold['owner']}"
            elif hold["audited_us"] is None:
                yield f"{request_id} was never audited"
        for balance in self.balances:
            if balance["held_nano_usd"]:
                yield f"account {balance['account_id']} still holds {balance['held_nano_usd']}"
        for account in self.accounts.values():
            if account["concurrent"]:
                yield f"account {account['id']} counts {account['concurrent']} running requests"

    def _counts(self) -> Iterator[str]:
        """Team lines + waste lines = journal counts, for each attempt, choice and kind."""
        booked: Counter[Place] = Counter()
        for line in self.lines:
            place = (line["request_id"], line["attempt"], line["choice"], line["kind"])
            booked[place] += line["tokens"]
        for place in sorted({*booked, *self.counted}):
            if place[0] not in self.holds:
                yield f"{place}: computed {self.counted[place]} without a hold"
            elif booked[place] != self.counted[place]:
                yield f"{place}: booked {booked[place]}, computed {self.counted[place]}"

    def _amounts(self) -> Iterator[str]:
        for line in self.lines:
            hold = self.holds[line["request_id"]]
            if line["nano_usd"] != line["tokens"] * hold[f"{line['kind']}_price"]:
                yield f"line {line['id']} costs {line['nano_usd']}"
            if line["kind"] == "rejected_draft" and line["account_id"] != WASTE:
                yield f"line {line['id']} makes a team pay for rejected drafts"
            if line["account_id"] not in (WASTE, hold["team_id"]):
                yield f"line {line['id']} is charged to account {line['account_id']}"
        for request_id, hold in self.holds.items():
            charged = sum(
                line["nano_usd"]
                for line in self.lines
                if line["request_id"] == request_id and line["account_id"] != WASTE
            )
            if charged > hold["amount_nano_usd"]:
                yield f"{request_id} costs {charged}, {hold['amount_nano_usd']} was held"

    def _balances(self) -> Iterator[str]:
        """Posted is what the lines say, and within the budget."""
        spent: Counter[tuple[int, str]] = Counter()
        for line in self.lines:
            hold = self.holds[line["request_id"]]
            payers = (hold["key_id"], hold["team_id"], hold["organisation_id"])
            for account_id in (WASTE,) if line["account_id"] == WASTE else payers:
                spent[account_id, line["month"]] += line["nano_usd"]
        posted = {
            (balance["account_id"], balance["month"]): balance["posted_nano_usd"]
            for balance in self.balances
            if self.accounts[balance["account_id"]]["scope"] != "revenue"
        }
        for place in sorted({*spent, *posted}):
            if spent[place] != posted.get(place, 0):
                yield f"balance {place}: posted {posted.get(place, 0)}, lines {spent[place]}"
        for (account_id, month), amount in spent.items():
            budget = self.accounts[account_id]["budget_nano_usd"]
            if budget is not None and amount > budget:
                yield f"account {account_id} spent {amount} of {budget} in {month}"

    def grievances(self, seen: list[Seen]) -> Iterator[str]:
        """Where a team pays for something else than its callers saw."""
        for call in seen:
            if call.request_id is None:
                continue
            charged = self.team_tokens(call.request_id)
            outcome = self.holds.get(call.request_id, {}).get("outcome")
            if call.ending is Ending.ANSWERED:
                # A gateway that died between the last byte and the settlement cannot charge it.
                if told(charged) != call.usage and (charged or outcome != "recovered"):
                    yield f"{call}: charged {dict(charged)} ({outcome})"
            elif call.ending in (Ending.REFUSED, Ending.FAILED) and charged:
                yield f"{call}: charged {dict(charged)} ({outcome})"


async def overdrawn(url: str) -> list[str]:
    """Accounts whose month's postings and holds exceed their budget at this moment."""
    rows = await query(
        url,
        "SELECT account_id, month, posted_nano_usd + held_nano_usd AS committed, budget_nano_usd"
        " FROM balances JOIN accounts ON accounts.id = account_id"
        " WHERE posted_nano_usd + held_nano_usd > budget_nano_usd",
    )
    return [str(dict(row)) for row in rows]


async def unsettled(url: str) -> int:
    """Holds that are open or were not audited yet."""
    rows = await query(url, "SELECT COUNT(*) AS number FROM holds WHERE audited_us IS NULL")
    return int(rows[0]["number"])
