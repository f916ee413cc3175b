"""From a picture's encoded bytes to RGB pixels, refusing what is no sound picture.

Bytes are a caller's and may be hostile: type and size are known before a pixel is decoded, and
every refusal is a fixed sentence, for Pillow's own name heap addresses.
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from serve_app.config import Preprocess
from serve_app.errors import InvalidRequest
from shards.pixels import upright_rgb

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)


def decode_picture(data: bytes, limits: Preprocess, param: str) -> Image.Image:
    """The picture upright in mode RGB; what is transparent is white, of an animation the first.

    Args:
        data: JPEG, PNG, WebP or GIF, told by their first bytes and nothing else.
        param: the field that holds the picture, as the caller spells it.

    Raises:
        InvalidRequest: too many bytes or pixels, another format, or not a whole picture.
    """
    if len(data) > limits.max_picture_bytes:
        raise _too_large(f"bytes; at most {limits.max_picture_bytes} are read", param)
    form = _format(data)
    if form is None:
        raise InvalidRequest(
            "the picture is not a JPEG, PNG, WebP or GIF", param=param, code="unsupported_picture"
        )
    # Pillow warns at half its own limit; ours is exact, and holds before anything is decoded.
    too_many = f"pixels; at most {limits.max_picture_pixels} are read"
    try:
        image = Image.open(BytesIO(data), formats=[form])
    except Image.DecompressionBombError:
        raise _too_large(too_many, param) from None
    except Exception as error:  # hostile bytes make decoders raise anything
        raise _broken(param) from error
    if image.width * image.height > limits.max_picture_pixels:
        raise _too_large(too_many, param)
    try:
        image.load()
        return upright_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(param) from error


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
