"""Tokens and money, from the ledger itself, and how well the ledger is kept."""

from __future__ import annotations

from ops.dashboards import series
from ops.dashboards.board import (
    COUNT,
    DOLLARS,
    EVENTS_PER_SECOND,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    Board,
    Panel,
    Section,
    Variable,
    graph,
    number,
)
from ops.dashboards.promql import grown, quantile, share, summed, total, where, zero
from ops.dashboards.series import ACCOUNTS

_TEAM = {"organisation": "~$organisation", "team": "~$team"}
_MODEL = {**_TEAM, "model": "~$model"}
_BY_TEAM = "organisation, team"
_NANO_USD = where(series.LEDGER_NANO_USD, **_MODEL)
_TOKENS = where(series.LEDGER_TOKENS, **_MODEL)
_PAID = where(_NANO_USD, payer="team")


def accounting_board() -> Board:
    return Board(
        "pixtral-accounting",
        "Pixtral: accounting and cost",
        "At list price, read from the ledger. Prometheus counts in floating point: exact amounts"
        " are in `pixtral usage report`. Months are UTC.",
        (
            Variable("organisation", series.LEDGER_POSTED, "Organisation"),
            Variable("team", series.LEDGER_POSTED, "Team"),
            Variable("model", series.LEDGER_TOKENS, "Model"),
        ),
        (
            Section("This month", _now()),
            Section("Teams", _teams()),
            Section("Waste", _waste()),
            Section("The books", (*_holds(), *_audit())),
        ),
    )


def _dollars(name: str) -> str:
    return f"{summed(where(name, **_TEAM))} / 1e9"


def _now() -> tuple[Panel, ...]:
    paid_tokens = where(_TOKENS, payer="team")
    return (
        number(
            "Spent", "Posted this month, less refunds.", DOLLARS, _dollars(series.LEDGER_POSTED)
        ),
        number("Held", "Reserved for requests that run.", DOLLARS, _dollars(series.LEDGER_HELD)),
        number(
            "Earned per hour",
            "What teams pay at list price, by the last five minutes.",
            DOLLARS,
            f"{total(_PAID, window='5m')} * 3600 / 1e9",
        ),
        number(
            "Per million tokens",
            "List price of an average million of paid tokens, input and output.",
            DOLLARS,
            share(f"{summed(_PAID)} / 1e3", summed(paid_tokens)),
        ),
        number(
            "Waste in the last hour",
            "Share of the tokens that nobody pays for, rejected drafts left out.",
            SHARE,
            "pixtral_tokens_wasted:ratio_increase1h",
            "PixtralWasteHigh",
        ),
        number(
            "Budget of the worst off",
            "Share spent or held, of the team that is nearest to its end; 0 where none has one.",
            SHARE,
            f"max({_budget_share()}) or vector(0)",
            "PixtralBudgetNearlySpent",
        ),
    )


def _budget_share() -> str:
    posted, held, budget = (
        f"max by ({_BY_TEAM}) ({where(name, **_TEAM)})"
        for name in (series.LEDGER_POSTED, series.LEDGER_HELD, series.LEDGER_BUDGET)
    )
    return f"({posted} + {held}) / ({budget} > 0)"


def _teams() -> tuple[Panel, ...]:
    requests = where(series.LEDGER_REQUESTS, **_MODEL)
    return (
        graph(
            "Dollars per hour, by team",
            "At list price.",
            DOLLARS,
            (f"{total(_PAID, _BY_TEAM, '5m')} * 3600 / 1e9", "{{organisation}}/{{team}}"),
            stacked=True,
        ),
        graph(
            "Budget spent, by team",
            "Spent and held, of the month's budget; at 100 % its requests are refused.",
            SHARE,
            (zero(_budget_share()), "{{organisation}}/{{team}}"),
            alerts=("PixtralBudgetNearlySpent", "PixtralBudgetAlertLost"),
        ),
        graph(
            "Spent this month, by team",
            "Less refunds.",
            DOLLARS,
            (
                f"{summed(where(series.LEDGER_POSTED, **_TEAM), _BY_TEAM)} / 1e9",
                "{{organisation}}/{{team}}",
            ),
            stacked=True,
        ),
        graph(
            "Tokens by kind",
            "Booked per second, to whoever pays.",
            TOKENS_PER_SECOND,
            (total(_TOKENS, "kind"), "{{kind}}"),
            stacked=True,
        ),
        graph(
            "Dollars per hour, by kind of token",
            "Paid by teams, at list price.",
            DOLLARS,
            (f"{total(_PAID, 'kind', '5m')} * 3600 / 1e9", "{{kind}}"),
            stacked=True,
        ),
        graph(
            "Requests of this month, by outcome",
            "Those that run have none yet.",
            COUNT,
            (summed(requests, "outcome"), "{{outcome}}"),
            stacked=True,
        ),
    )


