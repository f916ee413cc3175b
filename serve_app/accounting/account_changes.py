"""Changes of organisations, teams and anybody's limits: each a part of one audited transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete, select

from serve_app.accounting import account_records, audit, key_records
from serve_app.accounting.account_records import Organisation, Team
from serve_app.accounting.audit import Change
from serve_app.accounting.calendar import month_of
from serve_app.accounting.hold import Scope
from serve_app.accounting.key_records import KeyInfo
from serve_app.accounting.limits import NO_LIMITS, Limits
from serve_app.accounting.schema import WASTE_ACCOUNT, alerts, balances
from serve_app.accounting.upsert import insert
from serve_app.accounting.webhook import check_allowed
from serve_app.errors import InvalidRequest, NotFound

DEFAULT = "default"  # the organisation, and its team, that need not be named


async def add_organisation(change: Change, name: str) -> Organisation:
    """Raises Conflict."""
    await account_records.add_account(
        change.connection, Scope.ORGANISATION, None, name, NO_LIMITS, change.at_us
    )
    added = await account_records.organisation(change.connection, name)
    await change.record("organisation.create", added.subject, {})
    return added


async def add_team(change: Change, organisation: Organisation, name: str) -> Team:
    """Raises Conflict."""
    await account_records.add_account(
        change.connection, Scope.TEAM, organisation.id, name, NO_LIMITS, change.at_us
    )
    added = await account_records.team(change.connection, f"{organisation.name}/{name}")
    await change.record("team.create", added.subject, {})
    return added


async def ensure_default(change: Change) -> Team:
    # There may be no organisation to lock yet; the platform's own account stands in.
    await account_records.lock_account(change.connection, WASTE_ACCOUNT)
    try:
        organisation = await account_records.organisation(change.connection, DEFAULT)
    except NotFound:
        organisation = await add_organisation(change, DEFAULT)
    try:
        return await account_records.team(change.connection, f"{DEFAULT}/{DEFAULT}")
    except NotFound:
        return await add_team(change, organisation, DEFAULT)


async def change_limits(
    change: Change,
    scope: Scope,
    reference: str,
    changes: Mapping[str, Any],
    alert_hosts: Collection[str],
) -> Limits:
    """Raises NotFound or InvalidRequest."""
    account = await _account(change, scope, reference)
    before = await account_records.lock_account(change.connection, account.id)
    after = before.changed(changes)
    after.check_weight_of(scope)
    if after == before:
        return after
    detail = audit.difference(before.shown(), after.shown())
    if after.alert_url != before.alert_url:
        # Also where only the path differs, which is not shown.
        detail["alert_url"] = [before.shown()["alert_url"], after.shown()["alert_url"]]
        if after.alert_url is not None:
            check_allowed(after.alert_url, alert_hosts)
    await account_records.write_limits(change.connection, account.id, after)
    budgets = (before.budget_nano_usd, before.alert_percents)
    if after.budget_nano_usd and (after.budget_nano_usd, after.alert_percents) != budgets:
        await _match_alerts(change, account.id, after.budget_nano_usd, after.alert_percents)
    await change.record("limits.change", account.subject, detail)
    return after


async def _account(change: Change, scope: Scope, reference: str) -> Organisation | Team | KeyInfo:
    match scope:
        case Scope.ORGANISATION:
            return await account_records.organisation(change.connection, reference)
        case Scope.TEAM:
            return await account_records.team(change.connection, reference)
        case Scope.KEY:
            return await key_records.find_key(change.connection, reference)
    raise InvalidRequest(f"scope: {scope} has no limits", param="scope")


async def _match_alerts(
    change: Change, account_id: int, budget_nano_usd: int, percents: Collection[int]
) -> None:
    """This month's alerts become those that a budget had, had it always been this one: what it has
    not reached is forgotten and comes again, what it has passed already is told now."""
    month = month_of(change.at_us)
    posted = select(balances.c.posted_nano_usd).where(
        balances.c.account_id == account_id, balances.c.month == month
    )
    posted_nano_usd = (await change.connection.execute(posted)).scalar_one_or_none() or 0
    sent = select(alerts.c.id, alerts.c.percent).where(
        alerts.c.account_id == account_id, alerts.c.month == month
    )
    premature = [
        row.id
        for row in await change.connection.execute(sent)
        if posted_nano_usd * 100 < row.percent * budget_nano_usd
    ]
    await change.connection.execute(delete(alerts).where(alerts.c.id.in_(premature)))
    passed = [
        {
            "account_id": account_id,
            "month": month,
            "percent": percent,
            "posted_nano_usd": posted_nano_usd,
            "budget_nano_usd": budget_nano_usd,
            "created_us": change.at_us,
            "next_attempt_us": change.at_us,
        }
        for percent in percents
        if posted_nano_usd * 100 >= percent * budget_nano_usd
    ]
    if passed:
        statement = insert(change.connection, alerts).values(passed)
        await change.connection.execute(statement.on_conflict_do_nothing())
