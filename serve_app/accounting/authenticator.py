"""From a bearer token to a principal, read again after a second, so that changes hold at once.

    token ─► can be a key? ─► read within the last second? ─► one indexed query ─► good?
              no query           bounded, misses too           shared by who waits

Whatever is wrong with a key is refused in one wording. While the store cannot be reached nobody is
let in: what was read more than a second ago counts for nothing.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from serve_app.accounting.calendar import MICROSECONDS, Clock
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Payer
from serve_app.accounting.keys import KeyDigester
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import Role
from serve_app.accounting.schema import accounts, keys
from serve_app.errors import Unauthorized

FRESH_US = MICROSECONDS
REFUSAL = "missing or unknown API key; send it as 'Authorization: Bearer KEY'"
# Of good keys, and as many of others.
MAX_REMEMBERED = 4_096
# Compared with where there is no such key, so that the answer takes as long.
_NO_DIGEST = bytes(32)

_key = accounts.alias("key")
_team = accounts.alias("team")
_organisation = accounts.alias("organisation")
_LOOKUP = (
    select(
        keys.c.public_id,
        keys.c.digest,
        keys.c.role,
        keys.c.models,
        keys.c.endpoints,
        keys.c.expires_us,
        _team.c.weight.label("team_weight"),
        *(
            column.label(f"{name}_{column.name}")
            for name, table in (("key", _key), ("team", _team), ("organisation", _organisation))
            for column in (table.c.id, table.c.name, table.c.active, table.c.max_pictures)
        ),
    )
    .join(_key, keys.c.account_id == _key.c.id)
    .join(_team, _key.c.parent_id == _team.c.id)
    .join(_organisation, _team.c.parent_id == _organisation.c.id)
)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the store said of a token. ``begun_us`` is before it was asked."""

    begun_us: int
    principal: Principal | None


@dataclass(frozen=True, slots=True)
class _Question:
    """A query at work, which whoever presents the same token may wait for."""

    begun_us: int
    task: asyncio.Task[_Reading]


class Authenticator:
    """Knows keys; what they may do is the principal's to say."""

    def __init__(self, database: Database, digester: KeyDigester, clock: Clock) -> None:
        self._database = database
        self._digester = digester
        self._clock = clock
        # By digest, so that no token stays in memory. Unknown ones cannot push out known ones.
        self._known = _Readings()
        self._unknown = _Readings()
        self._questions: dict[bytes, _Question] = {}

    async def principal(self, token: str) -> Principal:
        """Whose token it is.

        Raises:
            Unauthorized: unknown, mistyped, revoked, expired: always in the same words.
            LedgerUnavailable: the store cannot be asked.
        """
        public_id = self._digester.public_id(token)
        if public_id is None:
            raise Unauthorized(REFUSAL)
        digest = self._digester.digest(token)
        reading = self._remembered(digest) or await self._ask(public_id, digest)
        principal = reading.principal
        if principal is None or not principal.is_valid(self._clock()):
            raise Unauthorized(REFUSAL)
        return principal

    async def holder(self, public_id: str) -> Principal | None:
        """Whose key this is, without having seen it: for a gateway that asks for none."""
        row = await self._row(public_id)
        return None if row is None or not _is_usable(row) else _principal(row)

    def _remembered(self, digest: bytes) -> _Reading | None:
        reading = self._known.get(digest) or self._unknown.get(digest)
        return reading if reading is not None and self._is_fresh(reading.begun_us) else None

    async def _ask(self, public_id: str, digest: bytes) -> _Reading:
        """One query for all who wait for the same key; who is cancelled leaves it to the others."""
        question = self._questions.get(digest)
        if question is None or not self._is_fresh(question.begun_us):
            begun_us = self._clock()
            task = asyncio.create_task(self._read(public_id, digest, begun_us))
            question = self._questions[digest] = _Question(begun_us, task)
            task.add_done_callback(lambda done: self._answered(digest, done))
        return await asyncio.shield(question.task)

    async def _read(self, public_id: str, digest: bytes, begun_us: int) -> _Reading:
        row = await self._row(public_id)
        matches = hmac.compare_digest(digest, _NO_DIGEST if row is None else row["digest"])
        if row is None or not matches or not _is_usable(row):
            return _Reading(begun_us, None)
        return _Reading(begun_us, _principal(row))

    async def _row(self, public_id: str) -> Mapping[Any, Any] | None:
        async with self._database.read() as connection:
            query = _LOOKUP.where(keys.c.public_id == public_id)
            return (await connection.execute(query)).mappings().one_or_none()

    def _answered(self, digest: bytes, done: asyncio.Task[_Reading]) -> None:
        question = self._questions.get(digest)
        if question is not None and question.task is done:
            del self._questions[digest]
        if done.cancelled() or done.exception() is not None:
            return
        reading = done.result()
        is_known = reading.principal is not None
        (self._known if is_known else self._unknown).put(digest, reading)
        (self._unknown if is_known else self._known).drop(digest)

    def _is_fresh(self, begun_us: int) -> bool:
        # After a clock was set back nothing is.
        return 0 <= self._clock() - begun_us < FRESH_US


class _Readings:
    """The latest ones, up to a bound."""

    def __init__(self) -> None:
        self._by_digest: OrderedDict[bytes, _Reading] = OrderedDict()

    def get(self, digest: bytes) -> _Reading | None:
        return self._by_digest.get(digest)

    def put(self, digest: bytes, reading: _Reading) -> None:
        self._by_digest[digest] = reading
        self._by_digest.move_to_end(digest)
        if len(self._by_digest) > MAX_REMEMBERED:
            self._by_digest.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        self._by_digest.pop(digest, None)


def _is_usable(row: Mapping[Any, Any]) -> bool:
    """Open on all three levels, as a hold will ask too; a revoked key's account is closed."""
    return bool(row["key_active"] and row["team_active"] and row["organisation_active"])


def _principal(row: Mapping[Any, Any]) -> Principal:
    scopes = ("key", "team", "organisation")
    pictures = [most for scope in scopes if (most := row[f"{scope}_max_pictures"]) is not None]
    return Principal(
        payer=Payer(row["key_id"], row["team_id"], row["organisation_id"]),
        public_id=row["public_id"],
        key_name=row["key_name"],
        team_name=row["team_name"],
        organisation_name=row["organisation_name"],
        role=Role(row["role"]),
        models=tuple(row["models"]),
        endpoints=tuple(row["endpoints"]),
        max_pictures=min(pictures, default=None),
        weight=row["team_weight"] or 1,
        expires_us=row["expires_us"],
    )
