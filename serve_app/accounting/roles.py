"""What a key may do, by role: the one table that every route asks.

              call   own usage   team usage   team keys   all usage   administer
    admin      x         x           x            x           x           x
    lead       x         x           x            x
    member     x         x
    finance              x           x                        x

A lead manages the keys of its own team, up to its own role; budgets, limits, teams, prices and
corrections are an admin's. Finance sees everything and changes nothing, nor can it call a model.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"
    LEAD = "lead"
    MEMBER = "member"
    FINANCE = "finance"


class Permission(StrEnum):
    CALL = "call"  # the model's endpoints
    OWN_USAGE = "own_usage"  # of the key itself
    TEAM_USAGE = "team_usage"
    TEAM_KEYS = "team_keys"  # list, create, rotate and revoke them
    ALL_USAGE = "all_usage"  # every report, export and balance, and the audit log
    ADMINISTER = "administer"  # organisations, teams, limits, prices, refunds, closing a month


class Endpoint(StrEnum):
    """What a key's scope names; a key without any may use all that its role permits."""

    CHAT = "chat"
    TOKENIZE = "tokenize"
    MODELS = "models"
    USAGE = "usage"
    ADMIN = "admin"


_MEMBER = frozenset({Permission.CALL, Permission.OWN_USAGE})

PERMISSIONS = {
    Role.ADMIN: frozenset(Permission),
    Role.LEAD: _MEMBER | {Permission.TEAM_USAGE, Permission.TEAM_KEYS},
    Role.MEMBER: _MEMBER,
    Role.FINANCE: frozenset(
        {Permission.OWN_USAGE, Permission.TEAM_USAGE, Permission.ALL_USAGE},
    ),
}

# Whose keys a role may hand out, rotate and revoke: rotating a key shows its new secret.
MANAGES = {
    Role.ADMIN: frozenset(Role),
    Role.LEAD: frozenset({Role.LEAD, Role.MEMBER}),
    Role.MEMBER: frozenset[Role](),
    Role.FINANCE: frozenset[Role](),
}