def _waste() -> tuple[Panel, ...]:
    wasted = where(_TOKENS, payer="waste")
    return (
        graph(
            "Tokens that nobody pays for",
            "Per second: computed and lost by a fault of ours, done again, or guessed ahead in vain"
            " (rejected_draft: no fault, but what prompt lookup costs).",
            TOKENS_PER_SECOND,
            (zero(total(wasted, "kind")), "{{kind}}"),
            alerts=("PixtralWasteHigh",),
        ),
        graph(
            "Their list price",
            "Dollars per hour that the platform bears.",
            DOLLARS,
            (
                zero(f"{total(where(_NANO_USD, payer='waste'), 'model', '5m')} * 3600 / 1e9"),
                "{{model}}",
            ),
            alerts=("PixtralWasteHigh",),
        ),
        graph(
            "Budget alerts",
            "Not delivered yet, and given up.",
            COUNT,
            (f"max({series.LEDGER_ALERTS_DUE})", "to be delivered"),
            (f"max({series.LEDGER_ALERTS})", "given up"),
            alerts=("PixtralBudgetAlertLost",),
        ),
    )


def _holds() -> tuple[Panel, ...]:
    return (
        graph(
            "Holds",
            "Open belong to requests that run; expired to gateways that are gone.",
            COUNT,
            (f"max({series.LEDGER_OPEN})", "open"),
            (f"max({series.LEDGER_EXPIRED})", "expired"),
            (f"max({series.LEDGER_UNAUDITED})", "not audited yet"),
            alerts=("PixtralLedgerHoldsStuck", "PixtralLedgerUnreadable"),
        ),
        graph(
            "Oldest",
            "Age of the oldest request that runs, and of the oldest that waits for its audit.",
            SECONDS,
            (f"max({series.LEDGER_OLDEST_OPEN})", "running"),
            (f"max({series.LEDGER_OLDEST_UNAUDITED})", "not audited"),
            alerts=("PixtralLedgerUnaudited",),
        ),
        graph(
            "Transactions",
            "Of holds and settlements per second; those that failed refuse their requests.",
            EVENTS_PER_SECOND,
            (total(ACCOUNTS.commits), "committed"),
            (total(ACCOUNTS.commit_failures), "failed"),
            (total(ACCOUNTS.written), "holds, settlements and renewals in them"),
            alerts=("PixtralLedgerCommitFailures",),
        ),
        graph(
            "One transaction",
            "Its commit.",
            SECONDS,
            *_quantiles(ACCOUNTS.commit_seconds),
        ),
        graph(
            "Wait for a hold",
            "Before any GPU works for a request.",
            SECONDS,
            *_quantiles(ACCOUNTS.hold_seconds),
        ),
        graph(
            "Waiting for a hold",
            "Requests, now.",
            COUNT,
            (f"sum({ACCOUNTS.waiting_holds})", "waiting"),
            alerts=("PixtralLedgerCommitFailures",),
        ),
    )


def _audit() -> tuple[Panel, ...]:
    return (
        graph(
            "Audits",
            "Requests compared with the engine's journal, per hour.",
            COUNT,
            (grown(ACCOUNTS.audited, "1h"), "compared"),
            (grown(ACCOUNTS.alarms, "1h"), "differ"),
            (grown(ACCOUNTS.unproven, "1h"), "without the engine's count"),
            (grown(ACCOUNTS.strangers, "1h"), "without a hold"),
            alerts=("PixtralAuditAlarm", "PixtralAuditUnproven", "PixtralUnmeteredTokens"),
        ),
        graph(
            "Recovered",
            "Requests of dead gateways that another ended, per hour, and those it could not.",
            COUNT,
            (grown(ACCOUNTS.recovered, "1h"), "recovered"),
            (grown(ACCOUNTS.sweep_failures, "1h"), "not handled"),
            (grown(ACCOUNTS.journal_lost, "1h"), "bytes of journals lost"),
            alerts=("PixtralLedgerHoldsStuck",),
        ),
        graph(
            "Since the last sweep",
            "Of any gateway.",
            SECONDS,
            (f"time() - max({ACCOUNTS.swept_at})", "since"),
            alerts=("PixtralSweeperStalled",),
        ),
    )


def _quantiles(name: str) -> tuple[tuple[str, str], ...]:
    return tuple((quantile(of, name, window="5m"), f"p{of * 100:g}") for of in (0.5, 0.95, 0.99))
