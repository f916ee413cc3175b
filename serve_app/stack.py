"""What a log may say of an error: its type and where it arose, never its message, which may quote
a prompt."""

from __future__ import annotations

import traceback


def stack_of(error: BaseException) -> str:
    """Type and stack of ``error`` and of what caused it, newest first."""
    lines: list[str] = []
    cause: BaseException | None = error
    seen: set[int] = set()
    # An error that crossed processes may have been unwrapped out of its own cause: a circle.
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        lines += [type(cause).__qualname__ + "\n", *traceback.format_tb(cause.__traceback__)]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "".join(lines)
