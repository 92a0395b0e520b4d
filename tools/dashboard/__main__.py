"""Print the Grafana dashboard as JSON: ``make docs`` writes it to deploy/grafana/dashboard.json."""

import sys

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from prometheus_client.metrics import MetricWrapperBase

from archiver.telemetry import METRICS as M
from archiver.telemetry import all_metrics
from tools.dashboard.panels import DATASOURCE
from tools.dashboard.queries import name_of
from tools.dashboard.rows import ROWS


def _variable(name: str, metric: MetricWrapperBase) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(f"label_values({name_of(metric)}, {name})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )


def create() -> dashboard.Dashboard:
    page = (
        dashboard.Dashboard("Archiver")
        .uid("archiver")
        .description("Source archives: requests, queue, builds, hosts and regions.")
        .tags(["archiver"])
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("source", M.queue_tasks))
        .with_variable(_variable("region", M.region_reachable))
    )  # fmt: skip
    for title, panels in ROWS.items():
        page.with_row(dashboard.Row(title))
        for each in panels():
            page.with_panel(each)
    return page


def main() -> None:
    text = JSONEncoder(sort_keys=True, indent=2).encode(create().build())
    missing = [name for name, each in all_metrics().items() if name_of(each) not in text]
    if missing:
        raise SystemExit(f"no panel shows {', '.join(missing)}")
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
