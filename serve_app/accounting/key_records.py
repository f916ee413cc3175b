"""Keys as rows of ``keys``, each with its own account: found, listed, added, ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.account_records import add_account
from serve_app.accounting.database import lock_rows
from serve_app.accounting.hold import Scope
from serve_app.accounting.limits import NO_LIMITS, Limits
from serve_app.accounting.roles import Endpoint, Role
from serve_app.accounting.schema import accounts, keys
from serve_app.errors import InvalidRequest, NotFound

_MAX_MODELS, _MAX_MODEL_CHARS = 50, 200
_ECHO_CHARS = 100

_key = accounts.alias("key")
_team = accounts.alias("team")
_organisation = accounts.alias("organisation")
_replaced = keys.alias("replaced")


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret.

    Attributes:
        id: of its account.
        models, endpoints: its scope; empty is everything.
        replaces: the public id of the key that it was made to replace.
    """

    id: int
    public_id: str
    name: str
    team_id: int
    team: str
    organisation: str
    role: Role
    models: tuple[str, ...]
    endpoints: tuple[str, ...]
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    replaces: str | None
    limits: Limits

    @property
    def subject(self) -> str:
        """How the audit log names it."""
        return f"key {self.public_id}"

    def state(self, now_us: int) -> Literal["active", "expired", "revoked"]:
        if self.revoked_us is not None:
            return "revoked"
        if self.expires_us is not None and self.expires_us <= now_us:
            return "expired"
        return "active"


@dataclass(frozen=True, slots=True)
class NewKey:
    """``secret`` is what the caller sends; it is shown here once and stored nowhere."""

    secret: str = field(repr=False)
    info: KeyInfo

    @property
    def public_id(self) -> str:
        return self.info.public_id


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key is for.

    Raises:
        InvalidRequest: an unknown endpoint, or names of models that cannot be such.
    """

    role: Role = Role.MEMBER
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    expires_us: int | None = None
    limits: Limits = NO_LIMITS

    def __post_init__(self) -> None:
        if len(self.models) > _MAX_MODELS or not all(
            1 <= len(model) <= _MAX_MODEL_CHARS and model.isprintable() for model in self.models
        ):
            raise InvalidRequest(
                f"models: at most {_MAX_MODELS} names of {_MAX_MODEL_CHARS} characters at most",
                param="models",
            )
        known = [endpoint.value for endpoint in Endpoint]
        for name in self.endpoints:
            if name not in known:
                raise InvalidRequest(
                    f"endpoints: {name[:_ECHO_CHARS]!r} is none of {', '.join(known)}",
                    param="endpoints",
                )

    def shown(self) -> dict[str, Any]:
        """For the audit log."""
        return {
            "role": self.role.value,
            "models": list(self.models),
            "endpoints": list(self.endpoints),
            "expires_us": self.expires_us,
            "limits": self.limits.shown(),
        }


async def add_key(
    connection: AsyncConnection,
    team_id: int,
    name: str,
    terms: KeyTerms,
    *,
    public_id: str,
    digest: bytes,
    now_us: int,
    replaces_id: int | None = None,
) -> KeyInfo:
    """Raises Conflict where the team has a key of that name already."""
    account_id = await add_account(connection, Scope.KEY, team_id, name, terms.limits, now_us)
    row = {
        "account_id": account_id,
        "public_id": public_id,
        "digest": digest,
        "role": terms.role.value,
        "models": list(terms.models),
        "endpoints": list(terms.endpoints),
        "created_us": now_us,
        "expires_us": terms.expires_us,
        "replaces_id": replaces_id,
    }
    await connection.execute(insert(keys).values(row))
    return await find_key(connection, public_id)


async def find_key(connection: AsyncConnection, public_id: str) -> KeyInfo:
    """Raises NotFound."""
    query = _keys().where(keys.c.public_id == public_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no key {public_id[:_ECHO_CHARS]!r}", param="public_id")
    return _as_key(row)


async def lock_key(connection: AsyncConnection, public_id: str) -> KeyInfo:
    """As it is until the transaction ends. Raises NotFound."""
    query = select(keys.c.account_id).where(keys.c.public_id == public_id)
    await connection.execute(lock_rows(query))
    return await find_key(connection, public_id)


async def list_keys(connection: AsyncConnection, team_id: int | None) -> tuple[KeyInfo, ...]:
    """Of a team or of all, by organisation, team and name; ended ones too."""
    query = _keys().order_by(_organisation.c.name, _team.c.name, _key.c.name)
    if team_id is not None:
        query = query.where(_team.c.id == team_id)
    return tuple(_as_key(row) for row in (await connection.execute(query)).mappings())


async def key_named(connection: AsyncConnection, team_id: int, name: str) -> KeyInfo | None:
    query = _keys().where(_team.c.id == team_id, _key.c.name == name)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else _as_key(row)


async def digest_of(connection: AsyncConnection, public_id: str) -> bytes | None:
    """None where there is no such key."""
    query = select(keys.c.digest).where(keys.c.public_id == public_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def successor(connection: AsyncConnection, account_id: int) -> str | None:
    """The public id of the key that replaces it, if one was made."""
    query = select(keys.c.public_id).where(keys.c.replaces_id == account_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def expire(connection: AsyncConnection, key: KeyInfo, expires_us: int) -> None:
    statement = update(keys).where(keys.c.account_id == key.id)
    await connection.execute(statement.values(expires_us=expires_us))


async def revoke(connection: AsyncConnection, key: KeyInfo, now_us: int) -> None:
    """No hold is admitted any more from the moment this is committed."""
    row, account = keys.c.account_id == key.id, accounts.c.id == key.id
    await connection.execute(update(keys).where(row).values(revoked_us=now_us))
    await connection.execute(update(accounts).where(account).values(active=False))


async def give_up_name(connection: AsyncConnection, key: KeyInfo) -> None:
    """To its successor; what it was billed for stays with its account."""
    statement = update(accounts).where(accounts.c.id == key.id)
    await connection.execute(statement.values(name=f"{key.name}~{key.public_id}"))


def _keys() -> Select[Any]:
    return (
        select(
            _key,
            keys.c.public_id,
            keys.c.role,
            keys.c.models,
            keys.c.endpoints,
            keys.c.expires_us,
            keys.c.revoked_us,
            _team.c.name.label("team"),
            _organisation.c.name.label("organisation"),
            _replaced.c.public_id.label("replaces"),
        )
        .select_from(keys)
        .join(_key, keys.c.account_id == _key.c.id)
        .join(_team, _key.c.parent_id == _team.c.id)
        .join(_organisation, _team.c.parent_id == _organisation.c.id)
        .outerjoin(_replaced, keys.c.replaces_id == _replaced.c.account_id)
    )


def _as_key(row: Mapping[Any, Any]) -> KeyInfo:
    return KeyInfo(
        id=row["id"],
        public_id=row["public_id"],
        name=row["name"],
        team_id=row["parent_id"],
        team=row["team"],
        organisation=row["organisation"],
        role=Role(row["role"]),
        models=tuple(row["models"]),
        endpoints=tuple(row["endpoints"]),
        created_us=row["created_us"],
        expires_us=row["expires_us"],
        revoked_us=row["revoked_us"],
        replaces=row["replaces"],
        limits=Limits.of_row(row),
    )
