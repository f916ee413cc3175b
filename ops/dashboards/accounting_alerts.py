"""Alerts on money: what is held, booked, audited and promised."""

from __future__ import annotations

from ops.dashboards import series
from ops.dashboards.alert import Alert, beyond
from ops.dashboards.objectives import Objectives
from ops.dashboards.promql import grown
from ops.dashboards.series import ACCOUNTS


def accounting_alerts(objectives: Objectives) -> tuple[Alert, ...]:
    return (*_ledger(), *_audit(), *_teams(objectives))


def _ledger() -> tuple[Alert, ...]:
    readable = f"count({series.LEDGER_OPEN}) or vector(0)"
    expired = f"max({series.LEDGER_EXPIRED})"
    failed = grown(ACCOUNTS.commit_failures, "5m")
    return (
        Alert(
            "PixtralLedgerUnreadable",
            "page",
            "accounting",
            "The gateway's /metrics does not tell the state of the ledger",
            "Either its database does not answer, and then requests are refused, or the gateway is"
            " not scraped, and then no alert on money can fire.",
            *beyond(readable, "< 1"),
            wait="5m",
        ),
        Alert(
            "PixtralLedgerCommitFailures",
            "page",
            "accounting",
            "The ledger's database refuses transactions",
            "{{ $value | humanize }} transactions in five minutes were not taken; the requests that"
            " wait for them are refused.",
            *beyond(failed, "> 0"),
            wait="1m",
        ),
        Alert(
            "PixtralLedgerHoldsStuck",
            "ticket",
            "accounting",
            "Money is held for requests that nobody runs",
            "{{ $value }} holds belong to gateways that are gone, and the sweeper has not ended"
            " them in ten minutes: teams cannot spend what is held.",
            *beyond(expired, "> 0"),
            wait="10m",
        ),
        Alert(
            "PixtralSweeperStalled",
            "ticket",
            "accounting",
            "No gateway sweeps the ledger",
            "The last round was {{ $value | humanizeDuration }} ago: holds of dead gateways stay,"
            " and nothing is audited.",
            *beyond(f"time() - max({ACCOUNTS.swept_at})", "> 120"),
            wait="1m",
        ),
    )


def _audit() -> tuple[Alert, ...]:
    alarms = grown(ACCOUNTS.alarms, "1h")
    unproven = grown(ACCOUNTS.unproven, "1h")
    oldest = f"max({series.LEDGER_OLDEST_UNAUDITED})"
    return (
        Alert(
            "PixtralAuditAlarm",
            "page",
            "accounting",
            "The ledger charged other than what the engine computed",
            "{{ $value | humanize }} requests of the last hour differ from the engine's journal.",
            *beyond(alarms, "> 0"),
        ),
        Alert(
            "PixtralAuditUnproven",
            "ticket",
            "accounting",
            "Charges are without the engine's proof",
            "{{ $value | humanize }} requests of the last hour were charged and no count of the"
            " engine ever came: its journal went with its machine.",
            *beyond(unproven, "> 0"),
        ),
        Alert(
            "PixtralLedgerUnaudited",
            "ticket",
            "accounting",
            "Requests wait for their audit for too long",
            "The oldest ended {{ $value | humanizeDuration }} ago. Audits wait for the journal of a"
            " node that is away, at most accounting.audit_patience_s.",
            *beyond(oldest, "> 900"),
            wait="5m",
        ),
    )


def _teams(objectives: Objectives) -> tuple[Alert, ...]:
    team = "by (organisation, team)"
    spent = (
        f"(max {team} ({series.LEDGER_POSTED}) + max {team} ({series.LEDGER_HELD}))"
        f" / (max {team} ({series.LEDGER_BUDGET}) > 0)"
    )
    most = f"max(max_over_time({series.LEDGER_ALERTS}[1d]))"
    least = f"max(min_over_time({series.LEDGER_ALERTS}[1d]))"
    return (
        Alert(
            "PixtralWasteHigh",
            "ticket",
            "accounting",
            "The platform pays for too much",
            f"{{{{ $value | humanizePercentage }}}} of the tokens of the last hour are paid by"
            f" nobody, as faults of ours made them; {objectives.waste:.0%} is the most that"
            " should be.",
            *beyond("pixtral_tokens_wasted:ratio_increase1h", f"> {objectives.waste:g}"),
            wait="10m",
        ),
        Alert(
            "PixtralBudgetNearlySpent",
            "ticket",
            "accounting",
            "Team {{ $labels.team }} has nearly spent its budget",
            "{{ $value | humanizePercentage }} of the month's budget is spent or held; at 100 % its"
            " requests are refused with 429.",
            *beyond(spent, f"> {objectives.budget:g}"),
        ),
        Alert(
            "PixtralBudgetAlertLost",
            "ticket",
            "accounting",
            "A budget alert reached nobody",
            "{{ $value }} in the last day: a team's webhook never took them.",
            f"({most}) - ({least}) > 0",
            (most, least),
        ),
    )
