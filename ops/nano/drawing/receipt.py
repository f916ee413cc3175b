"""A till receipt: what was bought, for how much, and the total."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ops.nano.drawing.canvas import Canvas
from ops.nano.drawing.labels import THINGS
from ops.nano.drawing.palette import background, ink
from ops.nano.drawing.split import Split
from ops.nano.drawing.typefaces import typeface, typefaces

GOODS = (
    "Tea", "Coffee", "Milk", "Bread", "Rice", "Soap", "Pen", "Book", "Cake", "Egg", "Fish",
    "Juice", "Apple", "Pizza", "Soup", "Salad", "Water", "Cola", "Beer", "Wine", "Bus", "Taxi",
    "Stamp", "Lamp", "Cheese", "Butter", "Honey", "Sugar", "Salt", "Beans",
)  # fmt: skip
_TOTALS = ("Total", "TOTAL", "Sum", "Total:", "Due")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What there is to know of such a picture; prices as printed."""

    items: tuple[tuple[str, str], ...]
    total: str


def draw_receipt(
    rng: np.random.Generator, width: int, height: int, split: Split
) -> tuple[Canvas, Receipt]:
    """Wants at least 96 x 48 pixels."""
    paper = background(rng)
    canvas = Canvas.blank(rng, width, height, paper)
    face, shade = str(rng.choice(typefaces(split))), ink(rng, paper)
    rows = int(rng.integers(2, min(5, height // 17) + 1))
    size = min(int(rng.integers(12, 20)), int(height / rows / 1.15))
    cents = rng.random() < 0.6
    names = [str(name) for name in rng.choice(GOODS, rows - 1, replace=False)]
    widest = f"{max(names, key=len)} 10.50" if cents else f"{max(names, key=len)} 105"
    size = max(10, min(size, int((width - 14) / (typeface(face, 20).getlength(widest) / 20))))
    prices = [int(rng.integers(1, 100)) * (5 if cents else 1) for _ in names]
    if cents and rng.random() < 0.7:
        prices = [price * int(rng.integers(1, 3)) for price in prices]
    printed = [_price(price, cents) for price in prices]
    receipt = Receipt(tuple(zip(names, printed, strict=True)), _price(sum(prices), cents))
    label = str(rng.choice(_TOTALS))
    lines = [(name, price, "item", "price") for name, price in receipt.items]
    lines.append((label, receipt.total, "total", "total"))
    step = height / rows
    margin = float(rng.integers(3, 8))
    for place, (name, price, name_role, price_role) in enumerate(lines):
        base = (place + 0.5) * step + 0.36 * size
        here = {"line": place + 1, "total": rows}
        canvas.text(
            name, (margin, base), face, size, shade, {"thing": THINGS.index(name_role), **here}
        )
        left = width - margin - typeface(face, size).getlength(price)
        canvas.text(
            price, (left, base), face, size, shade, {"thing": THINGS.index(price_role), **here}
        )
    if rng.random() < 0.4:
        rule = height - step
        canvas.line((margin, rule), (width - margin, rule), shade)
    return canvas, receipt


def _price(amount: int, cents: bool) -> str:
    return f"{amount // 100}.{amount % 100:02}" if cents else str(amount)
