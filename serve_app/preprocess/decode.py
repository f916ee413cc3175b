"""From a picture's encoded bytes to RGB pixels, refusing what is no sound picture.

Bytes are a caller's and may be hostile: type and size are known before a pixel is decoded, and
every refusal is a fixed sentence, for Pillow's own name heap addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import ExifTags, Image

from serve_app.config import Preprocess
from serve_app.errors import InvalidRequest
from serve_app.preprocess.frames import frame_indices
from serve_app.preprocess.wish import FIRST_FRAME, Frames, Sight
from shards.pixels import upright_rgb

# Orientations of EXIF that lay a picture on its side.
_SIDEWAYS = range(5, 9)
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)


def look_at_frames(data: bytes, frames: Frames, limits: Preprocess, param: str) -> Sight:
    """The upright sizes of the frames asked for, from the file's headers.

    Raises:
        InvalidRequest: another format, too many bytes or pixels, or a frame that is not there.
    """
    with _opened(data, limits, param) as image:
        total = 1 if frames == FIRST_FRAME else getattr(image, "n_frames", 1)
        indices = frame_indices(frames, total, param)
        sizes = []
        for index in indices:
            _seek(image, index, limits, param)
            sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in _SIDEWAYS
            sizes.append((image.height, image.width) if sideways else image.size)
        return Sight(tuple(sizes), indices, total)


def decoded_frames(
    data: bytes, sight: Sight, limits: Preprocess, param: str
) -> Iterator[Image.Image]:
    """Each of them upright in mode RGB; what is transparent is white.

    Raises:
        InvalidRequest: as above, or not a whole picture.
    """
    with _opened(data, limits, param) as image:
        for index in sight.numbers:
            _seek(image, index, limits, param)
            image.load()
            yield upright_rgb(image)


def decode_picture(data: bytes, limits: Preprocess, param: str) -> Image.Image:
    """The picture upright in mode RGB; of an animation the first frame."""
    return next(
        decoded_frames(data, look_at_frames(data, FIRST_FRAME, limits, param), limits, param)
    )


@contextmanager
def _opened(data: bytes, limits: Preprocess, param: str) -> Iterator[Image.Image]:
    """Whatever decoders raise while the file is open is a refusal, out of memory excepted."""
    if len(data) > limits.max_picture_bytes:
        raise _too_large(f"bytes; at most {limits.max_picture_bytes} are read", param)
    form = _format(data)
    if form is None:
        raise InvalidRequest(
            "the picture is not a JPEG, PNG, WebP or GIF", param=param, code="unsupported_picture"
        )
    try:
        with Image.open(BytesIO(data), formats=[form]) as image:
            yield image
    except (InvalidRequest, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise _too_many(limits, param) from None
    except Exception as error:  # hostile bytes make decoders raise anything
        raise _broken(param) from error


def _seek(image: Image.Image, index: int, limits: Preprocess, param: str) -> None:
    if index or getattr(image, "is_animated", False):
        image.seek(index)
    # Pillow warns at half its own limit; ours is exact, and holds before anything is decoded.
    if image.width * image.height > limits.max_picture_pixels:
        raise _too_many(limits, param)


def _too_many(limits: Preprocess, param: str) -> InvalidRequest:
    return _too_large(f"pixels; at most {limits.max_picture_pixels} are read", param)


def _format(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((form for magic, form in _MAGIC if data.startswith(magic)), None)


def _too_large(what: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"the picture has too many {what}", param=param, code="picture_too_large")


def _broken(param: str) -> InvalidRequest:
    return InvalidRequest(
        "the picture is damaged or incomplete", param=param, code="invalid_picture"
    )
