"""/metrics: money and tokens for Prometheus, read from the ledger at each scrape: never adrift.

Any gateway gives the same answer, so it may be scraped through a load balancer. Prometheus counts
in floating point: exact dollars are in the reports.

Who may scrape: with ``accounting.metrics_token_file``, whoever sends its token. Without one,
anybody while the gateway listens on loopback only, and nobody else.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve_app import telemetry
from serve_app.accounting.calendar import Clock, month_of, now_us
from serve_app.accounting.rollup import Totals, totals
from serve_app.config import Config, ConfigError
from serve_app.errors import LedgerUnavailable, ServerFault, Unauthorized
from serve_app.gateway.admin.office import Office
from serve_app.gateway.refusals import unkeyed_refusals
from serve_app.telemetry import LedgerMetric

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_bearer = HTTPBearer(
    scheme_name="MetricsToken", auto_error=False, description="Of accounting.metrics_token_file"
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class ScrapeToken:
    """A route dependency.

    Raises:
        ConfigError: the token's file cannot be read, or is empty.
    """

    def __init__(self, config: Config) -> None:
        file = config.accounting.metrics_token_file
        self._open = file is None and config.gateway.host in _LOOPBACK
        self._token = b""
        if file is not None:
            try:
                self._token = file.read_bytes().strip()
            except OSError as error:
                raise ConfigError(
                    f"accounting.metrics_token_file: {file}: {error.strerror}"
                ) from error
            if not self._token:
                raise ConfigError(f"accounting.metrics_token_file: {file} is empty")

    def __call__(self, credentials: Credentials) -> None:
        """Raises Unauthorized."""
        if self._open:
            return
        given = credentials.credentials.encode() if credentials is not None else b""
        if not self._token or not hmac.compare_digest(given, self._token):
            raise Unauthorized("scraping needs the token of accounting.metrics_token_file")


class LedgerCollector(Collector):
    """One reading of the ledger as metric families."""

    def __init__(self, read: Totals) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        read = self._read
        payers = [
            ((each.organisation, each.team, each.model, each.kind, _payer(each.wasted)), each)
            for each in read.used
        ]
        yield _counter(telemetry.LEDGER_TOKENS, ((of, each.tokens) for of, each in payers))
        yield _counter(telemetry.LEDGER_NANO_USD, ((of, each.nano_usd) for of, each in payers))
        yield _gauge(
            telemetry.LEDGER_REQUESTS,
            (
                ((each.organisation, each.team, each.model, each.outcome), each.count)
                for each in read.requests
            ),
        )
        teams = [((organisation, team), standing) for organisation, team, standing in read.teams]
        yield _gauge(telemetry.LEDGER_POSTED, ((of, at.posted_nano_usd) for of, at in teams))
        yield _gauge(telemetry.LEDGER_HELD, ((of, at.held_nano_usd) for of, at in teams))
        yield _gauge(
            telemetry.LEDGER_BUDGET,
            ((of, at.budget_nano_usd) for of, at in teams if at.budget_nano_usd is not None),
        )
        yield _gauge(telemetry.LEDGER_OPEN, [((), read.open_holds)])
        yield _gauge(telemetry.LEDGER_UNAUDITED, [((), read.unaudited_holds)])
        for metric, value in (
            (telemetry.LEDGER_ALERTS, read.alerts_given_up),
            (telemetry.LEDGER_ALERTS_DUE, read.alerts_due),
            (telemetry.LEDGER_EXPIRED, read.expired_holds),
            (telemetry.LEDGER_OLDEST_OPEN, read.oldest_open_s),
            (telemetry.LEDGER_OLDEST_UNAUDITED, read.oldest_unaudited_s),
        ):
            yield _gauge(metric, [((), value)])


def metrics_routes(office: Office, config: Config, *, clock: Clock = now_us) -> APIRouter:
    """Asks for its own token, not for an API key."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        dependencies=[Depends(ScrapeToken(config))],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **unkeyed_refusals(Unauthorized, LedgerUnavailable, ServerFault),
        },
    )
    async def metrics() -> Response:
        """Money and tokens, for Prometheus."""
        async with office.database.read() as connection:
            now = clock()
            read = await totals(connection, month_of(now), now)
        registry = CollectorRegistry()
        registry.register(LedgerCollector(read))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _payer(wasted: bool) -> str:
    return "waste" if wasted else "team"


_Samples = Iterable[tuple[tuple[str, ...], float]]


def _counter(metric: LedgerMetric, samples: _Samples) -> Metric:
    return _filled(CounterMetricFamily(metric.name, metric.text, labels=metric.labels), samples)


def _gauge(metric: LedgerMetric, samples: _Samples) -> Metric:
    return _filled(GaugeMetricFamily(metric.name, metric.text, labels=metric.labels), samples)


def _filled(family: Any, samples: _Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    filled: Metric = family
    return filled
