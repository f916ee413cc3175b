"""/v1/usage: what a caller's own team has used and what its budget leaves; a member's own key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from serve_app.accounting import reports
from serve_app.accounting.calendar import Clock, month_of, now_us
from serve_app.accounting.hold import Scope
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import PERMISSIONS, Endpoint, Permission
from serve_app.accounting.standing import standings
from serve_app.gateway.admin.access import BAD_QUERY, AdminRoute, caller
from serve_app.gateway.admin.fields import Usd, maybe_usd
from serve_app.gateway.admin.office import Office
from serve_app.gateway.admin.teams import StandingAnswer
from serve_app.gateway.admin.usage_answer import UsageAnswer, UsageQuery, usage_answer
from serve_app.gateway.refusals import refusals


class OwnUsage(UsageAnswer):
    """``scope`` is what is reported on; ``standing`` is the key's or the team's, this month."""

    scope: Literal["team", "key"]
    name: str
    budget_usd: Usd | None
    standing: StandingAnswer


def usage_routes(office: Office, *, clock: Clock = now_us) -> APIRouter:
    """To be mounted behind ``auth.KeyCheck``, which notes the principal."""
    router = APIRouter(tags=["openai"], route_class=AdminRoute)

    @router.get(
        "/v1/usage",
        response_model=OwnUsage,
        response_model_exclude_unset=True,
        responses=refusals(*BAD_QUERY),
    )
    async def usage(
        principal: Annotated[Principal, caller(Permission.OWN_USAGE, Endpoint.USAGE)],
        asked: Annotated[UsageQuery, Query()],
    ) -> Any:
        """Tokens, requests and dollars of your team, or of your key alone."""
        now = clock()
        team = Permission.TEAM_USAGE in PERMISSIONS[principal.role]
        scope = Scope.TEAM if team else Scope.KEY
        payer = principal.payer
        own = payer.team_id if team else payer.key_id
        query = reports.Query(
            asked.period(now),
            tuple(asked.by),
            team_id=payer.team_id,
            key_id=None if team else payer.key_id,
        )
        async with office.database.read() as connection:
            found = await reports.usage(connection, query)
            standing = (await standings(connection, month_of(now), [scope]))[own]
        answer = usage_answer(query.period, query.by, found)
        return OwnUsage(
            **dict(answer),
            scope="team" if team else "key",
            name=principal.team_name if team else principal.key_name,
            budget_usd=maybe_usd(standing.budget_nano_usd),
            standing=StandingAnswer.of(standing),
        )

    return router
