"""Recording rules: what alerts and panels would otherwise compute over many hours, each time.

Names are ``level:metric:operation``, as Prometheus advises.
"""

from __future__ import annotations

from dataclasses import dataclass

from ops.dashboards.objectives import OBJECTIVES, Objectives
from ops.dashboards.promql import grown, share, total, where
from ops.dashboards.series import GATEWAY, LEDGER_TOKENS

# Of multi-window burn alerts (Google's SRE workbook, chapter 5).
WINDOWS = ("5m", "30m", "1h", "6h")
CHAT = where(GATEWAY.requests, route="chat")
FAULTS = where(GATEWAY.requests, route="chat", status="~5..")


@dataclass(frozen=True, slots=True)
class Recording:
    record: str
    expression: str


def faults_ratio(window: str) -> str:
    return f"model:pixtral_requests_faults:ratio_rate{window}"


def slow_ratio(window: str) -> str:
    return f"model:pixtral_first_token_slow:ratio_rate{window}"


def recordings(objectives: Objectives = OBJECTIVES) -> tuple[Recording, ...]:
    return (
        *(Recording(faults_ratio(window), _faults(window)) for window in WINDOWS),
        *(Recording(slow_ratio(window), _slow(window, objectives)) for window in WINDOWS),
        Recording("model:pixtral_requests:increase1h", grown(CHAT, "1h", "model")),
        Recording("pixtral_tokens_wasted:ratio_increase1h", WASTED),
    )


# Rejected drafts nobody pays for either, but they are what quicker answers cost and no fault.
_NO_GAMBLE = where(LEDGER_TOKENS, kind="!rejected_draft")
WASTED = share(grown(where(_NO_GAMBLE, payer="waste"), "1h"), grown(_NO_GAMBLE, "1h"))


def _faults(window: str) -> str:
    all_ = total(CHAT, "model", window)
    return f"({total(FAULTS, 'model', window)} or {all_} * 0) / ({all_} > 0)"


def _slow(window: str, objectives: Objectives) -> str:
    name = GATEWAY.time_to_first_token
    in_time = total(where(f"{name}_bucket", le=str(objectives.first_token_s)), "model", window)
    return f"1 - {in_time} / ({total(f'{name}_count', 'model', window)} > 0)"
