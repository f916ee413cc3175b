"""What a request's tokens cost at a list price, in nano-dollars."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.config import Price


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
