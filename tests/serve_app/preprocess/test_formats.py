"""Which files are read at all, and the formats that an operator may allow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from mistral_common.tokens.tokenizers.image import _convert_to_rgb
from PIL import Image

from serve_app.config import ConfigError, parse_config
from serve_app.errors import InvalidRequest
from serve_app.preparing import Preprocess
from serve_app.preprocess.rules import Format, format_of, spelled
from serve_app.preprocess.turns import Turn
from serve_app.preprocess.wish import FIRST_FRAME, Frames, Wish
from shards.pixels import patches
from tests.serve_app.preprocess.pictures import encoded, noise
from tests.serve_app.preprocess.shared_workers import shared_workers

EVERY: tuple[Format, ...] = ("jpeg", "png", "webp", "gif", "tiff", "bmp", "heif", "avif")
ALL = Preprocess(workers=1, formats=EVERY)
DEFAULT = Preprocess(workers=1)


@pytest.fixture(scope="module", autouse=True)
def heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


async def seen(data: bytes, config: Preprocess = ALL, wish: Wish = FIRST_FRAME) -> list[np.ndarray]:
    """The patches of each picture, by a confined worker."""
    workers, turn = shared_workers(config), Turn("team", "request")
    sight = await workers.look(data, wish, "place", turn)
    cut = await workers.cut(data, wish, [1024] * len(sight.sizes), "place", turn, np.copy)
    return [each.patches for each in cut]


@pytest.mark.parametrize("form", EVERY)
async def test_each_format_is_told_by_its_bytes_and_read_where_it_is_allowed(form):
    data = encoded(noise(48, 32).resize((480, 320)), form.upper())
    assert format_of(data) == form
    [values] = await seen(data)
    expected = patches(_convert_to_rgb(Image.open(io.BytesIO(data))))[1]
    assert np.array_equal(values, expected)


@pytest.mark.parametrize("form", ["tiff", "bmp", "heif", "avif"])
async def test_what_is_not_allowed_is_not_opened(form):
    data = encoded(noise(48, 32), form.upper())
    with pytest.raises(InvalidRequest) as caught:
        await seen(data, DEFAULT)
    assert caught.value.message == "the picture is not a JPEG, PNG, WebP or GIF"
    assert caught.value.code == "unsupported_picture"


async def test_what_is_read_is_said_where_it_is_refused():
    with pytest.raises(InvalidRequest, match="is not a JPEG, PNG, WebP, GIF, TIFF, BMP, HEIF or A"):
        await seen(b"%!PS-Adobe-3.0 EPSF-3.0")
    assert spelled(("png",)) == "PNG"


async def test_pages_of_a_tiff_are_frames():
    pages = [noise(40, 30), noise(64, 16, 4).convert("RGB")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    found = await seen(data, wish=Frames(count=2))
    assert [values.shape for values in found] == [(6, 768), (4, 768)]
    assert np.array_equal(found[1], patches(pages[1])[1])


@pytest.mark.parametrize("brands", [b"avif", b"mif1\0\0\0\0miafavif", b"msf1\0\0\0\0msf1avis"])
def test_a_format_is_told_by_any_of_its_brands(brands):
    box = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands
    assert format_of(box) == "avif"
    assert format_of(box.replace(b"avi", b"hei").replace(b"heif", b"heic")) == "heif"


def test_a_first_box_that_never_ends_is_not_followed():
    assert format_of(b"\xff\xff\xff\xffftypabcd" + b"xxxx" * 100 + b"avif") is None


def test_other_boxes_are_no_pictures():
    assert format_of(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom") is None


def test_a_format_that_no_package_reads_is_told_when_the_config_is_read(monkeypatch):
    monkeypatch.setattr("serve_app.preparing.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"preprocess.formats: .*pip install"):
        parse_config({"model": {"path": "m"}, "preprocess": {"formats": ["jpeg", "heif"]}})
    with pytest.raises(ConfigError, match=r"preprocess\.formats\.0: "):
        parse_config({"model": {"path": "m"}, "preprocess": {"formats": ["svg"]}})


async def test_pictures_below_the_least_side_are_refused_if_there_is_one():
    strict = Preprocess(workers=1, min_picture_side=8)
    assert len(await seen(encoded(noise(8, 9), "PNG"), strict)) == 1
    with pytest.raises(InvalidRequest) as caught:
        await seen(encoded(noise(7, 900), "PNG"), strict)
    assert caught.value.message == "the picture is smaller than 8 pixels a side"
    assert caught.value.code == "picture_too_small"
