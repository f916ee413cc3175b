"""The decoder groups as they are now: what `pixtral status` shows of them.

Ray's metrics tell the same up to ten seconds later, too late to follow a request by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Annotated

from fastapi import APIRouter

from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import Permission
from serve_app.gateway.admin.access import AdminRoute, caller
from serve_app.gateway.admin.fields import Answer
from serve_app.gateway.refusals import refusals
from serve_app.messages import Pulse

Groups = Callable[[], Awaitable[Sequence[Pulse | None]]]
Reader = Annotated[Principal, caller(Permission.ALL_USAGE)]


class StatsAnswer(Answer):
    """Sequences, KV blocks, and what was counted since the group started."""

    running: int
    waiting: int
    blocks_total: int
    blocks_free: int
    prompt_tokens_total: int
    cached_tokens_total: int
    generated_tokens_total: int
    drafted_tokens_total: int
    accepted_tokens_total: int
    put_back_total: int
    recomputed_tokens_total: int
    steps_total: int
    step_seconds_total: float


class GroupAnswer(Answer):
    """``token_age_s``: since its last token; null before the first."""

    group: str
    token_age_s: float | None
    token_timeout_s: float
    rank_pids: list[int]
    stats: StatsAnswer


class GroupsAnswer(Answer):
    """``silent``: how many more there are that did not answer."""

    data: list[GroupAnswer]
    silent: int


def group_routes(groups: Groups) -> APIRouter:
    router = APIRouter(route_class=AdminRoute)

    @router.get("/groups", responses=refusals())
    async def decoder_groups(_reader: Reader) -> GroupsAnswer:
        """What each running decoder group says of itself."""
        pulses = await groups()
        told = [_told(pulse) for pulse in pulses if pulse is not None]
        return GroupsAnswer(data=told, silent=len(pulses) - len(told))

    return router


def _told(pulse: Pulse) -> GroupAnswer:
    values = asdict(pulse)
    if not isfinite(pulse.token_age_s):
        values["token_age_s"] = None
    return GroupAnswer.model_validate(values)
