"""Patches per second of the preprocessing tier beside mistral-common's encoder and transformers'
processor: ``pixtral bench pictures``.

Photographs as scikit-image ships them, cut and scaled to three common sizes and saved as JPEG, are
decoded and cut on two cores by each side in turn; what comes out of ours must be mistral-common's
to the bit. Every side gets its best way to use two cores; ours is what the tier runs: its workers,
confined as they are in service, and one copy of each picture's patches into memory that is mapped
already, as Ray's object store is.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
from numpy.typing import NDArray
from PIL import Image, ImageOps

from serve_app.byte_cache import ByteCache
from serve_app.messages import PictureSource
from serve_app.preparing import Preprocess
from serve_app.preprocess.cutter import Cutter, For
from serve_app.preprocess.turns import Turn
from serve_app.preprocess.workers import Workers
from serve_app.telemetry import WorkerMetrics
from shards.grid import patch_grid
from shards.pixels import PATCH

if TYPE_CHECKING:
    from ops.bench.picture_flood import FloodRow

CORES = 2
SIZES = ((640, 480), (1920, 1080), (4000, 3000))
PHOTOGRAPHS = ("motorcycle_left.png", "coffee.png", "rocket.jpg", "chelsea.png")
MISTRAL_GOAL, TRANSFORMERS_GOAL = 1.8, 1.5

Pixels = NDArray[np.float32]
# Encoded pictures to each one's pixels, [3, height, width].
Side = Callable[[Sequence[bytes]], Sequence[Pixels]]


class OutputDiffersError(Exception):
    """Ours is not what mistral-common makes of the same file."""


@dataclass(frozen=True, slots=True)
class Row:
    """Patches/s of each side at one size; ratios are ours over theirs."""

    size: str
    jpeg_kilobytes: float
    ours: float
    mistral_common: float
    transformers: float
    x_mistral_common: float
    x_transformers: float

    @property
    def met(self) -> bool:
        return self.x_mistral_common >= MISTRAL_GOAL and self.x_transformers >= TRANSFORMERS_GOAL


def run(rounds: int = 5, pictures: int = 16) -> list[Row]:
    """Each side's best of ``rounds`` over ``pictures`` of each size, taking turns.

    Raises:
        OutputDiffersError: and then nothing was compared.
    """
    ours = _Ours(pictures)
    try:
        return [_measured(ours, size, rounds, pictures) for size in SIZES]
    finally:
        ours.close()


def as_json(rows: Sequence[Row], flooded: FloodRow | None = None) -> str:
    """With what it ran on."""
    machine = {"processor": _processor(), "cores": os.cpu_count(), "used": CORES}
    versions = {"python": platform.python_version(), "opencv": cv2.__version__}
    return json.dumps(
        {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            **machine,
            **versions,
            "goals": {"x_mistral_common": MISTRAL_GOAL, "x_transformers": TRANSFORMERS_GOAL},
            "rows": [{**asdict(row), "met": row.met} for row in rows],
            "flood": None if flooded is None else {**asdict(flooded), "met": flooded.met},
        },
        indent=2,
    )


def photographs(size: tuple[int, int], count: int) -> list[bytes]:
    """JPEGs of ``size`` pixels, ``count`` that differ."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    files = []
    for number in range(count):
        name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
        with Image.open(folder / name) as image:
            photo = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        # Qualities that differ: no two files are equal, and none is found in a cache.
        photo.save(stream, "JPEG", quality=85 + number // len(PHOTOGRAPHS))
        files.append(stream.getvalue())
    return files


def _measured(ours: _Ours, size: tuple[int, int], rounds: int, number: int) -> Row:
    files = photographs(size, number)
    grid = patch_grid(*size)
    theirs = _mistral_common()
    _compare(ours(files), theirs["one by one"](files), size)
    sides: dict[str, Side] = {"ours": ours}
    sides |= {f"mistral {name}": side for name, side in theirs.items()}
    sides |= {f"transformers {name}": side for name, side in _transformers().items()}
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side(files)
            best[name] = min(best[name], time.perf_counter() - started)
    rate = {name: grid.patches * number / seconds for name, seconds in best.items()}
    mistral = max(value for name, value in rate.items() if name.startswith("mistral"))
    transformers = max(value for name, value in rate.items() if name.startswith("transformers"))
    return Row(
        f"{size[0]} x {size[1]}",
        sum(map(len, files)) / len(files) / 1000,
        rate["ours"],
        mistral,
        transformers,
        rate["ours"] / mistral,
        rate["ours"] / transformers,
    )


class _Store:
    """Keeps the last patches of as many pictures as there are places."""

    def __init__(self, places: int) -> None:
        self._memory = np.ones((places, 64 * 64, 3 * PATCH * PATCH), np.float32)
        self._next = count()

    def __call__(self, patches: Pixels) -> Pixels:
        place = self._memory[next(self._next) % len(self._memory), : len(patches)]
        np.copyto(place, patches)
        return place


class _Ours:
    """What the tier does with a request of these files, without Ray."""

    def __init__(self, pictures: int) -> None:
        config = Preprocess(workers=CORES)
        self._workers = Workers(config, WorkerMetrics())
        self._cutter = Cutter(config, self._workers, _Store(pictures), ByteCache(0))
        self._requests = 0

    def __call__(self, files: Sequence[bytes]) -> Sequence[Pixels]:
        self._requests += 1
        return asyncio.run(self._cut(files))

    def close(self) -> None:
        self._workers.close()

    async def _cut(self, files: Sequence[bytes]) -> list[Pixels]:
        whom = For(Turn("bench", str(self._requests)), "")

        async def one(data: bytes) -> Pixels:
            source = PictureSource(data, "picture")
            sight = await self._cutter.look(source, whom)
            [cut] = await self._cutter.cut(source, sight, [1024], whom)
            patches: Pixels = cut.patches
            return patches

        return await asyncio.gather(*map(one, files))


def _mistral_common() -> Mapping[str, Side]:
    encoder = ImageEncoder(ImageConfig(PATCH, 1024), SpecialImageIDs(10, 14, 15))

    def one(data: bytes) -> Pixels:
        pixels: Pixels = encoder(ImageChunk(image=Image.open(io.BytesIO(data)))).image
        return pixels

    return _ways(one)


def _transformers() -> Mapping[str, Side]:
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    processor: Any = PixtralImageProcessorPil()

    def one(data: bytes) -> Pixels:
        pixels: Pixels = processor(Image.open(io.BytesIO(data)), return_tensors="np").pixel_values
        return pixels

    return _ways(one)


def _ways(one: Callable[[bytes], Pixels]) -> Mapping[str, Side]:
    """One picture after the other, OpenCV on every core; and as many threads as cores."""

    def in_turn(files: Sequence[bytes]) -> Sequence[Pixels]:
        cv2.setNumThreads(CORES)
        return [one(data) for data in files]

    def in_threads(files: Sequence[bytes]) -> Sequence[Pixels]:
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(CORES) as threads:
            return list(threads.map(one, files))

    return {"one by one": in_turn, "in threads": in_threads}


def _compare(ours: Sequence[Pixels], theirs: Sequence[Pixels], size: tuple[int, int]) -> None:
    grid = patch_grid(*size)
    shape = (grid.rows, grid.columns, 3, PATCH, PATCH)
    for patches, pixels in zip(ours, theirs, strict=True):
        whole = patches.reshape(shape).transpose(2, 0, 3, 1, 4).reshape(pixels.shape)
        if not np.array_equal(whole, pixels):
            most = float(np.abs(whole - pixels).max())
            raise OutputDiffersError(f"at {size[0]} x {size[1]} by as much as {most:g}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
