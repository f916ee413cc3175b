"""Questions about a receipt."""

from __future__ import annotations

import json

import numpy as np

from ops.nano.drawing.receipt import Receipt
from ops.nano.questions.turn import Turn, say

_PLACES = ("first", "second", "third", "fourth")


def receipt_turns(rng: np.random.Generator, facts: Receipt, count: int) -> list[Turn]:
    turns = [_total(rng, facts), _count(rng, facts), _json(rng, facts)]
    for place, (name, price) in enumerate(facts.items):
        turns += [_price(rng, name, price), _item(rng, place, name)]
    order = rng.permutation(len(turns))
    # The total is what people ask for.
    chosen = [turns[place] for place in order][:count]
    return chosen if turns[0] in chosen or rng.random() < 0.3 else [turns[0], *chosen[1:]]


def _total(rng: np.random.Generator, facts: Receipt) -> Turn:
    ways = (
        "What is the total?", "How much is the total?", "What was paid?", "How much was paid?",
        "What is the total amount?", "What does it cost in all?", "What is the sum?",
    )  # fmt: skip
    return Turn("receipt", say(rng, ways), facts.total, (facts.total,))


def _price(rng: np.random.Generator, name: str, price: str) -> Turn:
    ways = (
        "How much is the {name}?", "What does the {name} cost?", "What is the price of the {name}?",
        "How much was the {name}?", "Price of {name}?",
    )  # fmt: skip
    asked = name.lower() if rng.random() < 0.5 else name
    return Turn("receipt", say(rng, ways, name=asked), price, (price,))


def _count(rng: np.random.Generator, facts: Receipt) -> Turn:
    ways = ("How many items were bought?", "How many items are on the receipt?", "Count the items.")
    return Turn("receipt", say(rng, ways), str(len(facts.items)))


def _item(rng: np.random.Generator, place: int, name: str) -> Turn:
    ways = ("What is the {place} item?", "Name the {place} item.", "Which item is {place}?")
    return Turn("receipt", say(rng, ways, place=_PLACES[place]), name, (name,))


def _json(rng: np.random.Generator, facts: Receipt) -> Turn:
    ways = (
        "Give total as JSON.", "Answer as JSON with the key total.", "Return JSON with total.",
        "JSON with total, please.",
    )  # fmt: skip
    return Turn("json", say(rng, ways), json.dumps({"total": facts.total}), (facts.total,))
