"""Queries of Prometheus, in which a metric is one of the table of all metrics."""

from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

VARIABLES = ("source", "region")
"""Variables of the dashboard, and the labels that they filter."""

WINDOW = "$__rate_interval"


def name_of(metric: MetricWrapperBase) -> str:
    """Return the name of a metric, for a counter without ``_total``."""
    return next(iter(metric.describe())).name


def series(metric: MetricWrapperBase, suffix: str = "", **labels: str) -> str:
    """Return the selector of a metric with *labels*, and with the variables of the dashboard.

    A label that begins with ``~`` is a regular expression. Raises ValueError for an unknown one.
    """
    known = metric._labelnames  # noqa: SLF001 - it is shown nowhere else
    if unknown := labels.keys() - {*known}:
        raise ValueError(f"{metric} has no label {', '.join(unknown)}")
    chosen = {
        name: f'~"{value[1:]}"' if value.startswith("~") else f'"{value}"'
        for name, value in labels.items()
    }
    variables = {name: f'~"${name}"' for name in VARIABLES if name in known}
    filters = ",".join(f"{name}={value}" for name, value in (variables | chosen).items())
    total = "_total" if isinstance(metric, Counter) else ""
    return f"{name_of(metric)}{total}{suffix}" + (f"{{{filters}}}" if filters else "")


def _by(by: str) -> str:
    return f" by ({by})" if by else ""


def rate(metric: MetricWrapperBase, by: str = "", **labels: str) -> str:
    """Return the events per second of a counter or a histogram."""
    suffix = "_count" if isinstance(metric, Histogram) else ""
    return f"sum{_by(by)} (rate({series(metric, suffix, **labels)}[{WINDOW}]))"


def added(metric: MetricWrapperBase, by: str = "", **labels: str) -> str:
    """Return the sum of a gauge that each process has for itself."""
    return f"sum{_by(by)} ({series(metric, **labels)})"


def seen(metric: MetricWrapperBase, by: str = "", **labels: str) -> str:
    """Return a gauge of the whole fleet, of which processes may know different values."""
    return f"max{_by(by)} ({series(metric, **labels)})"


def quantile(share: float, metric: MetricWrapperBase, by: str = "", **labels: str) -> str:
    buckets = series(metric, "_bucket", **labels)
    grouped = ",".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({grouped}) (rate({buckets}[{WINDOW}])))"


def age(metric: MetricWrapperBase) -> str:
    """Return the seconds since a time that may be unknown yet."""
    return f"time() - ({seen(metric)} > 0)"
