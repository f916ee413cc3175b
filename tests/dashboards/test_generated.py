"""The committed dashboards: as generated, well-formed, and made of names that exist."""

import re
from itertools import combinations

import pytest

from ops.dashboards import __main__ as generator
from ops.dashboards import series
from ops.dashboards.alerts import alerts
from ops.dashboards.series import Exported
from tests.dashboards.shipped import (
    DASHBOARDS,
    Expression,
    boards,
    panel_expressions,
    panels,
    rules,
)

BOARDS = boards()
REFERENCE = re.compile(r"\$(\w+)")
BUILT_IN = {"__rate_interval", "__range"}


def test_what_is_committed_is_what_is_generated():
    made = {str(path): text for path, text in generator.files().items()}
    committed = {name: (DASHBOARDS / name).read_text() for name in made}
    assert committed == made, "run `python -m ops.dashboards`"


def test_nothing_else_is_committed():
    made = {DASHBOARDS / path for path in generator.files()}
    found = {*(DASHBOARDS / "generated").iterdir(), *(DASHBOARDS / "rules").glob("*.yml")}
    assert found == made


def test_the_base_of_runbook_links_can_be_chosen():
    base = "https://wiki.internal/pixtral"
    files = generator.files(base)
    for path, text in files.items():
        assert (base in text) == (path.name != "recording.yml"), path


@pytest.mark.parametrize("uid", BOARDS)
class TestBoard:
    def test_is_known_by_its_file(self, uid):
        assert BOARDS[uid]["uid"] == uid

    def test_has_unique_ids(self, uid):
        ids = [panel["id"] for panel in BOARDS[uid]["panels"]]
        assert len(set(ids)) == len(ids)

    def test_has_unique_titles(self, uid):
        titles = [panel["title"] for panel in panels(BOARDS[uid])]
        assert len(set(titles)) == len(titles)

    def test_lays_no_panel_over_another_or_beside_the_screen(self, uid):
        places = [panel["gridPos"] for panel in BOARDS[uid]["panels"]]
        for place in places:
            assert place["x"] + place["w"] <= 24
        for one, other in combinations(places, 2):
            assert apart(one, other), (one, other)

    def test_says_what_every_panel_shows_and_in_which_unit(self, uid):
        for panel in panels(BOARDS[uid]):
            assert panel["title"]
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["targets"], panel["title"]

    def test_asks_only_the_datasource_that_is_chosen(self, uid):
        board = BOARDS[uid]
        chosen = {"type": "prometheus", "uid": "${datasource}"}
        variables = board["templating"]["list"]
        assert variables[0]["name"] == "datasource"
        assert all(variable.get("datasource", chosen) == chosen for variable in variables)
        for panel in panels(board):
            assert panel["datasource"] == chosen
            assert all(target["datasource"] == chosen for target in panel["targets"])

    def test_uses_every_variable_and_no_other(self, uid):
        board = BOARDS[uid]
        expressions = [target["expr"] for panel in panels(board) for target in panel["targets"]]
        used = set(REFERENCE.findall(" ".join(expressions))) - BUILT_IN
        defined = {variable["name"] for variable in board["templating"]["list"]}
        assert used | {"datasource", "runbooks"} == defined

    def test_links_only_runbooks_of_alerts(self, uid):
        names = {alert.name for alert in alerts()}
        links = [link["url"] for panel in panels(BOARDS[uid]) for link in panel["links"]]
        assert {link.removeprefix("${runbooks}/").removesuffix(".md") for link in links} <= names


def test_every_alert_is_linked_from_a_panel():
    linked = {
        link["title"].removeprefix("Runbook: ")
        for board in BOARDS.values()
        for panel in panels(board)
        for link in panel["links"]
    }
    assert linked == {alert.name for alert in alerts()}


def test_every_name_of_ours_is_in_telemetry():
    tiers = [value for value in vars(series).values() if isinstance(value, Exported)]
    ours = set().union(*(tier.all() for tier in tiers))
    ledger = {value for key, value in vars(series).items() if key.startswith("LEDGER_")}
    recorded = {rule["record"] for rule in rules("recording")}
    known = ours | ledger | recorded
    histograms = {name + suffix for name in ours for suffix in ("_bucket", "_count", "_sum")}
    texts = [
        *panel_expressions(),
        *(
            Expression(rule["expr"], rule["expr"])
            for rule in [*rules("alerts"), *rules("recording")]
        ),
    ]
    read = {name for text in texts for name in text.names() if "pixtral" in name}
    assert read <= known | histograms
    assert recorded <= {name for text in panel_expressions() for name in text.names()} | {
        name for rule in rules("alerts") for name in Expression("", rule["expr"]).names()
    }, "recorded and never read"


def test_a_metric_that_telemetry_does_not_have_is_refused():
    with pytest.raises(AttributeError, match="no metric 'renamed'"):
        _ = series.GATEWAY.renamed


def apart(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] + one["w"] <= other["x"]
        or other["x"] + other["w"] <= one["x"]
        or one["y"] + one["h"] <= other["y"]
        or other["y"] + other["h"] <= one["y"]
    )
