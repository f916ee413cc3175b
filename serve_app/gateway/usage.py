"""What a request used and costs, from the engine's own counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from serve_app.accounting.hold import Charge
from serve_app.accounting.money import CURRENCY, format_usd
from serve_app.accounting.prices import PriceSheet
from serve_app.accounting.tokens import Tokens
from serve_app.gateway.picture_body import charged_pictures
from serve_app.messages import Shown
from shards.request import Delta


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts; the prompt counts once, the answer over all choices."""

    tokens: Tokens

    def cost_usd(self, prices: PriceSheet) -> str:
        """The total as an exact decimal string."""
        return format_usd(prices.cost(self.tokens))

    def body(self, prices: PriceSheet, pictures: Sequence[Shown] = ()) -> dict[str, Any]:
        """The ``usage`` object of an answer; its cost is what the ledger's lines add up to.

        Args:
            pictures: of the prompt, in its order; of a prompt without any, nothing is said.
        """
        tokens = self.tokens
        shown = charged_pictures(pictures, tokens.cached_image)
        output = prices.cost(Tokens(output=tokens.output))
        total = prices.cost(tokens)
        return {
            "prompt_tokens": tokens.prompt,
            "completion_tokens": tokens.output,
            "total_tokens": tokens.prompt + tokens.output,
            "prompt_tokens_details": {
                "cached_tokens": tokens.cached_text + tokens.cached_image,
                "image_tokens": tokens.image + tokens.cached_image,
                "text_tokens": tokens.text + tokens.cached_text,
                **({"pictures": shown} if shown else {}),
            },
            "cost": {
                "currency": CURRENCY,
                "input": format_usd(total - output),
                "output": format_usd(output),
                "total": format_usd(total),
            },
        }


class Meter:
    """Keeps the latest counters of each choice while deltas pass."""

    def __init__(self) -> None:
        self._attempt = 1
        self._prompt = Tokens()
        self._output: dict[int, int] = {}

    def read(self, delta: Delta) -> None:
        self._attempt = delta.attempt
        cached_image = delta.cached_image_tokens
        cached_text = delta.cached_tokens - cached_image
        self._prompt = Tokens(
            text=delta.prompt_tokens - delta.image_tokens - cached_text,
            image=delta.image_tokens - cached_image,
            cached_text=cached_text,
            cached_image=cached_image,
        )
        self._output[delta.choice] = delta.completion_tokens

    @property
    def usage(self) -> Usage:
        return Usage(self._prompt + Tokens(output=sum(self._output.values())))

    @property
    def charges(self) -> tuple[Charge, ...]:
        """What the attempt that answered used so far, the prompt with choice 0."""
        by_choice = {choice: Tokens(output=count) for choice, count in sorted(self._output.items())}
        if self._prompt.prompt:
            by_choice[0] = replace(self._prompt, output=self._output.get(0, 0))
        return tuple(
            Charge(self._attempt, choice, tokens) for choice, tokens in sorted(by_choice.items())
        )
