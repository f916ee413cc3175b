"""What a token costs, by model.

Mistral's list prices: Pixtral Large $2.00 in and $6.00 out per million tokens, Pixtral 12B $0.15
both ways. Any other model, the bundled untrained one too, is priced as Pixtral Large unless its
config sets ``price``; ``/v1/models`` shows which price applies and why.
"""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.config import Model, Price

PIXTRAL_LARGE = Price(input_nano_usd_per_token=2_000, output_nano_usd_per_token=6_000)
PIXTRAL_12B = Price(input_nano_usd_per_token=150, output_nano_usd_per_token=150)


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
