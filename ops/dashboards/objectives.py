"""What the operator promises, in one place: change it here and generate again.

These are starting points, not measurements: what four A100 keep is not known before they ran.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Objectives:
    """Over 30 days.

    Attributes:
        availability: share of chat requests that no fault of ours ends (no 5xx).
        first_token_s: how soon an answer should begin; a bucket boundary of its histogram.
        first_token_share: share of answers that begin in time.
        waste: most of all tokens that nobody pays for, as our faults do.
        budget: share of a team's budget at which somebody should know.
    """

    availability: float = 0.999
    first_token_s: float = 5.0
    first_token_share: float = 0.95
    waste: float = 0.05
    budget: float = 0.9


OBJECTIVES = Objectives()
