"""Which regular expressions an answer's strings can be bound to. Standard library only.

They are matched against a string as JSON writes it, between its quotes, and always whole. So what
JSON would have to escape cannot be matched, and what would mean something else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

CHARS_LIMIT = 256
REPEAT_LIMIT = 1000

_ESCAPES = frozenset("dws.-+*?()[]{}|^$/")
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_SPECIAL_GROUP = re.compile(r"(?<!\\)\(\?(?!:)")


def pattern_fault(pattern: Any) -> str | None:
    """Why strings cannot be bound to it, for who wrote it; None if they can."""
    if not isinstance(pattern, str) or not 0 < len(pattern) <= CHARS_LIMIT:
        return f"must be text of 1 to {CHARS_LIMIT} characters"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return "is no regular expression"
    for index, character, escaped in _characters(pattern):
        if escaped and character not in _ESCAPES:
            return f"the escape '\\{character}' is not supported"
        if not escaped and (character == '"' or not character.isprintable()):
            return "may hold neither quotes nor control characters"
        if not escaped and _anchors_within(pattern, index):
            return f"{character!r} is supported at the ends only"
    if _SPECIAL_GROUP.search(pattern):
        return "groups that begin with '(?' are not supported, but '(?:'"
    counts = (int(count) for pair in _REPEAT.findall(pattern) for count in pair if count)
    if max(counts, default=0) > REPEAT_LIMIT:
        return f"repeats more than {REPEAT_LIMIT} times"
    return None


def _anchors_within(pattern: str, index: int) -> bool:
    before, after = pattern[index - 1 : index], pattern[index + 1 : index + 2]
    if pattern[index] == "^":
        return before not in ("", "[", "(", "|")
    return pattern[index] == "$" and after not in ("", ")", "|")


def _characters(pattern: str) -> Iterator[tuple[int, str, bool]]:
    """(index, character, whether a backslash stands before it) of a regular expression."""
    index = 0
    while index < len(pattern):
        escaped = pattern[index] == "\\"
        index += escaped
        yield index, pattern[index], escaped
        index += 1
