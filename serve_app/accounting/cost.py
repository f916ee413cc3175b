"""Money as integers: nano-dollars (1e-9 USD) in, exact decimal strings out. No floats anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.config import Price

NANO_PER_USD = 10**9
CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request's tokens cost, in nano-dollars."""

    input_nano_usd: int
    output_nano_usd: int

    @property
    def total_nano_usd(self) -> int:
        return self.input_nano_usd + self.output_nano_usd


def cost_of(price: Price, input_tokens: int, output_tokens: int) -> Cost:
    """Every prompt token once, every generated token of every choice."""
    return Cost(
        input_nano_usd=price.input_nano_usd_per_token * input_tokens,
        output_nano_usd=price.output_nano_usd_per_token * output_tokens,
    )


def format_usd(nano_usd: int) -> str:
    """The exact amount in dollars, without exponent or idle zeros.

    >>> format_usd(8_450_000), format_usd(150), format_usd(2_000_000_000), format_usd(0)
    ('0.00845', '0.00000015', '2', '0')
    """
    whole, fraction = divmod(abs(nano_usd), NANO_PER_USD)
    digits = f"{whole}.{fraction:09d}".rstrip("0").rstrip(".")
    return f"-{digits}" if nano_usd < 0 else digits
