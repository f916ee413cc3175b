"""What an answer and a quote say of each picture: how it came, how it is seen, what it counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve_app.messages import Shown
from shards.pixels import PATCH


def picture_body(shown: Shown) -> dict[str, Any]:
    """``seen_*`` is what the model is shown, in whole patches; ``scaled_by`` what made it smaller
    than it came, if anything did."""
    (width, height), grid = shown.size, shown.grid
    body: dict[str, Any] = {
        "param": shown.param,
        "width": width,
        "height": height,
        "seen_width": grid.columns * PATCH,
        "seen_height": grid.rows * PATCH,
        "scaled_by": shown.scaling,
        "tokens": grid.tokens,
    }
    if shown.frame is not None:
        body["frame"] = shown.frame
    if shown.page is not None:
        body["page"] = shown.page
    return body


def charged_pictures(pictures: Sequence[Shown], cached_image_tokens: int) -> list[dict[str, Any]]:
    """The same with the tokens of each that were found computed.

    What is found is the start of a prompt, so pictures are filled up in the order in which it shows
    them.
    """
    bodies = []
    for shown in pictures:
        cached = min(shown.grid.tokens, cached_image_tokens)
        cached_image_tokens -= cached
        bodies.append({**picture_body(shown), "cached_tokens": cached})
    return bodies
