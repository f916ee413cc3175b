from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.admin_system import AdminSystem


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdminSystem]:
    monkeypatch.setenv("PIXTRAL_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PIXTRAL_API_KEY", raising=False)
    with AdminSystem(tmp_path).served() as served:
        yield served
