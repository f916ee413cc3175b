"""Who may call: organisations, teams, keys and their limits, every change with its audit entry.

    async with Database.open(url) ... Directory(database, pepper)
    principal = await directory.principal("sk-pixtral-…")         # on every request
    key = await directory.create_key("research", "ci", actor=…)   # from CLI and /admin

What a caller may change is decided before (roles.py, principal.py); here an actor is only noted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

from serve_app.accounting import account_changes, account_records, key_changes, key_records
from serve_app.accounting.account_changes import DEFAULT
from serve_app.accounting.account_records import Organisation, Team, clean_name
from serve_app.accounting.audit import Change
from serve_app.accounting.authenticator import Authenticator
from serve_app.accounting.calendar import Clock, now_us
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Scope
from serve_app.accounting.key_changes import ANONYMOUS
from serve_app.accounting.key_records import KeyInfo, KeyTerms, NewKey
from serve_app.accounting.keys import KeyDigester
from serve_app.accounting.limits import NO_LIMITS, Limits
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import Role
from serve_app.accounting.webhook import check_allowed
from serve_app.errors import Conflict

SYSTEM = "pixtral up"  # the actor of what nobody asked for by name


class Directory:
    """``alert_hosts`` are those that budget alerts may be posted to (webhook.py).

    Every method raises ``LedgerUnavailable`` while the store cannot be reached.
    """

    def __init__(
        self,
        database: Database,
        pepper: bytes,
        *,
        alert_hosts: Collection[str] = (),
        clock: Clock = now_us,
    ) -> None:
        self._database = database
        self._digester = KeyDigester(pepper)
        self._alert_hosts = frozenset(alert_hosts)
        self._clock = clock
        self._authenticator = Authenticator(database, self._digester, clock)

    async def principal(self, token: str) -> Principal:
        """Whose token it is; a change of a key holds within a second.

        Raises:
            Unauthorized: unknown, mistyped, revoked, expired: always in the same words.
        """
        return await self._authenticator.principal(token)

    async def anonymous(self) -> Principal:
        """Who calls a gateway that asks for no key: a member of the default team, whose account
        nobody can present a key for.

        Raises:
            Conflict: it was revoked.
        """
        principal = await self._authenticator.holder(ANONYMOUS)
        if principal is None:
            async with self._change(SYSTEM) as change:
                team = await account_changes.ensure_default(change)
                await key_changes.ensure_anonymous(change, team)
            principal = await self._authenticator.holder(ANONYMOUS)
        if principal is None:
            raise Conflict("calling without a key was revoked")
        return principal

    async def ensure_default(self) -> Team:
        """The team of keys for which nobody names one, made at the first call."""
        async with self._change(SYSTEM) as change:
            return await account_changes.ensure_default(change)

    async def create_organisation(self, name: str, *, actor: str) -> Organisation:
        """Raises Conflict (the name is taken) or InvalidRequest."""
        async with self._change(actor) as change:
            return await account_changes.add_organisation(change, clean_name(name))

    async def create_team(self, name: str, organisation: str = DEFAULT, *, actor: str) -> Team:
        """Raises NotFound, Conflict (the organisation has one of that name) or InvalidRequest."""
        async with self._change(actor) as change:
            parent = await account_records.organisation(change.connection, organisation)
            return await account_changes.add_team(change, parent, clean_name(name))

    async def organisations(self) -> tuple[Organisation, ...]:
        """By name."""
        async with self._database.read() as connection:
            return await account_records.organisations(connection)

    async def organisation(self, name: str) -> Organisation:
        """Raises NotFound."""
        async with self._database.read() as connection:
            return await account_records.organisation(connection, name)

    async def teams(self) -> tuple[Team, ...]:
        """By organisation and name."""
        async with self._database.read() as connection:
            return await account_records.teams(connection)

    async def team(self, reference: str) -> Team:
        """By ``name``, or ``organisation/name`` where the name alone is ambiguous.

        Raises:
            NotFound, InvalidRequest: none, or several.
        """
        async with self._database.read() as connection:
            return await account_records.team(connection, reference)

    async def set_limits(
        self, scope: Scope, reference: str, limits: Limits, *, actor: str
    ) -> Limits:
        """Replace all limits of an organisation or a team (by name) or of a key (by public id)."""
        values = {item.name: getattr(limits, item.name) for item in fields(limits)}
        return await self.change_limits(scope, reference, values, actor=actor)

    async def change_limits(
        self, scope: Scope, reference: str, changes: Mapping[str, Any], *, actor: str
    ) -> Limits:
        """Replace the named limits and keep the others; in force from the next hold on.

        A changed budget lets this month's alerts that it has not reached be sent anew, and sends
        at once those that it has passed already.

        Raises:
            NotFound, InvalidRequest: naming the field; an ``alert_url`` that is not allowed, too.
        """
        async with self._change(actor) as change:
            return await account_changes.change_limits(
                change, scope, reference, changes, self._alert_hosts
            )

    async def create_key(
        self,
        team: str,
        name: str,
        *,
        actor: str,
        role: Role = Role.MEMBER,
        models: Sequence[str] = (),
        endpoints: Sequence[str] = (),
        expires_us: int | None = None,
        limits: Limits = NO_LIMITS,
    ) -> NewKey:
        """A key whose secret is shown this once.

        Raises:
            NotFound, Conflict, InvalidRequest: no such team, the name is taken, or a field is bad.
        """
        terms = KeyTerms(role, tuple(models), tuple(endpoints), expires_us, limits)
        if limits.alert_url is not None:
            check_allowed(limits.alert_url, self._alert_hosts)
        async with self._change(actor) as change:
            parent = await account_records.team(change.connection, team)
            return await key_changes.create(change, self._digester, parent, clean_name(name), terms)

    async def keys(self, team: str | None = None) -> tuple[KeyInfo, ...]:
        """Of a team or of all, by organisation, team and name; ended ones too. Raises NotFound."""
        async with self._database.read() as connection:
            parent = None if team is None else await account_records.team(connection, team)
            return await key_records.list_keys(connection, None if parent is None else parent.id)

    async def key(self, public_id: str) -> KeyInfo:
        """Raises NotFound."""
        async with self._database.read() as connection:
            return await key_records.find_key(connection, public_id)

    async def revoke_key(self, public_id: str, *, actor: str) -> KeyInfo:
        """End it for good, everywhere within a second; again changes nothing. Raises NotFound."""
        async with self._change(actor) as change:
            return await key_changes.revoke(change, public_id)

    async def rotate_key(self, public_id: str, overlap_s: int, *, actor: str) -> NewKey:
        """A successor; the old key is good for ``overlap_s`` more, but no longer than it was.

        Raises:
            NotFound, Conflict, InvalidRequest: no such key, ended or replaced already, or a wrong
                overlap.
        """
        async with self._change(actor) as change:
            return await key_changes.rotate(change, self._digester, public_id, overlap_s)

    async def import_key(
        self, token: str, *, team: str = DEFAULT, name: str, role: Role = Role.ADMIN
    ) -> KeyInfo:
        """Take in a key that was made outside (``sk-pixtral-…``); again changes nothing.

        Another key of that name in the team is revoked: the file that holds the token is what
        counts, so replacing the file replaces the key.

        Raises:
            NotFound, Conflict, InvalidRequest: no such team, the key was ended, or can be none.
        """
        async with self._change(SYSTEM) as change:
            parent = await account_records.team(change.connection, team)
            return await key_changes.import_token(
                change, self._digester, token, parent, clean_name(name), role
            )

    @asynccontextmanager
    async def _change(self, actor: str) -> AsyncIterator[Change]:
        async with self._database.write() as connection:
            yield Change(connection, actor, self._clock())
