"""What `python -m ops.dashboards kubernetes` prints is what a cluster takes, field by field."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ops.dashboards import __main__ as generator
from ops.dashboards import kubernetes
from ops.dashboards.kubernetes import Manifest
from tests.dashboards.shipped import boards, rules

KUBERNETES = "1.33"
# As etcd takes an object, and `kubectl apply` its own copy of it in an annotation.
MOST_BYTES = 256 * 1024
_DURATION = r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?)$"
_NAME = {"type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def _only(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }


# Prometheus' operator's, monitoring.coreos.com/v1, strict and reduced to what is used.
PROMETHEUS_RULE = _only(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PrometheusRule"},
    metadata=_only(["name", "namespace"], name=_NAME, namespace=_NAME, labels=_TEXTS),
    spec=_only(
        ["groups"],
        groups={
            "type": "array",
            "items": _only(
                ["name", "rules"],
                name={"type": "string", "minLength": 1},
                rules={
                    "type": "array",
                    "items": {
                        **_only(
                            ["expr"],
                            alert={"type": "string"},
                            record={"type": "string"},
                            expr={"type": "string"},
                            **{"for": {"type": "string", "pattern": _DURATION}},
                            labels=_TEXTS,
                            annotations=_TEXTS,
                        ),
                        "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
                    },
                },
            ),
        },
    ),
)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> list[Manifest]:
    arguments = ["--namespace", "watch", "--label", "release=stack", "--runbooks", "https://wiki"]
    generator.main(["kubernetes", *arguments])
    return list(yaml.safe_load_all(capsys.readouterr().out))


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


def faults(rule: Manifest) -> list[str]:
    return [
        error.message for error in jsonschema.Draft7Validator(PROMETHEUS_RULE).iter_errors(rule)
    ]


def test_config_maps_are_strictly_valid_and_small_enough(printed: list[Manifest]) -> None:
    for each in of_kind(printed, "ConfigMap"):
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
        assert len(json.dumps(each)) < MOST_BYTES, each["metadata"]["name"]


def test_every_dashboard_is_found_by_grafanas_sidecar(printed: list[Manifest]) -> None:
    found = {}
    for each in of_kind(printed, "ConfigMap"):
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((file, text),) = each["data"].items()
        found[file.removesuffix(".json")] = json.loads(text)
    assert {uid: board["title"] for uid, board in found.items()} == {
        uid: board["title"] for uid, board in boards().items()
    }


def test_rules_are_strictly_valid_and_the_committed_ones(printed: list[Manifest]) -> None:
    found = {each["metadata"]["name"]: each for each in of_kind(printed, "PrometheusRule")}
    for each in found.values():
        assert faults(each) == []
    for name in ("recording", "alerts"):
        groups = found[f"pixtral-{name}"]["spec"]["groups"]
        expressions = [rule["expr"] for group in groups for rule in group["rules"]]
        assert expressions == [rule["expr"] for rule in rules(name)]


def test_the_operator_chooses_namespace_labels_and_links(printed: list[Manifest]) -> None:
    assert {each["metadata"]["namespace"] for each in printed} == {"watch"}
    for each in of_kind(printed, "PrometheusRule"):
        assert each["metadata"]["labels"]["release"] == "stack"
    (alerts,) = (each for each in printed if each["metadata"]["name"] == "pixtral-alerts")
    for rule in alerts["spec"]["groups"][0]["rules"]:
        assert rule["annotations"]["runbook_url"].startswith("https://wiki/")


def test_names_are_unique(printed: list[Manifest]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in printed]
    assert len(set(names)) == len(names) == 7


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ((), "specs", {}),
        (("metadata",), "label", {}),
        (("spec",), "group", []),
        (("spec", "groups", 0), "rule", []),
        (("spec", "groups", 0, "rules", 0), "expression", "1"),
        (("spec", "groups", 0, "rules", 0), "for", "5 minutes"),
        (("spec", "groups", 0, "rules", 0, "labels"), "severity", 1),
    ],
)
def test_a_mistake_in_a_rule_is_caught(
    printed: list[Manifest], where: tuple[Any, ...], field: str, value: Any
) -> None:
    (alerts,) = (each for each in printed if each["metadata"]["name"] == "pixtral-alerts")
    wrong = target = copy.deepcopy(alerts)
    for step in where:
        target = target[step]
    target[field] = value
    assert faults(wrong)


@pytest.mark.parametrize("label", ["release", "=stack"])
def test_a_label_of_another_form_is_refused(label: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        generator.main(["kubernetes", "--label", label])
    assert "is not KEY=VALUE" in capsys.readouterr().err


def test_without_being_asked_nothing_is_selected_by_a_label_of_ours() -> None:
    (first, *_) = kubernetes.manifests(generator.files())
    assert first["metadata"]["labels"] == kubernetes.LABELS
