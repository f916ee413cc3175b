"""Usage as it is asked for and answered in JSON, by /admin/usage and /v1/usage alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from serve_app.accounting.calendar import day_of
from serve_app.accounting.period import Period
from serve_app.accounting.reports import Dimension, Usage, sum_of, usage_table
from serve_app.gateway.admin.fields import Answer, Body, Usd

_When = Annotated[str, StringConstraints(max_length=20)]


class PeriodQuery(Body):
    """``from`` and ``to``: days or months (UTC), both included; left out, this month till today."""

    first: _When | None = Field(None, alias="from", examples=["2026-11-01"])
    last: _When | None = Field(None, alias="to", examples=["2026-11"])

    def period(self, now_us: int) -> Period:
        """Raises InvalidRequest."""
        return Period.parse(self.first, self.last, today=day_of(now_us))


class UsageQuery(PeriodQuery):
    """``by`` may be repeated: dimensions to group by, in order."""

    by: list[Dimension] = Field([], max_length=len(Dimension))

    @field_validator("by")
    @classmethod
    def _each_once(cls, by: list[Dimension]) -> list[Dimension]:
        if len(set(by)) < len(by):
            raise ValueError("must name each dimension once")
        return by


class UsageRow(BaseModel):
    """One group: its labels, then what it used.

    Tokens by kind are those charged; grouped by kind, ``tokens`` are that kind's. ``net`` is
    ``charged`` less ``refunded``. What was wasted, nobody pays.
    """

    day: str | None = None
    month: str | None = None
    organisation: str | None = None
    team: str | None = None
    key: str | None = None
    key_name: str | None = None
    model: str | None = None
    kind: str | None = None
    request: Literal["picture", "text"] | None = None
    requests: int | None = None
    picture_requests: int | None = None
    tokens: int | None = None
    text_tokens: int | None = None
    image_tokens: int | None = None
    cached_text_tokens: int | None = None
    cached_image_tokens: int | None = None
    output_tokens: int | None = None
    charged_usd: Usd
    refunded_usd: Usd
    net_usd: Usd
    wasted_tokens: int
    wasted_usd: Usd


class UsageAnswer(Answer):
    """``first`` and ``last`` are the days reported on; ``total`` is of all rows."""

    first: str
    last: str
    by: list[Dimension]
    data: list[UsageRow]
    total: UsageRow


def usage_answer(
    period: Period, by: Sequence[Dimension], found: Mapping[tuple[str, ...], Usage]
) -> UsageAnswer:
    (total,) = usage_table((), {(): sum_of(found)}).records()
    return UsageAnswer(
        first=period.first,
        last=period.last,
        by=list(by),
        data=[UsageRow.model_validate(record) for record in usage_table(by, found).records()],
        total=UsageRow.model_validate(total),
    )
