"""/admin: what admins do and finance and team leads see. Roles: accounting/roles.py.

/admin/organisations  /admin/teams  /admin/keys        who may call, and how much
/admin/prices  /admin/adjustments  /admin/months       what it costs, and corrections
/admin/usage  /admin/usage/focus  /admin/economics     what was used
/admin/requests/{id}  /admin/reconcile                 the ledger, looked at
/admin/alerts  /admin/audit  /admin/groups             what happened, and what runs
"""

from __future__ import annotations

from fastapi import APIRouter

from serve_app.accounting.calendar import Clock, now_us
from serve_app.accounting.reconcile import EngineTokens
from serve_app.config import Accounting
from serve_app.gateway.admin.corrections import correction_routes
from serve_app.gateway.admin.groups import Groups, group_routes
from serve_app.gateway.admin.keys import key_routes
from serve_app.gateway.admin.ledger import ledger_routes
from serve_app.gateway.admin.office import Office
from serve_app.gateway.admin.prices import price_routes
from serve_app.gateway.admin.teams import team_routes
from serve_app.gateway.admin.usage import usage_routes


def admin_routes(
    office: Office,
    settings: Accounting,
    *,
    groups: Groups,
    engines: EngineTokens | None = None,
    clock: Clock = now_us,
) -> APIRouter:
    """To be mounted behind ``auth.KeyCheck``, which notes the principal.

    Args:
        groups: what each decoder group says of itself.
        engines: tokens by decoder group as it counts them itself, for the reconciliation.
    """
    router = APIRouter(prefix="/admin", tags=["admin"])
    router.include_router(team_routes(office, clock))
    router.include_router(key_routes(office, clock))
    router.include_router(price_routes(office, clock))
    router.include_router(correction_routes(office, clock))
    router.include_router(usage_routes(office, settings, clock))
    router.include_router(ledger_routes(office, clock, engines))
    router.include_router(group_routes(groups))
    return router
