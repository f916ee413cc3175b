"""What an examination found, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """``advice`` says what to do; empty where all is well."""

    subject: str
    found: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        return not self.advice

    def line(self) -> str:
        mark = "ok      " if self.ok else "problem "
        advice = f"\n{'':21}{self.advice}" if self.advice else ""
        return f"{mark} {self.subject:<11} {self.found}{advice}"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}
