"""The calls an assistant makes, read from the text it writes after [TOOL_CALLS]. Standard library.

[{"name": "weather", "arguments": {"city": "Paris"}, "id": "a1B2c3D4e"}]
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from typing import Any

from shards.conversation import ToolCall

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


def parse_tool_calls(text: str, seed: str) -> tuple[ToolCall, ...] | None:
    """The calls in ``text``; None if it is no JSON list of calls, to be shown as text instead.

    Args:
        seed: names the answer (request id and choice). A call without a usable id of its own gets
            one that follows from it and the call's place, so that a replay gives the same.

    ``arguments`` are JSON text in the calls, whether written as an object or as text.
    """
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(items, list) or not items:
        return None
    calls: list[ToolCall] = []
    for place, item in enumerate(items):
        match item:
            case {"name": str(name), "arguments": dict() | str() as arguments} if name:
                own = item.get("id")
                taken = {call.id for call in calls}
                usable = isinstance(own, str) and is_tool_call_id(own) and own not in taken
                call_id = own if usable else tool_call_id(f"{seed}:{place}")
                calls.append(ToolCall(call_id, name, _json_text(arguments)))
            case _:
                return None
    try:
        "".join(call.name + call.arguments for call in calls).encode()
    except UnicodeEncodeError:  # "\ud83d" alone: JSON can say it, no answer can carry it
        return None
    return tuple(calls)


def _json_text(arguments: dict[str, Any] | str) -> str:
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)
