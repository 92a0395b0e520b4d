"""Panels of the dashboard."""

from string import ascii_uppercase
from typing import TypeAlias

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

WIDTH, HEIGHT = 24, 8


Chart: TypeAlias = timeseries.Panel | stat.Panel


def _query(expression: str, legend: str, number: int = 0) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expression).legend_format(legend).range()
    return query.ref_id(ascii_uppercase[number])


def panel(
    title: str, unit: str, *queries: tuple[str, str], stacked: bool = False, third: bool = True
) -> timeseries.Panel:
    """Return a chart of *queries*, which are pairs of an expression and a legend."""
    chart = (
        timeseries.Panel()
        .title(title)
        .unit(unit)
        .min(0)
        .datasource(DATASOURCE)
        .height(HEIGHT)
        .span(WIDTH // 3 if third else WIDTH // 2)
        .fill_opacity(25 if stacked else 5)
        .show_points(options.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    )
    if stacked:
        chart.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    for position, (expression, legend) in enumerate(queries):
        chart.with_target(_query(expression, legend, position))
    return chart


def number(title: str, unit: str, expression: str, *steps: tuple[float | None, str]) -> stat.Panel:
    """Return one number. *steps* are the colours from these values on."""
    thresholds = [model.Threshold(value=value, color=color) for value, color in steps]
    return (
        stat.Panel()
        .title(title)
        .unit(unit)
        .datasource(DATASOURCE)
        .height(4)
        .span(WIDTH // 8)
        .graph_mode(options.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(options.BigValueColorMode.BACKGROUND)
        .thresholds(
            dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(thresholds)
        )
        .with_target(_query(expression, ""))
    )
