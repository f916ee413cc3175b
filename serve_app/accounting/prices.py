"""What a token costs, by model and kind: sheets of integer nano-dollars per token.

Mistral's list prices: Pixtral Large $2.00 in and $6.00 out per million tokens, Pixtral 12B $0.15
both ways. Any other model, the bundled untrained one too, is priced as Pixtral Large unless its
config sets ``price``; ``/v1/models`` shows which price applies.
"""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.accounting.tokens import Kind, Tokens
from serve_app.config import Model, Price

PIXTRAL_LARGE = Price(input_nano_usd_per_token=2_000, output_nano_usd_per_token=6_000)
PIXTRAL_12B = Price(input_nano_usd_per_token=150, output_nano_usd_per_token=150)


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """One version of a model's prices, never edited: nano-dollars per token of each charged kind.

    Attributes:
        id: of the row in ``price_versions``.
        tier: ``standard`` or ``batch``.
        effective_us: from when on; a sheet holds until the next one of its model and tier.
    """

    id: int
    model: str
    tier: str
    text: int
    image: int
    cached_text: int
    cached_image: int
    output: int
    effective_us: int

    def of(self, kind: Kind) -> int:
        price: int = getattr(self, kind.priced_as)
        return price

    def cost(self, tokens: Tokens) -> int:
        """In nano-dollars."""
        return sum(self.of(kind) * count for kind, count in tokens.items())

    def most(self, tokens: Tokens) -> int:
        """What they cost at most, in nano-dollars, however many of them turn out to be cached.

        A sheet from before prompts were cached may ask more for cached tokens than for others, and
        is never edited.
        """
        text = max(self.text, self.cached_text) * (tokens.text + tokens.cached_text)
        image = max(self.image, self.cached_image) * (tokens.image + tokens.cached_image)
        return text + image + self.output * tokens.output


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A price and where it comes from, in words."""

    price: Price
    basis: str


def listed_price(model: Model) -> ListedPrice:
    """The configured price, else the list price that the model's name asks for."""
    name = model.name.lower()
    if model.price is not None:
        return ListedPrice(model.price, "set in the config")
    if "12b" in name:
        return ListedPrice(PIXTRAL_12B, "list price of Pixtral 12B")
    if "pixtral-large" in name:
        return ListedPrice(PIXTRAL_LARGE, "list price of Pixtral Large")
    return ListedPrice(PIXTRAL_LARGE, "no price of its own: charged as Pixtral Large")
