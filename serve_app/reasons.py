"""Why something is not well, in one plain line for whoever meets this system for the first time.

Anybody may ask /readyz, so its reasons are fixed sentences: Ray's own would describe the machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

DATABASE = "the accounts' database does not answer; no request is begun until it does"
NO_GROUP = "no decoder group is running; one that starts must load the model's weights first"
GROUP_LOST = "a decoder group was lost; Serve is starting another"
# What the tail of a Python traceback looks like: an exception's type, then its text.
_RAISED = re.compile(r"^(?:ray\.exceptions\.\w+\(\w+\): |[\w.]+\.)?([A-Z]\w*): (.+)$")


class Alive(Protocol):
    """Of a decoder group's pulse, what matters here."""

    group: str
    token_age_s: float
    token_timeout_s: float


def group_reasons(pulses: Sequence[Alive | BaseException]) -> list[str]:
    """``pulses``: what each decoder group says, or how asking it failed."""
    reasons = []
    for pulse in pulses:
        if isinstance(pulse, BaseException):
            reasons.append(GROUP_LOST)
        elif pulse.token_age_s > pulse.token_timeout_s:
            reasons.append(
                f"decoder group {pulse.group} has generated no token for "
                f"{pulse.token_age_s:.0f} s; {pulse.token_timeout_s:.0f} s is the most it should "
                "take"
            )
    return reasons if pulses else [NO_GROUP]


def tier_reasons(tier: str, answers: Sequence[object], *, may_sleep: bool) -> list[str]:
    """``may_sleep``: the tier runs only while it is needed."""
    if any(not isinstance(answer, BaseException) for answer in answers):
        return []
    if not answers and may_sleep:
        return []
    return [f"the {tier} tier does not answer; Serve is starting it"]


def plain(message: str) -> str:
    """What Serve says of a tier, without the stack: the innermost error's text, if there is one."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return message.strip()
    for line in reversed(lines):
        if raised := _RAISED.match(line):
            return raised[2]
    return lines[0]
