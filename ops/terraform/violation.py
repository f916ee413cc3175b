"""What a policy has against a plan."""

from __future__ import annotations

from dataclasses import dataclass

from ops.terraform.plan import Resource


@dataclass(frozen=True, slots=True)
class Violation:
    """``address`` is Terraform's own for the resource or output at fault."""

    address: str
    rule: str
    message: str

    @classmethod
    def of(cls, resource: Resource, rule: str, message: str) -> Violation:
        return cls(resource.address, rule, message)

    def __str__(self) -> str:
        return f"{self.rule}: {self.address} {self.message}"
