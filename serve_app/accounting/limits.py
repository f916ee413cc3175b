"""What an organisation, a team or a key may use: budget, rates, concurrency, pictures, alerts, and
a team's weight beside other teams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from serve_app.accounting.hold import Scope
from serve_app.accounting.webhook import redacted, webhook_url
from serve_app.errors import InvalidRequest

_MAX_ALERTS = 10
# Least and most. A budget stays far enough below 2^63 to be added to; token buckets count in
# millionths (rates.py); a rate of 0 could never be waited for.
_BOUNDS = {
    "budget_nano_usd": (0, 10**18),
    "requests_per_minute": (1, 10**9),
    "input_tokens_per_minute": (1, 10**12),
    "output_tokens_per_minute": (1, 10**12),
    "max_concurrent": (1, 10**6),
    "max_pictures": (0, 10**6),
    "weight": (1, 1000),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """None is no limit.

    Attributes:
        budget_nano_usd: per month (UTC): reached, nothing more is admitted.
        input_tokens_per_minute: of prompts, pictures included.
        output_tokens_per_minute: reserved by ``max_tokens``, given back when unused.
        max_concurrent: requests at work at once.
        max_pictures: per request.
        weight: of a team's part of the tokens while several teams want more than there is; None is
            1. Only a team has one.
        alert_percents: of the budget; passing one posts an alert. Ascending, each once.
        alert_url: where to (webhook.py); without one, to the team's or the organisation's.

    Raises:
        InvalidRequest: naming the field.
    """

    budget_nano_usd: int | None = None
    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    max_pictures: int | None = None
    weight: int | None = None
    alert_percents: tuple[int, ...] = ()
    alert_url: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not _is_whole(value, least, most):
                raise _wrong(name, value, f"a whole number from {least} to {most}, or null")
        object.__setattr__(self, "alert_percents", _percents(self.alert_percents))
        if self.alert_url is not None:
            if not isinstance(self.alert_url, str):
                raise InvalidRequest("alert_url: must be text, or null", param="alert_url")
            webhook_url(self.alert_url)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Limits:
        """From a row of ``accounts``."""
        return cls(**{item.name: row[item.name] for item in fields(cls)})

    def columns(self) -> dict[str, Any]:
        """For a row of ``accounts``."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "alert_percents": list(self.alert_percents)}

    def shown(self) -> dict[str, Any]:
        """For lists and the audit log: of the webhook, which may be a secret, only its host."""
        url = self.alert_url
        return {**self.columns(), "alert_url": None if url is None else redacted(url)}

    def check_weight_of(self, scope: Scope) -> None:
        """Raises InvalidRequest where there is a weight and ``scope`` is no team."""
        if self.weight is not None and scope is not Scope.TEAM:
            raise InvalidRequest(f"weight: a team has one, no {scope} does", param="weight")

    def changed(self, changes: Mapping[str, Any]) -> Limits:
        """With the named ones replaced, the others kept.

        Raises:
            InvalidRequest: an unknown name or a wrong value.
        """
        known = {item.name for item in fields(self)}
        for name in changes:
            if name not in known:
                raise InvalidRequest(f"there is no limit {name!r}", param=name)
        return replace(self, **changes)


def _percents(values: Sequence[int]) -> tuple[int, ...]:
    rule = f"at most {_MAX_ALERTS} whole percentages from 1 to 100"
    if not isinstance(values, list | tuple) or len(values) > _MAX_ALERTS:
        raise _wrong("alert_percents", values, rule)
    if not all(_is_whole(value, 1, 100) for value in values):
        raise _wrong("alert_percents", values, rule)
    return tuple(sorted(set(values)))


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _wrong(name: str, value: object, rule: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: must be {rule}, not {value!r:.60}", param=name)


NO_LIMITS = Limits()
