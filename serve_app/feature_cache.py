"""Features of pictures that may come again, as in the next turn. Knows neither Ray nor torch.

A picture is known by its content hash, its grid and a salt: who does not share a salt learns
nothing, not even from how long an answer takes, of what others have sent. Vision replicas keep
them so as not to encode again, decoder groups so as not to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.byte_cache import ByteCache
from shards.request import Picture

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Known:
    """A picture, for those of one salt."""

    picture: Picture
    salt: str


@dataclass(slots=True)
class _Encoding:
    """One picture on its way through the encoder, and for how many."""

    task: asyncio.Task[np.ndarray]
    waiting: int = 0


class KeptFeatures:
    """The last used, within ``max_bytes``.

    Args:
        watch: told after each change how many bytes are kept.
    """

    def __init__(self, max_bytes: int, watch: Callable[[int], None] | None = None) -> None:
        self._cache: ByteCache[Known, np.ndarray] = ByteCache(max_bytes, watch)

    def get(self, known: Known) -> np.ndarray | None:
        """[patches, vision hidden], not to be written to: whoever has it has it for as long as he
        wants, whatever becomes of it here. None if it is not kept."""
        return self._cache.get(known)

    def keep(self, known: Known, features: np.ndarray) -> np.ndarray:
        """Remember them if they fit; returns them, or what was or is now kept in their place.

        What is a view, of its whole pass or of an object in a store, is copied: it would keep all
        of that alive.
        """
        kept = self.get(known)
        if kept is not None:
            return kept
        if not self._cache.takes(features.nbytes):
            return features
        if features.base is not None:
            features = features.copy()
        self._cache.keep(known, features, features.nbytes)
        return features


class FeatureCache:
    """Kept features, and those on their way: what is being encoded is waited for. In one event
    loop."""

    def __init__(self, kept: KeptFeatures) -> None:
        self._kept = kept
        self._encodings: dict[Known, _Encoding] = {}

    async def features(
        self, known: Known, encode: Callable[[], Coroutine[Any, Any, np.ndarray]]
    ) -> tuple[np.ndarray, bool]:
        """[patches, vision hidden], not to be written to, and whether ``encode`` was not needed.

        Who is cancelled leaves the encoding to the others who wait for it; the last one ends it.

        Raises:
            Exception: what ``encode`` raised; others who waited for it try their own.
        """
        while True:
            kept = self._kept.get(known)
            if kept is not None:
                return kept, True
            encoding = self._encodings.get(known)
            if encoding is None:
                return await self._result(known, self._begun(known, encode)), False
            # The pixels of whoever came first may be lost; ours are not.
            with suppress(Exception):
                return await self._result(known, encoding), True

    def _begun(
        self, known: Known, encode: Callable[[], Coroutine[Any, Any, np.ndarray]]
    ) -> _Encoding:
        # Serve cancels what carries a request's context, and this may outlive its first request.
        task = asyncio.get_running_loop().create_task(encode(), context=Context())
        encoding = self._encodings[known] = _Encoding(task)
        # Before anybody who waits for it goes on.
        task.add_done_callback(lambda _: self._ended(known, encoding))
        return encoding

    def _ended(self, known: Known, encoding: _Encoding) -> None:
        self._forget(known, encoding)
        task = encoding.task
        if not task.cancelled() and task.exception() is None:
            self._kept.keep(known, task.result())

    def _forget(self, known: Known, encoding: _Encoding) -> None:
        if self._encodings.get(known) is encoding:
            del self._encodings[known]

    async def _result(self, known: Known, encoding: _Encoding) -> np.ndarray:
        encoding.waiting += 1
        try:
            return await asyncio.shield(encoding.task)
        finally:
            encoding.waiting -= 1
            if not encoding.waiting:
                # Nothing where it is done. Who comes now begins anew.
                encoding.task.cancel()
                self._forget(known, encoding)
