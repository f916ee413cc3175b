"""Ids of tool calls, as the model knows them. Standard library only."""

from __future__ import annotations

import hashlib
import re
import string

_ALPHABET = string.digits + string.ascii_letters
_ID = re.compile(r"[a-zA-Z0-9]{9}")


def is_tool_call_id(text: str) -> bool:
    """Whether the model can be told this id: exactly 9 ASCII letters or digits."""
    return _ID.fullmatch(text) is not None


def tool_call_id(seed: str) -> str:
    """9 letters or digits that follow from ``seed`` alone."""
    number = int.from_bytes(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest())
    letters = []
    for _ in range(9):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)
