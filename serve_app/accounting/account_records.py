"""Organisations and teams as rows of ``accounts``: found, listed and added in a transaction."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.database import lock_rows
from serve_app.accounting.hold import Scope
from serve_app.accounting.limits import Limits
from serve_app.accounting.schema import accounts
from serve_app.errors import Conflict, InvalidRequest, NotFound

MAX_NAME_CHARS = 64
# One parts team from organisation, the other marks the name of a key that was replaced.
_RESERVED = "/~"
_ECHO_CHARS = 100

_team = accounts.alias("team")
_organisation = accounts.alias("organisation")


@dataclass(frozen=True, slots=True)
class Organisation:
    """Its budget and limits bind all its teams together."""

    id: int
    name: str
    created_us: int
    limits: Limits

    @property
    def subject(self) -> str:
        """How the audit log names it."""
        return f"organisation {self.name}"


@dataclass(frozen=True, slots=True)
class Team:
    """Whom a request is billed to."""

    id: int
    name: str
    organisation_id: int
    organisation: str
    created_us: int
    limits: Limits

    @property
    def subject(self) -> str:
        """How the audit log names it."""
        return f"team {self.organisation}/{self.name}"


def clean_name(name: str, *, param: str = "name") -> str:
    """Trimmed, in Unicode's composed form.

    Raises:
        InvalidRequest: empty, too long, or with characters that do not show or are ours.
    """
    clean = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(clean) <= MAX_NAME_CHARS:
        raise InvalidRequest(f"{param}: 1 to {MAX_NAME_CHARS} characters", param=param)
    # A leading = + - @ would be a formula where exports are opened in a spreadsheet.
    if not clean[0].isalnum() or not clean.isprintable() or set(clean) & set(_RESERVED):
        raise InvalidRequest(
            f"{param}: {clean!r} must begin with a letter or digit and hold printable characters "
            f"only, none of {' '.join(_RESERVED)}",
            param=param,
        )
    return clean


async def add_account(
    connection: AsyncConnection,
    scope: Scope,
    parent_id: int | None,
    name: str,
    limits: Limits,
    now_us: int,
) -> int:
    """Its id. Raises Conflict where its parent has one of that name already."""
    row = {"scope": scope, "parent_id": parent_id, "name": name, "created_us": now_us}
    limits.check_weight_of(scope)
    statement = insert(accounts).values(**row, **limits.columns()).returning(accounts.c.id)
    try:
        async with connection.begin_nested():
            return int((await connection.execute(statement)).scalar_one())
    except IntegrityError as error:
        raise Conflict(f"there is a {scope} named {name!r} already", param="name") from error


async def organisations(connection: AsyncConnection) -> tuple[Organisation, ...]:
    """By name."""
    query = _organisations().order_by(accounts.c.name)
    rows = (await connection.execute(query)).mappings()
    return tuple(_as_organisation(row) for row in rows)


async def organisation(connection: AsyncConnection, name: str) -> Organisation:
    """Raises NotFound."""
    query = _organisations().where(accounts.c.name == name)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no organisation {name[:_ECHO_CHARS]!r}", param="organisation")
    return _as_organisation(row)


async def teams(connection: AsyncConnection) -> tuple[Team, ...]:
    """By organisation and name."""
    query = _teams().order_by(_organisation.c.name, _team.c.name)
    return tuple(_as_team(row) for row in (await connection.execute(query)).mappings())


async def team(connection: AsyncConnection, reference: str) -> Team:
    """By ``name``, or ``organisation/name`` where several organisations have a team of that name.

    Raises:
        NotFound, InvalidRequest: none, or several.
    """
    organisation_name, _, name = reference.rpartition("/")
    query = _teams().where(_team.c.name == name)
    if organisation_name:
        query = query.where(_organisation.c.name == organisation_name)
    found = [_as_team(row) for row in (await connection.execute(query)).mappings()]
    if not found:
        raise NotFound(f"there is no team {reference[:_ECHO_CHARS]!r}", param="team")
    if len(found) > 1:
        choices = " or ".join(sorted(f"{each.organisation}/{each.name}" for each in found))
        raise InvalidRequest(f"team: {name!r} is ambiguous; say {choices}", param="team")
    return found[0]


async def lock_account(connection: AsyncConnection, account_id: int) -> Limits:
    """Its limits, as they are until the transaction ends; others who lock it wait."""
    query = lock_rows(select(accounts).where(accounts.c.id == account_id))
    return Limits.of_row((await connection.execute(query)).mappings().one())


async def write_limits(connection: AsyncConnection, account_id: int, limits: Limits) -> None:
    await connection.execute(
        update(accounts).where(accounts.c.id == account_id).values(**limits.columns())
    )


def _organisations() -> Select[Any]:
    return select(accounts).where(accounts.c.scope == Scope.ORGANISATION)


def _teams() -> Select[Any]:
    return (
        select(_team, _organisation.c.name.label("organisation"))
        .join(_organisation, _team.c.parent_id == _organisation.c.id)
        .where(_team.c.scope == Scope.TEAM)
    )


def _as_organisation(row: Mapping[Any, Any]) -> Organisation:
    return Organisation(row["id"], row["name"], row["created_us"], Limits.of_row(row))


def _as_team(row: Mapping[Any, Any]) -> Team:
    return Team(
        id=row["id"],
        name=row["name"],
        organisation_id=row["parent_id"],
        organisation=row["organisation"],
        created_us=row["created_us"],
        limits=Limits.of_row(row),
    )
