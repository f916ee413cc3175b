"""Price versions: listed for everybody who reads reports, added by admins, edited by nobody."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime

from serve_app.accounting.calendar import MICROSECONDS, Clock
from serve_app.accounting.money import nano_usd_per_token, usd_per_million
from serve_app.accounting.price_book import NOTICE_S, Prices, PriceVersion
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import Permission
from serve_app.accounting.tokens import CHARGED
from serve_app.errors import Conflict
from serve_app.gateway.admin.access import BAD_BODY, AdminRoute, MalformedRequest, caller
from serve_app.gateway.admin.fields import Answer, Body, Text, Usd, UsdIn, microseconds, moment
from serve_app.gateway.admin.office import Office
from serve_app.gateway.refusals import refusals

# A request takes time to arrive: without this the earliest moment would always be too early.
_MARGIN_S = 1


class NewPrice(Body):
    """US dollars per million tokens. Pictures and cached tokens cost what text does unless told.

    In force from ``effective_at`` (a minute ahead at least), else as soon as can be.
    """

    model: Text
    tier: Literal["standard", "batch"] = "standard"
    text_usd: UsdIn
    output_usd: UsdIn
    image_usd: UsdIn | None = None
    cached_text_usd: UsdIn | None = None
    cached_image_usd: UsdIn | None = None
    effective_at: AwareDatetime | None = None

    def prices(self) -> Prices:
        """Raises InvalidRequest: not a whole number of nano-dollars per token."""
        given = {kind: getattr(self, f"{kind}_usd") for kind in CHARGED}
        return Prices(
            **{
                kind.value: nano_usd_per_token(usd, param=f"{kind}_usd")
                for kind, usd in given.items()
                if usd is not None
            }
        )


class PriceAnswer(Answer):
    """US dollars per million tokens."""

    id: int
    model: str
    tier: str
    text_usd: Usd
    image_usd: Usd
    cached_text_usd: Usd
    cached_image_usd: Usd
    output_usd: Usd
    effective_at: datetime
    created_at: datetime
    created_by: str


class PriceList(Answer):
    data: list[PriceAnswer]


def price_routes(office: Office, clock: Clock) -> APIRouter:
    router = APIRouter(route_class=AdminRoute)

    @router.get("/prices", responses=refusals(MalformedRequest))
    async def prices(
        _reader: Annotated[Principal, caller(Permission.TEAM_USAGE)], model: Text | None = None
    ) -> PriceList:
        """Past, present and to come, the last to take effect first."""
        return PriceList(data=[_answer(each) for each in await office.prices.versions(model)])

    @router.post("/prices", status_code=201, responses=refusals(*BAD_BODY, Conflict))
    async def add_price(
        body: NewPrice, admin: Annotated[Principal, caller(Permission.ADMINISTER)]
    ) -> PriceAnswer:
        """A version, which can never be edited; requests that run keep their prices."""
        now_us = clock()
        effective_us = now_us + (NOTICE_S + _MARGIN_S) * MICROSECONDS
        if body.effective_at is not None:
            effective_us = microseconds(body.effective_at)
        sheet = await office.prices.add(
            body.model, body.prices(), effective_us, tier=body.tier, actor=admin.actor
        )
        return _answer(PriceVersion(sheet, now_us, admin.actor))

    return router


def _answer(version: PriceVersion) -> PriceAnswer:
    sheet = version.sheet
    return PriceAnswer(
        id=sheet.id,
        model=sheet.model,
        tier=sheet.tier,
        effective_at=moment(sheet.effective_us),
        created_at=moment(version.created_us),
        created_by=version.created_by,
        **{f"{kind}_usd": usd_per_million(sheet.of(kind)) for kind in CHARGED},
    )
