"""One mistake that somebody could make in terraform/, and what has to notice it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Mutation:
    """``old`` (exactly once in ``file``) becomes ``new``."""

    name: str
    # A folder under terraform/environments; what is validated or planned.
    root: str
    # Relative to terraform/.
    file: str
    old: str
    new: str
    # validate: Terraform refuses it. test: a `terraform test` of the file's module fails.
    # policy: the plan is refused, by a validation of variables or by ops/terraform/policy.py.
    caught_by: Literal["validate", "test", "policy"]
    # A part of the message.
    says: str
