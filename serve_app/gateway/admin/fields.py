"""What bodies and answers of /admin are made of: exact dollars, UTC times, bounded texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from serve_app.accounting.money import format_usd

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ROW_ID = 2**63 - 1

Usd = Annotated[
    str,
    StringConstraints(pattern=r"^-?[0-9]+(\.[0-9]{1,9})?$"),
    Field(description="US dollars, exact to the nano-dollar", examples=["1234.5"]),
]
# As given, so never below zero; the same bounds as money.parse_usd.
UsdIn = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$"),
    Field(description="US dollars, nine decimals at most", examples=["1234.50"]),
]
# PostgreSQL keeps no NUL.
Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]
RowId = Annotated[int, Field(ge=1, le=_MAX_ROW_ID)]
Month = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}$"), Field(examples=["2026-11"])
]


class Body(BaseModel):
    """What is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class AdjustmentAnswer(Answer):
    id: int
    line_id: int
    usd: Usd
    month: str
    reason: str
    actor: str
    posted_at: datetime


def moment(at_us: int) -> datetime:
    """Of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=at_us)


def maybe_moment(at_us: int | None) -> datetime | None:
    return None if at_us is None else moment(at_us)


def microseconds(at: AwareDatetime) -> int:
    """Since the epoch."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def maybe_usd(nano_usd: int | None) -> str | None:
    return None if nano_usd is None else format_usd(nano_usd)
