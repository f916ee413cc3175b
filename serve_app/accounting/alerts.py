"""Budget alerts, posted to webhooks: tried again with growing pauses, then given up.

    crossed (settling.py) ─► due ─► claimed ─► 2xx: delivered
                              ▲                  else
                              └── 10 s, 20 s … ──┘ ── 12 attempts ─► given up

A claim moves the next attempt away before anything is sent, so two gateways never post the same
alert at once, and one that dies while posting only delays it. A receiver may see an alert twice:
its ``id`` stays the same. Where it may be posted to is webhook.py's rule, asked anew each time;
redirects are not followed, the environment's proxies not used, answers not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
from sqlalchemy import func, select, update

from serve_app.accounting.calendar import MICROSECONDS, Clock, now_us
from serve_app.accounting.database import Database
from serve_app.accounting.money import format_usd
from serve_app.accounting.schema import accounts, alerts
from serve_app.accounting.webhook import is_allowed, redacted, webhook_url

MAX_ATTEMPTS = 12
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10, 3_600
TIMEOUT_S = 5.0
_AT_ONCE = 16
_logger = logging.getLogger(__name__)

_account = accounts.alias("account")
_parent = accounts.alias("parent")
_grandparent = accounts.alias("grandparent")
# From the account up to its organisation; the nearest address counts.
_DUE = (
    select(
        alerts,
        _account.c.scope,
        _account.c.name.label("account_name"),
        _parent.c.name.label("parent_name"),
        _grandparent.c.name.label("grandparent_name"),
        func.coalesce(_account.c.alert_url, _parent.c.alert_url, _grandparent.c.alert_url).label(
            "alert_url"
        ),
    )
    .select_from(alerts)
    .join(_account, alerts.c.account_id == _account.c.id)
    .outerjoin(_parent, _account.c.parent_id == _parent.c.id)
    .outerjoin(_grandparent, _parent.c.parent_id == _grandparent.c.id)
    .where(alerts.c.delivered_us.is_(None), alerts.c.given_up_us.is_(None))
    .order_by(alerts.c.next_attempt_us, alerts.c.id)
    .limit(_AT_ONCE)
)


class AlertSender:
    """Delivers what is due each time it is asked to; any number of gateways may.

    ``allowed_hosts`` as in ``accounting.alert_hosts``.
    """

    def __init__(
        self,
        database: Database,
        allowed_hosts: Collection[str],
        *,
        clock: Clock = now_us,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._database = database
        self._allowed_hosts = frozenset(allowed_hosts)
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def deliver(self) -> int:
        """One attempt for each alert that is due; how many were delivered.

        Raises:
            LedgerUnavailable
        """
        async with self._database.read() as connection:
            query = _DUE.where(alerts.c.next_attempt_us <= self._clock())
            due = (await connection.execute(query)).mappings().all()
        return sum(await asyncio.gather(*(self._attempt(alert) for alert in due)))

    async def _attempt(self, alert: Mapping[Any, Any]) -> bool:
        if not await self._claim(alert):
            return False
        problem = await self._post(alert)
        if problem is None:
            await self._mark(alert, delivered_us=self._clock())
            return True
        _logger.warning("budget alert %d: %s", alert["id"], problem)
        if alert["attempts"] + 1 >= MAX_ATTEMPTS or alert["alert_url"] is None:
            await self._mark(alert, given_up_us=self._clock())
        return False

    async def _claim(self, alert: Mapping[Any, Any]) -> bool:
        """Whether this attempt is ours: the row is still as it was read."""
        attempts = alert["attempts"]
        pause_s = min(FIRST_PAUSE_S * 2**attempts, LONGEST_PAUSE_S)
        as_read = (alerts.c.id == alert["id"], alerts.c.attempts == attempts)
        statement = (
            update(alerts)
            .where(*as_read)
            .values(
                attempts=attempts + 1,
                next_attempt_us=self._clock() + pause_s * MICROSECONDS,
            )
        )
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount == 1

    async def _post(self, alert: Mapping[Any, Any]) -> str | None:
        """What went wrong, without the address's path, which may be a secret; None is nothing."""
        if alert["alert_url"] is None:
            return "nobody to tell: no alert_url on the account or above it"
        url = webhook_url(alert["alert_url"])
        if not is_allowed(url, self._allowed_hosts):
            return f"{redacted(alert['alert_url'])} is not in accounting.alert_hosts"
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with self._session.post(
                url, json=payload(alert), allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"{url.origin()} did not answer ({type(error).__name__})"
        return None if 200 <= status < 300 else f"{url.origin()} answered {status}"

    async def _mark(self, alert: Mapping[Any, Any], **values: int) -> None:
        async with self._database.write() as connection:
            statement = update(alerts).where(alerts.c.id == alert["id"])
            await connection.execute(statement.values(**values))


def payload(alert: Mapping[Any, Any]) -> dict[str, Any]:
    """What is posted: amounts as exact decimal strings."""
    names = [alert[f"{level}_name"] for level in ("grandparent", "parent", "account")]
    organisation, team, key = ([name for name in names if name is not None] + [None, None])[:3]
    crossed_at = datetime.fromtimestamp(alert["created_us"] // MICROSECONDS, UTC)
    return {
        "type": "budget_alert",
        "id": alert["id"],
        "scope": alert["scope"],
        "organisation": organisation,
        "team": team,
        "key": key,
        "month": alert["month"],
        "percent": alert["percent"],
        "posted_usd": format_usd(alert["posted_nano_usd"]),
        "budget_usd": format_usd(alert["budget_nano_usd"]),
        "crossed_at": crossed_at.isoformat().replace("+00:00", "Z"),
    }
