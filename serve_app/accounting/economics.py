"""What the machines cost us beside what teams pay: dollars per million tokens actually achieved.

Machines are paid by the hour whether they work or not, so the cost of a token falls with the load;
above the break-even load the list prices pay for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal

from sqlalchemy import case, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.calendar import MICROSECONDS, day_of
from serve_app.accounting.money import NANO_PER_USD
from serve_app.accounting.schema import WASTE_ACCOUNT, adjustments, lines
from serve_app.accounting.sums import total
from serve_app.accounting.tokens import Kind

_HOUR_US = 3_600 * MICROSECONDS
_DAY_US = 24 * _HOUR_US
_MILLION = 1_000_000
_NANO = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class Economics:
    """Of a window of time. Dollars are rounded to nano-dollars, half to even.

    Attributes:
        tokens: charged to teams, of prompts and answers; ``output_tokens`` of them are answers.
        wasted_tokens: computed besides, which nobody pays.
        revenue_usd: at list price, less refunds given in the window.
        usd_per_million_tokens: cost over charged tokens; None without any.
        break_even_tokens_per_hour: at the window's mix and prices, rounded up; None where the
            window earned nothing.
    """

    start_us: int
    end_us: int
    usd_per_hour: Decimal
    tokens: int
    output_tokens: int
    wasted_tokens: int
    cost_usd: Decimal
    revenue_usd: Decimal
    margin_usd: Decimal
    usd_per_million_tokens: Decimal | None
    usd_per_million_output_tokens: Decimal | None
    tokens_per_hour: int
    break_even_tokens_per_hour: int | None


async def economics(
    connection: AsyncConnection, *, start_us: int, end_us: int, usd_per_hour: Decimal
) -> Economics:
    """Of what was settled from ``start_us`` until before ``end_us``.

    Args:
        usd_per_hour: of all machines together.

    Raises:
        ValueError: the window is empty.
    """
    if end_us <= start_us:
        raise ValueError(f"a window from {start_us} to {end_us} is empty")
    waste = lines.c.account_id == WASTE_ACCOUNT
    answer = lines.c.kind == Kind.OUTPUT.value
    # Days are indexed, posting times are not. A day before, as a request may run over midnight;
    # what is settled later than that was computed in another window.
    window = (
        lines.c.day >= day_of(start_us - _DAY_US),
        lines.c.posted_us >= start_us,
        lines.c.posted_us < end_us,
    )
    sums = select(
        total(case((waste, 0), else_=lines.c.tokens)),
        total(case((waste, 0), (answer, lines.c.tokens), else_=0)),
        total(case((waste, lines.c.tokens), else_=0)),
        total(case((waste, 0), else_=lines.c.nano_usd)),
    ).where(*window)
    refunds = select(total(adjustments.c.nano_usd)).where(
        adjustments.c.posted_us >= start_us, adjustments.c.posted_us < end_us
    )
    tokens, output, wasted, charged = (await connection.execute(sums)).one()
    earned = charged - (await connection.execute(refunds)).scalar_one()
    return reckon(start_us, end_us, usd_per_hour, tokens, output, wasted, earned)


def reckon(
    start_us: int,
    end_us: int,
    usd_per_hour: Decimal,
    tokens: int,
    output_tokens: int,
    wasted_tokens: int,
    earned_nano_usd: int,
) -> Economics:
    """The same of a window that was counted elsewhere, or is planned."""
    length_us = end_us - start_us
    cost = usd_per_hour * length_us / _HOUR_US
    revenue = Decimal(earned_nano_usd) / NANO_PER_USD
    break_even = None
    if earned_nano_usd > 0 and tokens:
        exact = usd_per_hour * NANO_PER_USD * tokens / earned_nano_usd
        break_even = int(exact.to_integral_value(ROUND_CEILING))
    return Economics(
        start_us=start_us,
        end_us=end_us,
        usd_per_hour=usd_per_hour,
        tokens=tokens,
        output_tokens=output_tokens,
        wasted_tokens=wasted_tokens,
        cost_usd=_rounded(cost),
        revenue_usd=revenue,
        margin_usd=_rounded(revenue - cost),
        usd_per_million_tokens=_rounded(cost * _MILLION / tokens) if tokens else None,
        usd_per_million_output_tokens=(
            _rounded(cost * _MILLION / output_tokens) if output_tokens else None
        ),
        tokens_per_hour=tokens * _HOUR_US // length_us,
        break_even_tokens_per_hour=break_even,
    )


def _rounded(usd: Decimal) -> Decimal:
    return usd.quantize(_NANO, ROUND_HALF_EVEN)
