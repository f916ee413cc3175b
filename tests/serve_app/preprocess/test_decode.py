"""Pictures as callers send them, whole and broken."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from mistral_common.tokens.tokenizers.image import _convert_to_rgb
from PIL import Image

from serve_app.errors import InvalidRequest
from serve_app.preparing import Preprocess
from serve_app.preprocess.decode import decoded_frames, look_at_frames
from serve_app.preprocess.wish import FIRST_FRAME
from tests.serve_app.preprocess.pictures import encoded, noise, png

LIMITS = Preprocess()
FORMATS = ["JPEG", "PNG", "WEBP", "GIF"]
PLACE = "messages[0].content[1]"
FIXED = {
    "the picture is damaged or incomplete",
    "the picture is not a JPEG, PNG, WebP or GIF",
    f"the picture has too many pixels; at most {LIMITS.max_picture_pixels} are read",
}


def decode(data: bytes, limits: Preprocess = LIMITS) -> Image.Image:
    rules = limits.rules
    sight = look_at_frames(data, FIRST_FRAME, rules, PLACE)
    image = next(decoded_frames(data, sight, rules, PLACE))
    assert image.size == sight.sizes[0]
    return image


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_lossless_pictures_come_back_as_they_were(form):
    image = noise()
    decoded = decode(encoded(image, form, lossless=True))
    assert decoded.mode == "RGB"
    assert decoded.tobytes() == image.tobytes()


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read_whatever_its_name(form):
    flat = Image.new("RGB", (40, 30), (200, 40, 40))
    decoded = decode(encoded(flat, form))
    assert (decoded.mode, decoded.size) == ("RGB", (40, 30))
    assert np.abs(np.asarray(decoded, int) - (200, 40, 40)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation):
    """Written as a camera held any way would, they all come back as what was seen."""
    undo = [
        (),
        (Image.Transpose.FLIP_LEFT_RIGHT,),
        (Image.Transpose.ROTATE_180,),
        (Image.Transpose.FLIP_TOP_BOTTOM,),
        (Image.Transpose.TRANSPOSE,),
        (Image.Transpose.ROTATE_90,),
        (Image.Transpose.TRANSVERSE,),
        (Image.Transpose.ROTATE_270,),
    ][orientation - 1]
    seen = noise()
    stored = seen.transpose(undo[0]) if undo else seen
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encoded(stored, "PNG", exif=exif)).tobytes() == seen.tobytes()
    assert decode(encoded(stored, "JPEG", exif=exif)).size == seen.size


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_metadata_does_not_cost_the_picture():
    image = noise()
    data = encoded(image, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert decode(data).tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1"])
def test_what_is_transparent_is_white_just_as_mistral_common_has_it(mode):
    image = noise(channels=4)
    if mode == "P":
        image = image.quantize(16)
    elif mode != "RGBA":
        image = image.convert(mode)
    data = encoded(image, "PNG")
    assert decode(data).tobytes() == _convert_to_rgb(Image.open(io.BytesIO(data))).tobytes()


def test_transparent_pixels_are_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    pixels = np.asarray(decode(encoded(image, "PNG")))
    assert pixels.tolist() == [[[255, 0, 0], [255, 255, 255]]]
    transparent = encoded(Image.new("P", (2, 1), 3), "GIF", transparency=3)
    assert np.asarray(decode(transparent)).tolist() == [[[255] * 3] * 2]


def test_a_colour_named_transparent_is_white():
    data = encoded(
        Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8)), "PNG", transparency=(1, 2, 3)
    )
    assert np.asarray(decode(data)).tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_sixteen_bits_are_scaled_not_clipped():
    grey = png(4, 1, 16, 0, b"\0" + struct.pack(">4H", 0, 300, 40_000, 65_535))
    assert np.asarray(decode(grey))[0, :, 0].tolist() == [0, 1, 156, 255]
    colour = png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 300, 40_000, 65_535))
    assert np.asarray(decode(colour)).tolist() == [[[1, 156, 255]]]


def test_print_colours_become_screen_colours():
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = decode(encoded(ink, "JPEG")).getpixel((4, 4))  # type: ignore[misc]  # mode RGB
    assert red > 240
    assert green < 20 > blue


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(form):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    red, green, blue = decode(data).getpixel((9, 9))  # type: ignore[misc]  # mode RGB
    assert red > 240
    assert green < 20 > blue


def refused(data: bytes, limits: Preprocess = LIMITS) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, limits)
    assert caught.value.param == PLACE
    assert "0x" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7 ",
        b"RIFF\0\0\0\0WAVE",
        encoded(noise(), "BMP"),
        encoded(noise(), "TIFF"),
        encoded(noise(), "PPM"),
    ],
)
def test_other_formats_are_refused(data):
    assert refused(data).code == "unsupported_picture"


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_that_is_cut_short_is_refused(form):
    data = encoded(noise(64, 64), form)
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
        cut = data[: max(12, int(len(data) * share))]
        assert refused(cut).code == "invalid_picture", share


@pytest.mark.parametrize("form", FORMATS)
def test_no_damage_raises_anything_but_a_refusal(form):
    rng = random.Random(form)
    data = encoded(noise(24, 24), form)
    messages = set()
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(6, len(damaged))] = rng.randrange(256)
        try:
            assert decode(bytes(damaged)).mode == "RGB"
        except InvalidRequest as error:
            messages.add(error.message)
    assert {"the picture is damaged or incomplete"} <= messages <= FIXED


def test_damaged_png_data_is_refused():
    data = bytearray(encoded(noise(), "PNG"))
    data[len(data) // 2] ^= 1
    assert refused(bytes(data)).code == "invalid_picture"


@pytest.mark.parametrize("form", FORMATS)
def test_the_limit_of_pixels_is_exact(form):
    data = encoded(noise(40, 30), form)
    assert decode(data, Preprocess(max_picture_pixels=1200)).size == (40, 30)
    error = refused(data, Preprocess(max_picture_pixels=1199))
    assert error.code == "picture_too_large"
    assert error.message == "the picture has too many pixels; at most 1199 are read"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 20_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side, monkeypatch):
    """Sizes below, at and far above where Pillow itself would warn or raise."""

    def never(*_):
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    bomb = png(side, side, 8, 2, bytes(64))
    assert refused(bomb).code == "picture_too_large"
    screen = struct.pack("<HH", side, side)
    assert refused(b"GIF89a" + screen + encoded(noise(), "GIF")[10:]).code == "picture_too_large"
