"""The running system keeps to its own /openapi.json: a few made-up requests of each operation."""

from __future__ import annotations

from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from tests.e2e.system import System

CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
few = settings(
    max_examples=3,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_made_up_requests_are_answered_as_documented(system: System) -> None:
    checks: dict[str, Any] = {name: {"enabled": True} for name in CHECKED}
    config = SchemathesisConfig.from_dict(
        {
            "checks": {"enabled": False, **checks},
            "generation": {"with-security-parameters": False},
        }
    )
    document = f"{system.root}/openapi.json"
    api: Any = schemathesis.openapi.from_url(document, config=config)
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 30
    with requests.Session() as session:
        headers = {"Authorization": f"Bearer {system.key}"}
        for operation in operations:

            @few
            @given(case=st.one_of([operation.as_strategy(mode) for mode in GenerationMode]))
            def ask(case: Any) -> None:
                case.call_and_validate(session=session, headers=headers)

            ask()
