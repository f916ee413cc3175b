"""The vision tier over the bundled model, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops import nano
from serve_app import vision as tier
from serve_app.config import parse_config
from serve_app.messages import EncodeRequest, Patches
from serve_app.vision import Vision
from shards.config import read_model_config
from shards.grid import Grid
from shards.request import Picture

GRID = Grid(2, 3)


class Ref:
    """An object in a store: how often it was fetched."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.fetched = 0

    def __await__(self) -> Generator[Any, None, np.ndarray]:
        self.fetched += 1
        yield from asyncio.sleep(0).__await__()
        return self.array


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.ensure(tmp_path_factory.mktemp("nano") / "model")


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier, "put_array", lambda array: array)
    # Asks Serve which replica this is.
    monkeypatch.setattr(tier, "observed", lambda config, name: None)


@pytest.fixture
def vision(model: Path) -> Vision:
    return Vision(parse_config({"model": {"path": str(model)}}))


def patches(model: Path, content: str) -> Patches:
    config = read_model_config(model).vision
    width = config.channels * config.patch_size**2
    values = np.random.default_rng(len(content)).random((GRID.patches, width), np.float32)
    return Patches(Picture(GRID, content), Ref(values))


async def test_a_second_turn_fetches_and_encodes_nothing(vision: Vision, model: Path) -> None:
    picture = patches(model, "one")
    (first,) = await vision.encode(EncodeRequest("a", (picture,), cache_salt="team"))
    (again,) = await vision.encode(EncodeRequest("b", (picture,), cache_salt="team"))
    assert picture.ref.fetched == 1
    np.testing.assert_array_equal(first.ref, again.ref)
    await vision.encode(EncodeRequest("c", (picture,), cache_salt="another team"))
    assert picture.ref.fetched == 2


async def test_nothing_is_kept_where_prefixes_are_not(model: Path) -> None:
    off = {"model": {"path": str(model)}, "decoder": {"prefix_cache": "off"}}
    vision, picture = Vision(parse_config(off)), patches(model, "one")
    for request_id in ("a", "b"):
        await vision.encode(EncodeRequest(request_id, (picture,), cache_salt="team"))
    assert picture.ref.fetched == 2


async def test_one_picture_many_times_in_one_request_is_encoded_once(vision, model) -> None:
    pictures = (patches(model, "one"), patches(model, "other"), patches(model, "one"))
    one, other, same = await vision.encode(EncodeRequest("a", pictures))
    np.testing.assert_array_equal(one.ref, same.ref)
    assert not np.array_equal(one.ref, other.ref)
    assert sum(each.ref.fetched for each in pictures) == 2
