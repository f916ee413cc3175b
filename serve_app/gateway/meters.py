"""What the accounts tell their meter, as Ray's metrics."""

from __future__ import annotations

import time

from serve_app.accounting.hold import Outcome
from serve_app.accounting.sweeper import SweepReport
from serve_app.telemetry import AccountsMetrics, GatewayMetrics
from serve_app.tracing import Tracing, Value


class RayMeter:
    """See ``accounting/meter.py``."""

    def __init__(
        self, accounts: AccountsMetrics, gateway: GatewayMetrics, tracing: Tracing | None = None
    ) -> None:
        self._tracing = tracing
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
        self._accounts.hold_seconds.observe(seconds)
        self._trace("hold", request_id, seconds, granted=granted)

    def settled(self, request_id: str, outcome: Outcome, seconds: float) -> None:
        self._gateway.outcomes.inc(outcome=outcome.value)
        self._trace("settle", request_id, seconds, outcome=outcome.value)

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

    def _trace(self, name: str, request_id: str, seconds: float, **attributes: Value) -> None:
        if self._tracing is None:
            return
        self._tracing.record(
            name,
            self._tracing.parent_of(request_id),
            {"request_id": request_id, **attributes},
            started_ns=time.time_ns() - round(seconds * 1e9),
        )
