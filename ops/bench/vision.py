"""The vision tier's pass beside transformers, on the same weights: ``pixtral bench vision``.

Pictures of mixed sizes, packed into as few passes as the tier would take, beside transformers'
``PixtralVisionModel`` (float32, ``sdpa``, as many threads) with one picture at a time. Features
must agree; how fast they come is told.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ops.bench.engine.model import PINNED, Model, written
from ops.bench.engine.report import machine_name
from ops.bench.engine.run import Spread, interleaved
from ops.bench.engine.theirs import llava_config, their_weights
from ops.nano import NANO
from serve_app.config import Vision
from shards.config import VisionConfig
from shards.grid import Grid, patch_grid
from shards.vision_model import VisionEncoder

CPU = torch.device("cpu")
SHAPES = {"pinned": PINNED.vision, "nano": NANO.vision}
TOLERANCE = 1e-4
GOAL = 1.5
# Width by height of a square, a photograph lying and standing, a screen.
_ASPECTS = (1.0, 4 / 3, 3 / 4, 16 / 9)


class FeaturesDifferError(Exception):
    """Two encoders of the same weights do not agree: what they took cannot be compared."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to measure.

    Attributes:
        pictures: of sizes from ``least`` to ``most`` pixels square in area, spaced evenly by ratio.
        repeats: of each side, in turn; the best and the median are told.
    """

    pictures: int = 32
    least: int = 64
    most: int = 896
    repeats: int = 3
    threads: int = 2
    say: Callable[[str], None] = field(default=lambda _: None, compare=False)


QUICK = Budget(pictures=8, most=160, repeats=1)


@dataclass(frozen=True, slots=True)
class Result:
    """Of one shape; rates are patches/s.

    Attributes:
        difference: the largest between two features.
    """

    shape: str
    pictures: int
    patches: int
    packed: Spread
    one_by_one: Spread
    transformers: Spread
    difference: float

    @property
    def ratio(self) -> float:
        """Packed, by transformers."""
        return self.packed.best / self.transformers.best


class Theirs:
    """transformers' encoder alone."""

    def __init__(self, model: Model) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import PixtralVisionModel

        self._encoder = PixtralVisionModel(llava_config(model.config).vision_config).eval()
        tower = "model.vision_tower."
        weights = {
            name.removeprefix(tower): tensor
            for name, tensor in their_weights(model)
            if name.startswith(tower)
        }
        self._encoder.load_state_dict(weights)

    @torch.inference_mode()
    def encode(self, pictures: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        """Features of each [3, height, width], one after the other."""
        pixels = (torch.from_numpy(picture).unsqueeze(0) for picture in pictures)
        return [self._encoder(each).last_hidden_state[0] for each in pixels]


def run(names: Sequence[str], budget: Budget, cache: Path | None = None) -> list[Result]:
    """Each shape in turn.

    Args:
        cache: where models lie; the user's cache folder when None.

    Raises:
        FeaturesDifferError: ours are not theirs.
    """
    torch.set_num_threads(budget.threads)
    return [measure(name, SHAPES[name], budget, cache) for name in names]


def measure(name: str, vision: VisionConfig, budget: Budget, cache: Path | None) -> Result:
    """Raises FeaturesDifferError."""
    budget.say(f"{name}: loading")
    model = written(f"vision-{name}", replace(NANO, vision=vision), cache)
    ours = VisionEncoder.load(model.folder, device=CPU, dtype="float32")
    theirs = Theirs(model)
    grids = mixed_grids(vision, budget)
    pixels = list(_pixels(vision, grids))
    patches = [_patches(picture, vision.patch_size) for picture in pixels]
    passes = list(packed(grids, Vision().max_batch_patches))
    budget.say(f"{name}: {len(grids)} pictures, {sum(map(len, patches))} patches")

    def ours_packed() -> Tensor:
        return torch.cat(
            [
                ours.encode(np.concatenate([patches[i] for i in some]), [grids[i] for i in some])
                for some in passes
            ]
        )

    def ours_alone() -> Tensor:
        pairs = zip(patches, grids, strict=True)
        return torch.cat([ours.encode(array, [grid]) for array, grid in pairs])

    runs = interleaved(
        budget.repeats,
        {
            "packed": lambda _: _timed(ours_packed),
            "one by one": lambda _: _timed(ours_alone),
            "transformers": lambda _: _timed(lambda: torch.cat(theirs.encode(pixels))),
        },
    )
    expected = runs["transformers"][0][1]
    found = [features for side in runs.values() for _, features in side]
    difference = max(float((features - expected).abs().max()) for features in found)
    if not difference <= TOLERANCE:
        raise FeaturesDifferError(f"{name}: features differ by up to {difference}")
    count = len(expected)
    rates = {
        side: Spread.most([count / seconds for seconds, _ in timed]) for side, timed in runs.items()
    }
    return Result(
        name,
        len(grids),
        count,
        rates["packed"],
        rates["one by one"],
        rates["transformers"],
        difference,
    )


def mixed_grids(vision: VisionConfig, budget: Budget) -> list[Grid]:
    """Of pictures of all sizes, none beside one of its own size."""
    ratio = budget.most / budget.least
    order = np.random.default_rng(0).permutation(budget.pictures)
    grids = []
    for number in order:
        side = budget.least * ratio ** (number / max(budget.pictures - 1, 1))
        stretch = math.sqrt(_ASPECTS[number % len(_ASPECTS)])
        width, height = round(side * stretch), round(side / stretch)
        grids.append(patch_grid(width, height, max_side=vision.image_size, patch=vision.patch_size))
    return grids


def packed(grids: Sequence[Grid], most: int) -> Iterator[list[int]]:
    """Places of pictures that share a pass, as the tier's batcher takes those that wait."""
    some: list[int] = []
    patches = 0
    for place, grid in enumerate(grids):
        if some and patches + grid.patches > most:
            yield some
            some, patches = [], 0
        some.append(place)
        patches += grid.patches
    yield some


def as_json(results: Sequence[Result], threads: int) -> str:
    shapes = [
        asdict(result) | {"ratio": result.ratio, "goal": GOAL, "met": result.ratio >= GOAL}
        for result in results
    ]
    report: dict[str, Any] = {"machine": machine_name(), "threads": threads, "shapes": shapes}
    return json.dumps(report, indent=2) + "\n"


def as_markdown(results: Sequence[Result], threads: int) -> str:
    lines = [
        f"{machine_name()}; {threads} threads; patches/s, the best of each (and the median).",
        "",
        "| shape | pictures | patches | packed | one by one | transformers | x transformers | goal"
        " | largest difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        rates = " | ".join(
            f"{rate.best:,.0f} ({rate.median:,.0f})"
            for rate in (each.packed, each.one_by_one, each.transformers)
        )
        met = "met" if each.ratio >= GOAL else "**missed**"
        lines.append(
            f"| {each.shape} | {each.pictures} | {each.patches:,} | {rates} | {each.ratio:.2f} |"
            f" ≥ {GOAL} {met} | {each.difference:.1e} |"
        )
    return "\n".join(lines) + "\n"


def _pixels(vision: VisionConfig, grids: Sequence[Grid]) -> Iterator[NDArray[np.float32]]:
    for seed, grid in zip(itertools.count(), grids):
        shape = (vision.channels, grid.rows * vision.patch_size, grid.columns * vision.patch_size)
        yield np.random.default_rng(seed).standard_normal(shape, np.float32)


def _patches(pixels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    channels, height, width = pixels.shape
    tiles = pixels.reshape(channels, height // side, side, width // side, side)
    count = height * width // side**2
    return np.ascontiguousarray(tiles.transpose(1, 3, 0, 2, 4)).reshape(count, -1)


def _timed(encode: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    features = encode()
    return time.perf_counter() - started, features
