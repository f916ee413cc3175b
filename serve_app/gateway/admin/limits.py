"""Limits in bodies and answers: budgets in dollars, everything else as the accounts keep it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StrictInt

from serve_app.accounting.limits import Limits
from serve_app.accounting.money import parse_usd
from serve_app.gateway.admin.fields import Answer, Body, Usd, UsdIn, maybe_usd

Whole = Annotated[StrictInt, Field(ge=0, le=2**53)]


class LimitsBody(Body):
    """What is left out stays as it is; null lifts a limit. A budget is for each month (UTC).

    Only teams have a weight; null is 1.
    """

    budget_usd: UsdIn | None = None
    requests_per_minute: Whole | None = None
    input_tokens_per_minute: Whole | None = None
    output_tokens_per_minute: Whole | None = None
    max_concurrent: Whole | None = None
    max_pictures: Whole | None = None
    weight: Whole | None = None
    alert_percents: list[Whole] = Field([], max_length=10)
    alert_url: Annotated[str, Field(max_length=2000)] | None = None

    def changes(self) -> dict[str, Any]:
        """By the names of ``accounting.limits.Limits``, only those that were sent."""
        values = {name: getattr(self, name) for name in sorted(self.model_fields_set)}
        if "budget_usd" in values:
            budget = values.pop("budget_usd")
            values["budget_nano_usd"] = (
                None if budget is None else parse_usd(budget, param="budget_usd")
            )
        return values

    def limits(self) -> Limits:
        """Raises InvalidRequest, naming the field."""
        return Limits().changed(self.changes())


class LimitsAnswer(Answer):
    """Of the webhook only its host is shown."""

    budget_usd: Usd | None
    requests_per_minute: int | None
    input_tokens_per_minute: int | None
    output_tokens_per_minute: int | None
    max_concurrent: int | None
    max_pictures: int | None
    weight: int | None
    alert_percents: list[int]
    alert_url: str | None

    @classmethod
    def of(cls, limits: Limits) -> LimitsAnswer:
        shown = limits.shown()
        return cls(budget_usd=maybe_usd(shown.pop("budget_nano_usd")), **shown)
