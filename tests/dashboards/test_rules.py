"""The rules: Prometheus takes them, each alert was seen to fire and to stay silent, each helps."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ops.dashboards.alerts import alerts
from ops.dashboards.objectives import OBJECTIVES
from serve_app import telemetry
from tests.dashboards.shipped import DASHBOARDS, panel_expressions, promtool, rules
from tests.e2e.prometheus import filled_in

RULES = DASHBOARDS / "rules"
CASES = sorted((RULES / "tests").glob("*.yml"))
FIRING = re.compile(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}')


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [promtool(), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prometheus_takes_the_rules():
    checked = run("check", "rules", *RULES.glob("*.yml"))
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_silent(file):
    tested = run("test", "rules", file)
    assert tested.returncode == 0, tested.stderr


@pytest.mark.parametrize(
    ("panel", "series", "each", "value"),
    [
        ("Spent", "pixtral_ledger_month_posted_nano_usd", "7000000000x20", 7),
        ("Earned per hour", "pixtral_ledger_nano_usd_total", "0+60000000000x20", 3600),
        ("Tokens by kind", "pixtral_ledger_tokens_total", "0+60x20", 1),
    ],
)
def test_the_ledger_is_counted_once_however_many_gateways_tell_of_it(
    tmp_path, panel, series, each, value
):
    (text,) = (
        shown.text
        for shown in panel_expressions()
        if shown.where == f"pixtral-accounting / {panel}"
    )
    labels = 'organisation="o", team="t", model="m", kind="text", payer="team"'
    told = [{"series": f'{series}{{{labels}, pod="{pod}"}}', "values": each} for pod in ("a", "b")]
    asked = {
        "expr": f"round(sum({filled_in(text)}), 0.001)",
        "eval_time": "10m",
        "exp_samples": [{"labels": "{}", "value": value}],
    }
    case = {"interval": "1m", "input_series": told, "promql_expr_test": [asked]}
    file = tmp_path / "case.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [case]}))
    tested = run("test", "rules", file)
    assert tested.returncode == 0, tested.stderr


def test_every_alert_has_a_case_of_each():
    fires: set[str] = set()
    silent: set[str] = set()
    for file in CASES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for asked in case["promql_expr_test"]:
                (name,) = FIRING.findall(asked["expr"])
                (fires if asked["exp_samples"] else silent).add(name)
    names = {rule["alert"] for rule in rules("alerts")}
    assert fires == names
    assert silent == names


def test_a_renamed_metric_is_noticed_by_the_cases(tmp_path):
    """The cases name the series themselves, so rules that read another stay silent."""
    (tmp_path / "tests").mkdir()
    for file in RULES.glob("*.yml"):
        text = file.read_text().replace("decoder_token_age_seconds", "decoder_token_age")
        (tmp_path / file.name).write_text(text)
    copied = tmp_path / "tests" / "decoder.yml"
    copied.write_text((RULES / "tests" / "decoder.yml").read_text())
    assert run("test", "rules", copied).returncode != 0


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_says_what_is_wrong_and_compares_what_it_reads(alert):
    assert alert.name.startswith("Pixtral")
    assert alert.summary
    assert not alert.summary.endswith(".")
    assert alert.description.endswith(".")
    assert alert.reads
    for read in alert.reads:
        assert read in alert.expression


def test_every_alert_names_severity_tier_and_runbook():
    for rule in rules("alerts"):
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["labels"]["tier"]
        assert rule["annotations"]["runbook_url"] == f"ops/runbooks/{rule['alert']}.md"


def test_the_promised_first_token_is_a_bucket_of_its_histogram():
    """Otherwise the share of late answers would be read from a series that is not there."""
    histogram = telemetry.GatewayMetrics("any").time_to_first_token
    assert OBJECTIVES.first_token_s in histogram.info["boundaries"]


def test_cases_are_found():
    assert [Path(file).stem for file in CASES] == [
        "accounting",
        "decoder",
        "machines",
        "serving",
        "tiers",
    ]
