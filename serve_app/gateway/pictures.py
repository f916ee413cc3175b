"""Pictures out of data URLs, and addresses of pictures. Only the wrapping is looked at here;
decoding and fetching are preprocessing's."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource
from serve_app.preprocess.picture_urls import NOTHING_ALLOWED, UrlPolicy

MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")
_DATA_URL = re.compile(r"data:(?P<media>[\w.+-]*/?[\w.+-]*)(?:;[\w.+-]+=[\w.+-]*)*;base64,", re.I)
_ADDRESS = re.compile(r"https?:", re.I)
_SPELLINGS = {"image/jpg": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class PictureRules:
    """What is taken: ``max_bytes`` of a picture that is sent along, and which addresses."""

    max_bytes: int
    addresses: UrlPolicy = NOTHING_ALLOWED


def picture_source(url: str, param: str, rules: PictureRules) -> PictureSource:
    """The picture that ``url`` holds, or its address if it may be fetched.

    Raises:
        InvalidRequest: neither; ``param`` names it.
    """
    if _ADDRESS.match(url):
        rules.addresses.check(url, param)
        return PictureSource(b"", param, url)
    return PictureSource(picture_bytes(url, param, rules.max_bytes), param)


def picture_bytes(url: str, param: str, max_bytes: int) -> bytes:
    """The encoded picture inside ``url``.

    Raises:
        InvalidRequest: not a base64 data URL of a type we read, or too large; ``param`` names it.
    """
    head = _DATA_URL.match(url)
    if head is None:
        raise InvalidRequest(
            "a picture must be a data URL such as 'data:image/png;base64,…'", param=param
        )
    media = head["media"].lower()
    if _SPELLINGS.get(media, media) not in MEDIA_TYPES:
        raise InvalidRequest(
            f"pictures may be {', '.join(MEDIA_TYPES)}, not '{media[:40]}'",
            param=param,
            code="unsupported_value",
        )
    encoded = url[head.end() :]
    too_large = InvalidRequest(
        f"the picture is larger than {max_bytes} bytes", param=param, code="picture_too_large"
    )
    if len(encoded) // 4 * 3 > max_bytes + 2:  # at most two bytes of that are padding
        raise too_large
    try:
        picture = binascii.a2b_base64(encoded, strict_mode=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("the picture is not valid base64", param=param) from None
    if len(picture) > max_bytes:
        raise too_large
    if not picture:
        raise InvalidRequest("the picture is empty", param=param)
    return picture
