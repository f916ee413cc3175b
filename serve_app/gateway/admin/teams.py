"""Organisations and teams: made and limited by admins, seen with how they stand this month."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path

from serve_app.accounting.account_changes import DEFAULT
from serve_app.accounting.account_records import Organisation, Team
from serve_app.accounting.calendar import Clock, month_of
from serve_app.accounting.hold import Scope
from serve_app.accounting.money import format_usd
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import PERMISSIONS, Permission
from serve_app.accounting.standing import Standing, standings
from serve_app.errors import Conflict, NotFound
from serve_app.gateway.admin.access import BAD_BODY, AdminRoute, caller
from serve_app.gateway.admin.fields import Answer, Body, Text, Usd, maybe_usd, moment
from serve_app.gateway.admin.limits import LimitsAnswer, LimitsBody
from serve_app.gateway.admin.office import Office
from serve_app.gateway.refusals import refusals

TeamName = Annotated[Text, Path(description="`team`, or `organisation/team` if ambiguous")]


class NewOrganisation(Body):
    name: Text


class NewTeam(Body):
    name: Text
    organisation: Text = DEFAULT


class StandingAnswer(Answer):
    """``held`` is reserved for requests at work; ``remaining`` is what the budget leaves."""

    month: str
    posted_usd: Usd
    held_usd: Usd
    remaining_usd: Usd | None
    concurrent: int

    @classmethod
    def of(cls, standing: Standing) -> StandingAnswer:
        return cls(
            month=standing.month,
            posted_usd=format_usd(standing.posted_nano_usd),
            held_usd=format_usd(standing.held_nano_usd),
            remaining_usd=maybe_usd(standing.remaining_nano_usd),
            concurrent=standing.concurrent,
        )


class AccountAnswer(Answer):
    """An organisation, or a team of one."""

    name: str
    organisation: str | None = None
    created_at: datetime
    limits: LimitsAnswer
    standing: StandingAnswer


class Accounts(Answer):
    data: list[AccountAnswer]


def team_routes(office: Office, clock: Clock) -> APIRouter:
    router = APIRouter(route_class=AdminRoute)

    @router.get("/organisations", responses=refusals())
    async def organisations(
        _caller: Annotated[Principal, caller(Permission.ALL_USAGE)],
    ) -> Accounts:
        """All of them, with what they used this month."""
        standing = await _standings(office, clock, Scope.ORGANISATION)
        found = await office.directory.organisations()
        return Accounts(data=[_answer(each, standing[each.id]) for each in found])

    @router.post("/organisations", status_code=201, responses=refusals(*BAD_BODY, Conflict))
    async def create_organisation(
        body: NewOrganisation, admin: Annotated[Principal, caller(Permission.ADMINISTER)]
    ) -> AccountAnswer:
        """Its budget and limits bind all its teams together."""
        made = await office.directory.create_organisation(body.name, actor=admin.actor)
        return _answer(made, (await _standings(office, clock, Scope.ORGANISATION))[made.id])

    @router.patch("/organisations/{name}/limits", responses=refusals(*BAD_BODY, NotFound))
    async def limit_organisation(
        name: Text, body: LimitsBody, admin: Annotated[Principal, caller(Permission.ADMINISTER)]
    ) -> LimitsAnswer:
        """In force from the next request on."""
        limits = await office.directory.change_limits(
            Scope.ORGANISATION, name, body.changes(), actor=admin.actor
        )
        return LimitsAnswer.of(limits)

    @router.get("/teams", responses=refusals())
    async def teams(reader: Annotated[Principal, caller(Permission.TEAM_USAGE)]) -> Accounts:
        """All of them with what they used this month; a team lead sees its own."""
        standing = await _standings(office, clock, Scope.TEAM)
        found = await office.directory.teams()
        everyone = Permission.ALL_USAGE in PERMISSIONS[reader.role]
        seen = [each for each in found if everyone or each.id == reader.payer.team_id]
        return Accounts(data=[_answer(each, standing[each.id]) for each in seen])

    @router.post("/teams", status_code=201, responses=refusals(*BAD_BODY, NotFound, Conflict))
    async def create_team(
        body: NewTeam, admin: Annotated[Principal, caller(Permission.ADMINISTER)]
    ) -> AccountAnswer:
        """A team pays for what its keys use."""
        made = await office.directory.create_team(body.name, body.organisation, actor=admin.actor)
        return _answer(made, (await _standings(office, clock, Scope.TEAM))[made.id])

    @router.patch("/teams/{team:path}/limits", responses=refusals(*BAD_BODY, NotFound))
    async def limit_team(
        team: TeamName, body: LimitsBody, admin: Annotated[Principal, caller(Permission.ADMINISTER)]
    ) -> LimitsAnswer:
        """In force from the next request on."""
        limits = await office.directory.change_limits(
            Scope.TEAM, team, body.changes(), actor=admin.actor
        )
        return LimitsAnswer.of(limits)

    return router


async def _standings(office: Office, clock: Clock, scope: Scope) -> dict[int, Standing]:
    async with office.database.read() as connection:
        return await standings(connection, month_of(clock()), [scope])


def _answer(account: Organisation | Team, standing: Standing) -> AccountAnswer:
    return AccountAnswer(
        name=account.name,
        organisation=account.organisation if isinstance(account, Team) else None,
        created_at=moment(account.created_us),
        limits=LimitsAnswer.of(account.limits),
        standing=StandingAnswer.of(standing),
    )
