"""Bytes out of ``data:`` URLs. What they are is not looked at here."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from serve_app.errors import InvalidRequest

_DATA_URL = re.compile(r"data:(?P<media>[\w.+-]*/?[\w.+-]*)(?:;[\w.+-]+=[\w.+-]*)*;base64,", re.I)
_SPELLINGS = {"image/jpg": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Carried:
    """What such a URL may hold: ``noun`` is its name to callers."""

    noun: str
    media_types: tuple[str, ...]

    def bytes_of(self, url: str, param: str, max_bytes: int) -> bytes:
        """What ``url`` holds.

        Raises:
            InvalidRequest: no base64 data URL of such a type, or too large; ``param`` names it.
        """
        head = _DATA_URL.match(url)
        if head is None:
            raise InvalidRequest(
                f"a {self.noun} must be a data URL such as 'data:{self.media_types[0]};base64,…'",
                param=param,
            )
        media = head["media"].lower()
        if _SPELLINGS.get(media, media) not in self.media_types:
            raise InvalidRequest(
                f"{self.noun}s may be {', '.join(self.media_types)}, not '{media[:40]}'",
                param=param,
                code="unsupported_value",
            )
        encoded = url[head.end() :]
        too_large = InvalidRequest(
            f"the {self.noun} is larger than {max_bytes} bytes",
            param=param,
            code=f"{self.noun}_too_large",
        )
        if len(encoded) // 4 * 3 > max_bytes + 2:  # at most two bytes of that are padding
            raise too_large
        try:
            data = binascii.a2b_base64(encoded, strict_mode=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"the {self.noun} is not valid base64", param=param) from None
        if len(data) > max_bytes:
            raise too_large
        if not data:
            raise InvalidRequest(f"the {self.noun} is empty", param=param)
        return data
