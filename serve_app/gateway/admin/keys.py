"""Keys: a secret is shown once, when its key is made; a team lead manages those of its team."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import AwareDatetime, Field

from serve_app.accounting.calendar import Clock
from serve_app.accounting.hold import Scope
from serve_app.accounting.key_records import KeyInfo, NewKey
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import Endpoint, Permission, Role
from serve_app.errors import Conflict, NotFound
from serve_app.gateway.admin.access import BAD_BODY, BAD_QUERY, AdminRoute, MalformedRequest, caller
from serve_app.gateway.admin.fields import Answer, Body, Text, maybe_moment, microseconds, moment
from serve_app.gateway.admin.limits import LimitsAnswer, LimitsBody
from serve_app.gateway.admin.office import Office
from serve_app.gateway.refusals import refusals

_DAY_S = 86_400
Manager = Annotated[Principal, caller(Permission.TEAM_KEYS)]


class NewKeyBody(Body):
    """Empty ``models`` or ``endpoints`` are all."""

    team: Text
    name: Text
    role: Role = Role.MEMBER
    models: list[Text] = Field([], max_length=50)
    endpoints: list[Endpoint] = Field([], max_length=len(Endpoint))
    expires_at: AwareDatetime | None = None
    limits: LimitsBody = LimitsBody()


class RotationBody(Body):
    """For how long the old key is good beside the new one."""

    overlap_s: Annotated[int, Field(ge=0, le=30 * _DAY_S)] = _DAY_S


class KeyAnswer(Answer):
    public_id: str
    name: str
    team: str
    organisation: str
    role: Role
    models: list[str]
    endpoints: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    replaces: str | None
    state: Literal["active", "expired", "revoked"]
    limits: LimitsAnswer


class NewKeyAnswer(KeyAnswer):
    """``secret`` is what callers send; it cannot be shown again."""

    secret: str


class Keys(Answer):
    data: list[KeyAnswer]


def key_routes(office: Office, clock: Clock) -> APIRouter:
    router = APIRouter(route_class=AdminRoute)
    directory = office.directory

    @router.get("/keys", responses=refusals(*BAD_QUERY, NotFound))
    async def keys(manager: Manager, team: Text | None = None) -> Keys:
        """Of a team or of all, ended ones too; a team lead sees its own team's."""
        if manager.role is not Role.ADMIN:
            own = f"{manager.organisation_name}/{manager.team_name}"
            asked = await directory.team(team or own)
            manager.check_manages(asked.id, Role.MEMBER)
            team = own
        return Keys(data=[_answer(key, clock) for key in await directory.keys(team)])

    @router.post("/keys", status_code=201, responses=refusals(*BAD_BODY, NotFound, Conflict))
    async def create_key(body: NewKeyBody, manager: Manager, response: Response) -> NewKeyAnswer:
        """The answer holds the secret, once."""
        team = await directory.team(body.team)
        manager.check_manages(team.id, body.role)
        manager.check_grants(body.models, body.endpoints)
        made = await directory.create_key(
            f"{team.organisation}/{team.name}",
            body.name,
            actor=manager.actor,
            role=body.role,
            models=body.models,
            endpoints=body.endpoints,
            expires_us=None if body.expires_at is None else microseconds(body.expires_at),
            limits=body.limits.limits(),
        )
        return _secret(made, clock, response)

    @router.post(
        "/keys/{public_id}/rotate",
        status_code=201,
        responses=refusals(*BAD_BODY, NotFound, Conflict),
    )
    async def rotate_key(
        public_id: Text, body: RotationBody, manager: Manager, response: Response
    ) -> NewKeyAnswer:
        """A successor with a new secret; the old key ends after the overlap."""
        key = await check(manager, public_id)
        manager.check_grants(key.models, key.endpoints)
        made = await directory.rotate_key(public_id, body.overlap_s, actor=manager.actor)
        return _secret(made, clock, response)

    @router.post("/keys/{public_id}/revoke", responses=refusals(MalformedRequest, NotFound))
    async def revoke_key(public_id: Text, manager: Manager) -> KeyAnswer:
        """For good, on every gateway within two seconds."""
        await check(manager, public_id)
        return _answer(await directory.revoke_key(public_id, actor=manager.actor), clock)

    @router.patch("/keys/{public_id}/limits", responses=refusals(*BAD_BODY, NotFound))
    async def limit_key(
        public_id: Text,
        body: LimitsBody,
        admin: Annotated[Principal, caller(Permission.ADMINISTER)],
    ) -> LimitsAnswer:
        """In force from the next request on."""
        limits = await directory.change_limits(
            Scope.KEY, public_id, body.changes(), actor=admin.actor
        )
        return LimitsAnswer.of(limits)

    async def check(manager: Principal, public_id: str) -> KeyInfo:
        key = await directory.key(public_id)
        manager.check_manages(key.team_id, key.role)
        return key

    return router


def _secret(made: NewKey, clock: Clock, response: Response) -> NewKeyAnswer:
    response.headers["cache-control"] = "no-store"
    return NewKeyAnswer(secret=made.secret, **dict(_answer(made.info, clock)))


def _answer(key: KeyInfo, clock: Clock) -> KeyAnswer:
    return KeyAnswer(
        public_id=key.public_id,
        name=key.name,
        team=key.team,
        organisation=key.organisation,
        role=key.role,
        models=list(key.models),
        endpoints=list(key.endpoints),
        created_at=moment(key.created_us),
        expires_at=maybe_moment(key.expires_us),
        revoked_at=maybe_moment(key.revoked_us),
        replaces=key.replaces,
        state=key.state(clock()),
        limits=LimitsAnswer.of(key.limits),
    )
