"""From a picture's encoded bytes to RGB pixels, refusing what is no sound picture.

Bytes are a caller's and may be hostile, so this runs in sandboxed workers only. Type and size are
known before a pixel is decoded, and every refusal is a fixed sentence, for Pillow's own name heap
addresses. A JPEG is never decoded at a smaller scale, which would be quicker and not exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO

from PIL import ExifTags, Image

from serve_app.errors import InvalidRequest
from serve_app.preprocess.colours import in_srgb
from serve_app.preprocess.frames import frame_indices
from serve_app.preprocess.rules import DecodeRules, format_of, spelled
from serve_app.preprocess.wish import FIRST_FRAME, Frames, Sight

Size = tuple[int, int]
# Orientations of EXIF that lay a picture on its side.
_ON_ITS_SIDE = range(5, 9)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def look_at_frames(data: bytes, frames: Frames, rules: DecodeRules, param: str) -> Sight:
    """The upright sizes of the frames asked for, by their headers.

    Frames are counted only where more than the first is asked for: that reads the whole file.

    Raises:
        InvalidRequest: another format, too many pixels or frames, too small, or not readable.
    """
    with _opened(data, rules, param) as image:
        total = 1 if frames == FIRST_FRAME else getattr(image, "n_frames", 1)
        indices = frame_indices(frames, total, param)
        if len(indices) > rules.max_frames:
            raise InvalidRequest(
                f"{len(indices)} frames are asked for; a picture may show {rules.max_frames}",
                param=param,
                code="too_many_frames",
            )
        sizes = []
        for index in indices:
            _seek(image, index)
            _check_size(image, rules, param)
            width, height = image.size
            sizes.append(
                (height, width) if _orientation(image) in _ON_ITS_SIDE else (width, height)
            )
        return Sight(tuple(sizes), indices, total)


def decoded_frames(
    data: bytes, sight: Sight, rules: DecodeRules, param: str
) -> Iterator[Image.Image]:
    """Each frame of ``sight`` upright in mode RGB, in sRGB; what is transparent is white.

    Raises:
        InvalidRequest: as above, or a frame is damaged or incomplete.
    """
    with _opened(data, rules, param) as image:
        for index in sight.numbers:
            _seek(image, index)
            _check_size(image, rules, param)
            orientation = _orientation(image)
            image.load()
            frame = in_srgb(image)
            if orientation in _UPRIGHT:
                frame = frame.transpose(_UPRIGHT[orientation])
            yield frame


@contextmanager
def _opened(data: bytes, rules: DecodeRules, param: str) -> Iterator[Image.Image]:
    """Whatever decoders raise while the file is open is a refusal, out of memory excepted."""
    form = format_of(data)
    if form not in rules.formats:
        raise InvalidRequest(
            f"the picture is not a {spelled(rules.formats)}",
            param=param,
            code="unsupported_picture",
        )
    try:
        with Image.open(BytesIO(data), formats=[form]) as image:
            yield image
    except (InvalidRequest, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise _too_many_pixels(rules, param) from None
    except Exception as error:  # hostile bytes make decoders raise anything
        raise InvalidRequest(
            "the picture is damaged or incomplete", param=param, code="invalid_picture"
        ) from error


def _seek(image: Image.Image, index: int) -> None:
    if index or getattr(image, "is_animated", False):
        image.seek(index)


def _check_size(image: Image.Image, rules: DecodeRules, param: str) -> None:
    if image.width * image.height > rules.max_pixels:
        raise _too_many_pixels(rules, param)
    if min(image.size) < rules.min_side:
        raise InvalidRequest(
            f"the picture is smaller than {rules.min_side} pixels a side",
            param=param,
            code="picture_too_small",
        )


def _orientation(image: Image.Image) -> int:
    """As EXIF has it; metadata behind a PNG's pixels, and what cannot be read, does not count."""
    with suppress(Exception):
        # A PNG's own would decode its pixels to look behind them.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    return 1


def _too_many_pixels(rules: DecodeRules, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"the picture has too many pixels; at most {rules.max_pixels} are read",
        param=param,
        code="picture_too_large",
    )
