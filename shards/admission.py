"""Refuses requests that could never run, before any work is spent. Standard library only.

What depends on the room there is (context, cache, queue) is the scheduler's to refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shards.detokenizer import Vocabulary
from shards.errors import RequestError
from shards.request import GenerationRequest

if TYPE_CHECKING:
    import numpy as np


def check_request(
    request: GenerationRequest, features: Sequence[np.ndarray], vocabulary: Vocabulary
) -> None:
    """Raises RequestError, naming the field, unless ids, pictures and features fit together."""
    if not request.prompt:
        raise RequestError("messages", "the prompt has no tokens")
    sampling = request.sampling
    _check_ids("messages", request.prompt, vocabulary)
    _check_ids("stop_token_ids", sampling.stop_token_ids, vocabulary)
    _check_ids("logit_bias", [token_id for token_id, _ in sampling.logit_bias], vocabulary)
    _check_pictures(request, vocabulary)
    _check_features(request, features)


def image_positions(request: GenerationRequest, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Where the prompt holds [IMG], ascending."""
    image = vocabulary.image_id
    return tuple(position for position, token in enumerate(request.prompt) if token == image)


def _check_ids(param: str, token_ids: Sequence[int], vocabulary: Vocabulary) -> None:
    size = len(vocabulary.pieces)
    bad = next((token_id for token_id in token_ids if not 0 <= token_id < size), None)
    if bad is not None:
        raise RequestError(param, f"token id {bad} is not among the vocabulary's 0..{size - 1}")


def _check_pictures(request: GenerationRequest, vocabulary: Vocabulary) -> None:
    positions = image_positions(request, vocabulary)
    patches = sum(picture.grid.patches for picture in request.pictures)
    if len(positions) != patches:
        raise RequestError(
            "messages",
            f"the prompt has {len(positions)} [IMG] tokens; its {len(request.pictures)} pictures "
            f"have {patches} patches",
        )
    offset = 0
    for index, picture in enumerate(request.pictures):
        start = positions[offset]
        run = picture.grid.token_ids(
            vocabulary.image_id, vocabulary.image_break_id, vocabulary.image_end_id
        )
        if request.prompt[start : start + len(run)] != tuple(run):
            raise RequestError(
                "messages",
                f"the prompt at {start} is not the {picture.grid.rows} rows of "
                f"{picture.grid.columns} [IMG] tokens of picture {index}",
            )
        offset += picture.grid.patches


def _check_features(request: GenerationRequest, features: Sequence[np.ndarray]) -> None:
    if len(features) != len(request.pictures):
        raise RequestError(
            "features", f"{len(features)} arrays for {len(request.pictures)} pictures"
        )
    for index, (picture, rows) in enumerate(zip(request.pictures, features, strict=True)):
        if rows.ndim != 2 or rows.shape[0] != picture.grid.patches:
            raise RequestError(
                "features",
                f"picture {index} has shape {tuple(rows.shape)}, not "
                f"[{picture.grid.patches} patches, vision hidden]",
            )
