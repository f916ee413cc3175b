"""``x-ratelimit-*``: how much of its limits a caller has left, in OpenAI's spelling."""

from __future__ import annotations

import math
from collections.abc import Mapping

from serve_app.accounting.hold import Allowance


def rate_headers(requests: Allowance | None, tokens: Allowance | None) -> dict[str, str]:
    """Nothing is said of what has no limit."""
    allowances: Mapping[str, Allowance | None] = {"requests": requests, "tokens": tokens}
    headers = {}
    for name, allowance in allowances.items():
        if allowance is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(allowance.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(allowance.remaining)
            headers[f"x-ratelimit-reset-{name}"] = duration(allowance.reset_s)
    return headers


def duration(seconds: float) -> str:
    """Rounded up to whole seconds.

    >>> duration(0), duration(0.2), duration(59), duration(360), duration(3_600)
    ('0s', '1s', '59s', '6m0s', '1h0m0s')
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
