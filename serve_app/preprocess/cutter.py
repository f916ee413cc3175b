"""Files to patches, by workers or from what is known of the same file. Knows no Ray."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve_app.byte_cache import ByteCache
from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource
from serve_app.preparing import Preprocess
from serve_app.preprocess.turns import Turn
from serve_app.preprocess.wire import PATCH_BYTES
from serve_app.preprocess.wish import Pages, Sight
from serve_app.preprocess.workers import CutPicture, Workers
from shards.grid import Grid, patch_grid
from shards.request import Picture

T = TypeVar("T")
Array = NDArray[np.float32]
# A sight is some tuples of numbers; a file of thirty frames takes as many more.
_SIGHT_BYTES = 1024
# Above this, hashing is left to a thread.
_LARGE = 2**20


@dataclass(frozen=True, slots=True)
class Cut(Generic[T]):
    """A picture and its stored patches; ``known`` if they were not cut for this request."""

    picture: Picture
    patches: T
    known: bool


@dataclass(frozen=True, slots=True)
class For:
    """For whom, and with whom what is found is shared."""

    turn: Turn
    salt: str


class Cutter(Generic[T]):
    """What is found is kept by sha256 of the file, what was wished of it and a salt: who does not
    share a salt learns nothing, not even from how long an answer takes, of what others have sent.

    Args:
        store: called with float32 [patches, 3 · 16 · 16] in some thread; copies.
        cache: in this process' own memory; what stays in the object store leaves no room for what
            passes through.
    """

    def __init__(
        self,
        config: Preprocess,
        workers: Workers,
        store: Callable[[Array], T],
        cache: ByteCache[Hashable, Any],
    ) -> None:
        self._config = config
        self._workers = workers
        self._store = store
        self._cache = cache

    async def look(self, source: PictureSource, whom: For) -> Sight:
        """What a file shows, by its headers.

        Raises:
            InvalidRequest: its place is named.
        """
        self._check_bytes(source)
        key = ("sight", whom.salt, await _digest(source.data), source.wish)
        sight: Sight | None = self._cache.get(key)
        if sight is None:
            sight = await self._workers.look(source.data, source.wish, source.param, whom.turn)
            self._cache.keep(key, sight, _SIGHT_BYTES)
        return sight

    async def cut(
        self, source: PictureSource, sight: Sight, max_sides: Sequence[int], whom: For
    ) -> tuple[Cut[T], ...]:
        """A file's pictures, in order, each scaled to its ``max_sides``.

        Raises:
            InvalidRequest: its place is named.
        """
        digest = await _digest(source.data)
        pictures = _pictures(digest, sight, max_sides)
        key = ("patches", whom.salt, pictures)
        kept: list[Array] | None = self._cache.get(key)
        if kept is not None:
            stored = [await asyncio.to_thread(self._store, array) for array in kept]
            return tuple(
                Cut(picture, patches, known=True)
                for picture, patches in zip(pictures, stored, strict=True)
            )
        copies: list[Array] = []
        size = sum(picture.grid.patches for picture in pictures) * PATCH_BYTES
        keep = self._cache.takes(size)

        def store(array: Array) -> T:
            if keep:
                copies.append(array.copy())
            return self._store(array)

        cut = await self._workers.cut(
            source.data, source.wish, max_sides, source.param, whom.turn, store
        )
        _check_grids(cut, pictures, source.param)
        if keep:
            self._cache.keep(key, copies, size)
        return tuple(
            Cut(picture, each.patches, known=False)
            for picture, each in zip(pictures, cut, strict=True)
        )

    def _check_bytes(self, source: PictureSource) -> None:
        config = self._config
        noun, most = "picture", config.max_picture_bytes
        if isinstance(source.wish, Pages):
            noun, most = "document", config.documents.max_bytes
        if len(source.data) > most:
            raise InvalidRequest(
                f"the {noun} has too many bytes; at most {most} are read",
                param=source.param,
                code=f"{noun}_too_large",
            )


async def _digest(data: bytes) -> bytes:
    if len(data) < _LARGE:
        return hashlib.sha256(data).digest()
    return (await asyncio.to_thread(hashlib.sha256, data)).digest()


def _pictures(digest: bytes, sight: Sight, max_sides: Sequence[int]) -> tuple[Picture, ...]:
    """Named by what they are made of: the file, which of its pictures, and to what size.

    So a picture's name is never a worker's to give, and what one that was taken over says is kept
    under the name of nobody else's picture. It costs less, too, than reading all patches again.
    """
    pictures = []
    for number, size, max_side in zip(sight.numbers, sight.sizes, max_sides, strict=True):
        grid = patch_grid(*size, max_side)
        # A side that scales nothing is no difference.
        side = min(max_side, max(size))
        name = hashlib.sha256(f"{digest.hex()} {number} {size} {side}".encode()).hexdigest()
        pictures.append(Picture(grid, name))
    return tuple(pictures)


def _check_grids(cut: Sequence[CutPicture[T]], pictures: Sequence[Picture], param: str) -> None:
    """A file whose headers and pixels disagree would be shown as it was not counted."""
    grids: list[Grid] = [each.grid for each in cut]
    if grids != [picture.grid for picture in pictures]:
        raise InvalidRequest(
            "the picture is damaged or incomplete", param=param, code="invalid_picture"
        )
