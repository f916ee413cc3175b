"""The vision tier: patches in, features (before the projector) out. Replicated, never cut.

A replica keeps the features it made (feature_cache.py) in its own memory and puts them in the
object store for each request anew: what stays there leaves no room for what passes through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from serve_app.config import Config, ConfigError
from serve_app.feature_cache import FeatureCache, KeptFeatures, Known
from serve_app.log import logger
from serve_app.messages import EncodeRequest, Features, Patches
from serve_app.observed import observed
from serve_app.picture_batch import PictureBatcher, PictureQueue
from serve_app.scaling import PENDING_PATCHES
from serve_app.serve_handles import put_array
from serve_app.telemetry import VisionMetrics
from shards.grid import Grid

if TYPE_CHECKING:
    import torch

_logger = logger(__name__)


class Vision:
    """Serve deployment; one replica holds one copy of the encoder."""

    def __init__(self, config: Config) -> None:
        import torch

        from shards.vision_model import VisionEncoder

        self._tracing = observed(config, "vision")
        vision = config.vision
        if vision.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("vision.device: cuda, but PyTorch sees no GPU on this machine")
        torch.set_num_threads(vision.threads)
        self._encoder = VisionEncoder.load(
            config.model.path,
            device=torch.device("cuda:0" if vision.device == "cuda" else "cpu"),
            dtype=vision.dtype,
            kernels=vision.kernels,
        )
        self._metrics = VisionMetrics()
        self._batcher = PictureBatcher(self._encode, vision.max_batch_patches, self._watch)
        self._cache = FeatureCache(
            KeptFeatures(config.vision_features_bytes, self._metrics.cached_bytes.set)
        )

    async def encode(self, request: EncodeRequest) -> tuple[Features, ...]:
        """Features of each picture, in order.

        Raises:
            ray.exceptions.RayError: patches were lost with their owner.
        """
        arrived_ns = time.time_ns()
        error: str | None = None
        try:
            salt = request.cache_salt
            found = await asyncio.gather(*(self._one(patches, salt) for patches in request.patches))
        except Exception as raised:
            error = type(raised).__name__
            raise
        finally:
            self._tell(request, arrived_ns, error)
        return tuple(found)

    def _tell(self, request: EncodeRequest, arrived_ns: int, error: str | None) -> None:
        request_id, pictures = request.request_id, len(request.patches)
        if self._tracing is not None:
            self._tracing.record(
                "vision",
                request.trail.traceparent,
                {
                    "request_id": request_id,
                    "pictures": pictures,
                    "patches": sum(patches.picture.grid.patches for patches in request.patches),
                },
                started_ns=arrived_ns,
                error=error,
            )
        if error is None:
            team = request.trail.team
            _logger.info("encoded", request_id=request_id, team=team, pictures=pictures)

    async def alive(self) -> None:
        """Answers."""

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve asks for each second, to scale the tier by (scaling.py)."""
        return {PENDING_PATCHES: self._batcher.pending_patches}

    async def _one(self, patches: Patches, salt: str) -> Features:
        async def encode() -> np.ndarray:
            features: np.ndarray = await self._batcher.submit(
                await patches.ref, patches.picture.grid
            )
            return features

        known = Known(patches.picture, salt)
        features, was_known = await self._cache.features(known, encode)
        self._metrics.known_pictures.inc(was_known)
        return Features(patches.picture, put_array(features))

    def _watch(self, queue: PictureQueue, waited_s: float | None) -> None:
        self._metrics.waiting.set(queue.pictures)
        self._metrics.waiting_patches.set(queue.patches)
        if waited_s is not None:
            self._metrics.queue_seconds.observe(waited_s)

    def _encode(self, patches: Sequence[Any], grids: Sequence[Grid]) -> list[np.ndarray]:
        started = time.perf_counter()
        packed = self._encoder.encode(np.concatenate(patches), grids)
        sizes = [grid.patches for grid in grids]
        features = np.split(_to_numpy(packed), np.cumsum(sizes)[:-1])
        self._metrics.seconds.observe(time.perf_counter() - started)
        self._metrics.batch_pictures.observe(len(grids))
        self._metrics.pictures.inc(len(grids))
        self._metrics.patches.inc(sum(sizes))
        return features


def _to_numpy(features: torch.Tensor) -> np.ndarray:
    import torch

    features = features.cpu().contiguous()
    if features.dtype == torch.bfloat16:
        return features.view(torch.uint16).numpy()
    return features.numpy()
