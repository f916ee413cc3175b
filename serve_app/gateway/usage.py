"""What a request used and costs, from the engine's own counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serve_app.accounting.cost import cost_of
from serve_app.accounting.money import CURRENCY, format_usd
from serve_app.config import Price
from serve_app.messages import Prompt
from shards.request import Delta


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts; the prompt counts once, the answer over all choices."""

    prompt_tokens: int
    image_tokens: int
    text_tokens: int
    completion_tokens: int

    def cost_usd(self, price: Price) -> str:
        """The total as an exact decimal string."""
        return format_usd(cost_of(price, self.prompt_tokens, self.completion_tokens).total_nano_usd)

    def body(self, price: Price) -> dict[str, Any]:
        """The ``usage`` object of an answer."""
        cost = cost_of(price, self.prompt_tokens, self.completion_tokens)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "image_tokens": self.image_tokens,
                "text_tokens": self.text_tokens,
            },
            "cost": {
                "currency": CURRENCY,
                "input": format_usd(cost.input_nano_usd),
                "output": format_usd(cost.output_nano_usd),
                "total": format_usd(cost.total_nano_usd),
            },
        }


class Meter:
    """Keeps the latest counters of each choice while deltas pass."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._prompt_tokens = len(prompt.token_ids)
        self._completion_tokens: dict[int, int] = {}

    def read(self, delta: Delta) -> None:
        self._prompt_tokens = delta.prompt_tokens
        self._completion_tokens[delta.choice] = delta.completion_tokens

    @property
    def usage(self) -> Usage:
        return Usage(
            self._prompt_tokens,
            self._prompt.image_tokens,
            self._prompt.text_tokens,
            sum(self._completion_tokens.values()),
        )
