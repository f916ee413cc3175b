"""From a conversation and its encoded pictures to token ids and patches. Knows no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serve_app.in_hand import InHand
from serve_app.messages import PictureSource, PrepareRequest, Shown
from serve_app.preparing import Preprocess
from serve_app.preprocess.cutter import Cut, Cutter, For
from serve_app.preprocess.layout import Layout, check_count, lay_out
from serve_app.preprocess.sizing import PictureLimits
from serve_app.preprocess.turns import Turn
from serve_app.preprocess.wire import PATCH_BYTES
from serve_app.preprocess.wish import Sight, Wish
from shards.tokenizer import Tokenizer

T = TypeVar("T")
R = TypeVar("R")
# Does what takes its time away from the event loop.
Elsewhere = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class PreparedPrompt(Generic[T]):
    """What the engine needs. ``len(token_ids) == text_tokens + image_tokens``.

    ``pictures``, in the order in which the prompt shows them: each with its patches as the cutter
    stored them, float32 [grid.patches, channels·patch²]; ``shown`` says what became of each. A
    picture shown twice is there twice, and was stored once.
    """

    token_ids: tuple[int, ...]
    text_tokens: int
    image_tokens: int
    pictures: tuple[Cut[T], ...]
    shown: tuple[Shown, ...]


class Preparer(Generic[T]):
    """Used in one event loop. ``elsewhere``: where conversations are tokenised."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: Preprocess,
        cutter: Cutter[T],
        elsewhere: Elsewhere = asyncio.to_thread,
    ) -> None:
        self._tokenizer = tokenizer
        self._cutter = cutter
        self._elsewhere = elsewhere
        self._pictures = InHand(config.max_pictures_in_hand)
        self._files = InHand(config.max_bytes_in_hand)
        self._patches = InHand(config.max_patch_bytes_in_hand)
        self._limits = PictureLimits(
            tokenizer.max_side, config.max_picture_tokens, config.max_request_picture_tokens
        )

    async def prepare(self, request: PrepareRequest) -> PreparedPrompt[T]:
        """Check, look, lay out, and only then decode; a request's files side by side.

        Raises:
            InvalidRequest: too many pictures or tokens, or a picture that cannot be read (its place
                is named).
            RequestError: the conversation is not one that the model can be told.
            Overloaded: too many pictures are in hand.
        """
        check_count(len(request.pictures), request.max_pictures)
        size = sum(len(source.data) for source in request.pictures)
        with self._pictures.taken(len(request.pictures)), self._files.taken(size):
            return await self._prepare(request)

    async def _prepare(self, request: PrepareRequest) -> PreparedPrompt[T]:
        whom = For(Turn(request.trail.team, request.request_id), request.cache_salt)
        count = len(request.pictures)
        sights: Sequence[Sight] = ()
        if count:
            await self._elsewhere(self._tokenizer.check, request.conversation, count)
            sights = await self._looks(request.pictures, whom)
        layout: Layout = await self._elsewhere(self._laid_out, request, sights)
        patch_bytes = PATCH_BYTES * sum(shown.grid.patches for shown in layout.shown)
        with self._patches.taken(patch_bytes):
            cut = await self._cuts(request.pictures, sights, layout.max_sides, whom)
        return PreparedPrompt(
            token_ids=layout.prompt.token_ids,
            text_tokens=layout.prompt.text_tokens,
            image_tokens=layout.prompt.image_tokens,
            pictures=tuple(cut[place.source][place.index] for place in layout.places),
            shown=layout.shown,
        )

    def _laid_out(self, request: PrepareRequest, sights: Sequence[Sight]) -> Layout:
        if not sights:
            # Text alone goes elsewhere once, not twice.
            self._tokenizer.check(request.conversation, 0)
        return lay_out(request, sights, self._tokenizer, self._limits)

    async def _looks(self, sources: Sequence[PictureSource], whom: For) -> Sequence[Sight]:
        once: dict[tuple[bytes, Wish], Awaitable[Sight]] = {}
        for source in sources:
            key = source.data, source.wish
            if key not in once:
                once[key] = self._cutter.look(source, whom)
        found = dict(zip(once, await _all(once.values()), strict=True))
        return [found[source.data, source.wish] for source in sources]

    async def _cuts(
        self,
        sources: Sequence[PictureSource],
        sights: Sequence[Sight],
        max_sides: Sequence[tuple[int, ...]],
        whom: For,
    ) -> list[tuple[Cut[T], ...]]:
        """Equal files once."""
        keys = [
            (source.data, source.wish, sides)
            for source, sides in zip(sources, max_sides, strict=True)
        ]
        once: dict[tuple[bytes, Wish, tuple[int, ...]], Awaitable[tuple[Cut[T], ...]]] = {}
        for key, source, sight in zip(keys, sources, sights, strict=True):
            if key not in once:
                once[key] = self._cutter.cut(source, sight, key[2], whom)
        found = dict(zip(once, await _all(once.values()), strict=True))
        return [found[key] for key in keys]


async def _all(work: Iterable[Awaitable[R]]) -> list[R]:
    """Each one's result; the first error, in their order, ends the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        # Errors behind the first are nobody's.
        await asyncio.gather(*tasks, return_exceptions=True)
