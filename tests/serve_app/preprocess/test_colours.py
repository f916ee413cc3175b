"""Colour profiles: what people see is what the model sees."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from mistral_common.tokens.tokenizers.image import _convert_to_rgb
from PIL import Image, ImageCms

from serve_app.preprocess.colours import in_srgb
from tests.serve_app.preprocess.pictures import encoded, noise

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def with_red_and_green_exchanged() -> bytes:
    """sRGB's profile with two of its primaries swapped, and another name."""
    profile = bytearray(
        SRGB.tobytes()
        .replace(b"sRGB", b"XYZW")
        .replace("sRGB".encode("utf-16-be"), "XYZW".encode("utf-16-be"))
    )
    (count,) = struct.unpack_from(">I", profile, 128)
    places = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


SWAPPED = with_red_and_green_exchanged()


def seen(image: Image.Image, form: str = "PNG", **options: object) -> Image.Image:
    loaded = Image.open(io.BytesIO(encoded(image, form, **options)))
    loaded.load()
    return in_srgb(loaded)


def test_a_profile_is_followed():
    shown = np.asarray(seen(Image.new("RGB", (4, 4), (255, 0, 0)), icc_profile=SWAPPED), int)
    assert np.abs(shown - (0, 255, 0)).max() <= 3


def test_the_profile_of_a_transparent_picture_is_followed_and_white_stays_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    shown = np.asarray(seen(image, icc_profile=SWAPPED), int)
    assert np.abs(shown[0] - ((0, 255, 0), (255, 255, 255))).max() <= 3


def test_the_profile_of_a_palette_is_followed():
    image = Image.new("RGB", (4, 4), (255, 0, 0)).quantize(4)
    shown = np.asarray(seen(image, icc_profile=SWAPPED), int)
    assert np.abs(shown - (0, 255, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
@pytest.mark.parametrize(
    "profile",
    [
        None,
        SRGB.tobytes(),
        b"no profile",
        SWAPPED[:200],
        SWAPPED[:300] + bytes(len(SWAPPED) - 300),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ],
    ids=["none", "sRGB", "nonsense", "cut", "emptied", "another-space"],
)
def test_without_a_profile_to_follow_pixels_are_mistral_commons(mode, profile):
    image = noise(channels=4).convert("RGBA")
    image = image.convert("RGB").quantize(16) if mode == "P" else image.convert(mode)
    data = encoded(image, "PNG", **({} if profile is None else {"icc_profile": profile}))
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    expected = _convert_to_rgb(Image.open(io.BytesIO(data)))
    assert in_srgb(loaded).tobytes() == expected.tobytes()


def test_a_profile_that_is_meant_for_other_pixels_is_ignored():
    grey = noise(channels=4).convert("L")
    assert seen(grey, icc_profile=SWAPPED).tobytes() == grey.convert("RGB").tobytes()
    ink = noise(channels=4).convert("RGB").convert("CMYK")
    data = encoded(ink, "JPEG", icc_profile=SWAPPED)
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    expected = _convert_to_rgb(Image.open(io.BytesIO(data)))
    assert in_srgb(loaded).tobytes() == expected.tobytes()
