"""What the accounts tell their meter, as Ray's metrics."""

from __future__ import annotations

import time

from serve_app.accounting.hold import Outcome
from serve_app.accounting.sweeper import SweepReport
from serve_app.telemetry import AccountsMetrics, GatewayMetrics


class RayMeter:
    """See ``accounting/meter.py``."""

    def __init__(self, accounts: AccountsMetrics, gateway: GatewayMetrics) -> None:
        self._accounts = accounts
        self._gateway = gateway

    def committed(self, jobs: int, seconds: float) -> None:
        self._accounts.commits.inc()
        self._accounts.written.inc(jobs)
        self._accounts.commit_seconds.observe(seconds)

    def not_committed(self) -> None:
        self._accounts.commit_failures.inc()

    def waiting(self, holds: int) -> None:
        self._accounts.waiting_holds.set(holds)

    def held(self, request_id: str, seconds: float, *, granted: bool) -> None:
        del request_id, granted
        self._accounts.hold_seconds.observe(seconds)

    def settled(self, request_id: str, outcome: Outcome, seconds: float) -> None:
        del request_id, seconds
        self._gateway.outcomes.inc(outcome=outcome.value)

    def left_to_sweeper(self, request_id: str) -> None:
        del request_id
        self._gateway.outcomes.inc(outcome="unsettled")

    def swept(self, report: SweepReport) -> None:
        accounts, audit, intake = self._accounts, report.audit, report.intake
        accounts.sweeps.inc()
        accounts.swept_at.set(time.time())
        accounts.audited.inc(audit.audited)
        accounts.alarms.inc(audit.alarms)
        accounts.unproven.inc(audit.unproven)
        accounts.recovered.inc(report.recovered)
        accounts.sweep_failures.inc(report.failed)
        accounts.strangers.inc(intake.strangers)
        accounts.journal_lost.inc(intake.lost)
