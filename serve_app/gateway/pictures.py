"""Pictures out of data URLs. Only the wrapping is looked at here; decoding is preprocessing's."""

from __future__ import annotations

import binascii
import re

from serve_app.errors import InvalidRequest

MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")
_DATA_URL = re.compile(r"data:(?P<media>[\w.+-]*/?[\w.+-]*)(?:;[\w.+-]+=[\w.+-]*)*;base64,", re.I)
_SPELLINGS = {"image/jpg": "image/jpeg"}


def picture_bytes(url: str, param: str, max_bytes: int) -> bytes:
    """The encoded picture inside ``url``.

    Raises:
        InvalidRequest: not a base64 data URL of a type we read, or too large; ``param`` names it.
    """
    if url[:5].lower() == "http:" or url[:6].lower() == "https:":
        raise InvalidRequest(
            "picture addresses are not fetched; send the picture itself as a data: URL",
            param=param,
            code="unsupported_value",
        )
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
