"""A board as Grafana's JSON, with every expression on the datasource that the viewer chooses."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from ops.dashboards.board import Board, Panel, Variable

TAG = "pixtral"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_NUMBER_HEIGHT, _GRAPH_HEIGHT = 4, 8


def render(board: Board, runbooks: str) -> str:
    """``runbooks``: what the links to runbooks begin with; a viewer can change it at the top."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(_others())
        .with_variable(_datasource())
        .with_variable(_runbooks(runbooks))
    )
    for variable in board.variables:
        made.with_variable(_choice(variable))
    ids = iter(range(1, 1000))
    for section in board.sections:
        made.with_row(dashboard.Row(section.title).id(next(ids)))
        for panel in section.panels:
            made.with_panel(_panel(panel).id(next(ids)))
    text = json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
    return text + "\n"


def _panel(panel: Panel) -> Any:
    made = _number() if panel.kind == "number" else _graph(panel)
    made.title(panel.title).description(panel.description).unit(panel.unit)
    made.datasource(_SOURCE).span(panel.width)
    made.links([_runbook(alert) for alert in panel.alerts])
    for place, query in enumerate(panel.queries):
        made.with_target(
            prometheus.Dataquery()
            .datasource(_SOURCE)
            .expr(query.expression)
            .legend_format(query.legend)
            .ref_id(chr(ord("A") + place))
        )
    return made


def _number() -> stat.Panel:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    return (
        stat.Panel()
        .height(_NUMBER_HEIGHT)
        .reduce_options(reduced)
        .graph_mode(BigValueGraphMode.AREA)
    )


def _graph(panel: Panel) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    made = (
        timeseries.Panel()
        .height(_GRAPH_HEIGHT)
        .min(0)
        .fill_opacity(25 if panel.stacked else 5)
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return made


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _runbooks(base: str) -> dashboard.TextBoxVariable:
    said = VariableOption(text=base, value=base, selected=True)
    return (
        dashboard.TextBoxVariable("runbooks")
        .label("Runbooks at")
        .default_value(base)
        .current(said)
        .options([said])
    )


def _choice(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.label)
        .label(variable.text)
        .datasource(_SOURCE)
        .query(f"label_values({variable.series}, {variable.label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(text="All", value="$__all", selected=True))
    )


def _runbook(alert: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(f"Runbook: {alert}")
        .type(DashboardLinkType.LINK)
        .url(f"${{runbooks}}/{alert}.md")
        .target_blank(True)
    )


def _others() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Pixtral")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
