"""Who is calling, once its key was found good, and what it may do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from serve_app.accounting.hold import Payer
from serve_app.accounting.roles import MANAGES, PERMISSIONS, Endpoint, Permission, Role
from serve_app.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Principal:
    """A key and whom it bills.

    Attributes:
        models, endpoints: its scope; empty is everything.
        max_pictures: per request, the least of key, team and organisation; None is no limit.
        weight: of its team beside others in the batch.
        expires_us: from when on the key is refused; None is never.
    """

    payer: Payer
    public_id: str
    key_name: str
    team_name: str
    organisation_name: str
    role: Role
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    max_pictures: int | None = None
    weight: int = 1
    expires_us: int | None = None

    @property
    def actor(self) -> str:
        """How the audit log names it."""
        return f"key {self.public_id}"

    def is_valid(self, now_us: int) -> bool:
        return self.expires_us is None or now_us < self.expires_us

    def check(self, permission: Permission) -> None:
        """Raises Forbidden unless its role has the permission."""
        if permission not in PERMISSIONS[self.role]:
            raise Forbidden(f"a key of role {self.role} may not do this ({permission})")

    def check_endpoint(self, endpoint: Endpoint) -> None:
        """Raises Forbidden where the key's scope leaves the endpoint out."""
        if self.endpoints and endpoint not in self.endpoints:
            raise Forbidden(f"this key is for {', '.join(self.endpoints)} only, not {endpoint}")

    def check_model(self, model: str) -> None:
        """Raises Forbidden where the key's scope leaves the model (its name, no alias) out."""
        if self.models and model not in self.models:
            raise Forbidden(f"this key is for {', '.join(self.models)} only", param="model")

    def check_manages(self, team_id: int, role: Role) -> None:
        """Raises Forbidden unless it may create, rotate or revoke keys of that team and role."""
        self.check(Permission.TEAM_KEYS)
        if self.role is not Role.ADMIN and team_id != self.payer.team_id:
            raise Forbidden("a team lead manages the keys of its own team only")
        if role not in MANAGES[self.role]:
            raise Forbidden(f"a key of role {self.role} may not manage keys of role {role}")

    def check_grants(self, models: Collection[str], endpoints: Collection[str]) -> None:
        """Raises Forbidden where a key of that scope (empty is everything) could do more than this
        one: who is shown its secret can do both."""
        for param, own, asked in (
            ("models", self.models, models),
            ("endpoints", self.endpoints, endpoints),
        ):
            if own and not (asked and set(asked) <= set(own)):
                raise Forbidden(
                    f"this key is for {', '.join(own)} only, and hands out no more", param=param
                )
