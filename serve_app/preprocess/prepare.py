"""From a conversation and its encoded pictures to token ids and patches. Knows no Ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.config import Preprocess
from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource, PrepareRequest
from serve_app.preprocess.decode import decode_picture
from shards.mistral_request import Size
from shards.pixels import content_hash, patches
from shards.request import Picture
from shards.tokenizer import Tokenizer

Patches = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """What the engine needs. ``len(token_ids) == text_tokens + image_tokens``.

    ``pictures``, in the order in which the prompt shows them: each with its patches, float32
    [grid.patches, channels·patch²]. A picture shown twice is there twice, with one array.
    """

    token_ids: tuple[int, ...]
    text_tokens: int
    image_tokens: int
    pictures: tuple[tuple[Picture, Patches], ...]


@dataclass(frozen=True, slots=True)
class _Decoded:
    size: Size
    picture: Picture
    patches: Patches


class Preparer:
    """May be shared by threads."""

    def __init__(self, tokenizer: Tokenizer, config: Preprocess) -> None:
        self._tokenizer = tokenizer
        self._config = config

    def prepare(self, request: PrepareRequest) -> PreparedPrompt:
        """Check, decode, tokenise.

        Raises:
            InvalidRequest: too many pictures, or one that cannot be read (its place is named).
            RequestError: the conversation is not one that the model can be told.
        """
        self._check(request)
        decoded = self._decode(request)
        prompt = self._tokenizer.encode(request.conversation, [each.size for each in decoded])
        shown = [decoded[index] for index in prompt.picture_order]
        return PreparedPrompt(
            token_ids=prompt.token_ids,
            text_tokens=prompt.text_tokens,
            image_tokens=prompt.image_tokens,
            pictures=tuple((each.picture, each.patches) for each in shown),
        )

    def _check(self, request: PrepareRequest) -> None:
        """All that can be refused before the first picture is decoded."""
        count, most = len(request.pictures), request.max_pictures
        if most is not None and count > most:
            raise InvalidRequest(
                f"{count} pictures came with the request; at most {most} may",
                param="messages",
                code="too_many_pictures",
            )
        self._tokenizer.check(request.conversation, count)

    def _decode(self, request: PrepareRequest) -> list[_Decoded]:
        """Equal pictures once; pixels are let go as soon as their patches are cut."""
        once: dict[bytes, _Decoded] = {}
        for source in request.pictures:
            if source.data not in once:
                once[source.data] = self._decode_one(source)
        return [once[source.data] for source in request.pictures]

    def _decode_one(self, source: PictureSource) -> _Decoded:
        image = decode_picture(source.data, self._config, source.param)
        grid, values = patches(image)
        return _Decoded(image.size, Picture(grid, content_hash(grid, values)), values)
