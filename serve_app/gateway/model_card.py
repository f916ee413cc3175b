"""The served model as ``/v1/models`` shows it: the union of OpenAI's and Mistral's shapes."""

from __future__ import annotations

from typing import Any

from serve_app.accounting.money import CURRENCY, usd_per_million
from serve_app.accounting.prices import PriceSheet
from serve_app.accounting.tokens import CHARGED
from serve_app.config import Model
from serve_app.errors import ModelNotFound

_ECHO_CHARS = 100


def check_model(name: str, model: Model) -> None:
    """Raises ModelNotFound unless ``name`` is the served model's name or an alias."""
    if name not in (model.name, *model.aliases):
        raise ModelNotFound(
            f"the model '{name[:_ECHO_CHARS]}' is not served here; '{model.name}' is", param="model"
        )


def model_card(
    model: Model, prices: PriceSheet, created: int, max_context_tokens: int
) -> dict[str, Any]:
    """``created``: Unix time (s) since which it is served."""
    card: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "pixtral-serve",
        "name": model.name,
        "type": "base",
        "aliases": list(model.aliases),
        "capabilities": {
            "completion_chat": True,
            "function_calling": True,
            "vision": True,
            "completion_fim": False,
            "fine_tuning": False,
        },
        "max_context_length": max_context_tokens,
        "default_model_temperature": model.default_temperature,
        "deprecation": None,
        "pricing": {
            "currency": CURRENCY,
            "price_version": prices.id,
            "input_per_million_tokens": usd_per_million(prices.text),
            "output_per_million_tokens": usd_per_million(prices.output),
            "per_million_tokens": {
                kind.value: usd_per_million(prices.of(kind)) for kind in CHARGED
            },
        },
    }
    return {**card, "untrained": True} if model.untrained else card
