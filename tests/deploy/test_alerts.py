"""The rules of alerts agree with the metrics, and each has its section in the docs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from archiver import errors
from archiver.model import SUFFIXES
from archiver.telemetry import all_metrics, begin_web_at_zero, begin_worker_at_zero

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
PAGE = "docs/how-to/respond-to-an-alert.md"

SELECTOR = re.compile(r"\b(archiver_\w+)(?:\{([^}]*)\})?")
INCREASE = re.compile(r"increase\((archiver_\w+)\{([^}]*)\}")
FILTER = re.compile(r'(\w+)(?:=~|!=|=)"([^"]*)"')
GENERAL = {"le", "instance", "job"}
"""Labels that Prometheus adds."""


class Alert(NamedTuple):
    name: str
    rule: Mapping[str, object]

    @property
    def expression(self) -> str:
        return str(self.rule["expr"])


ALERTS = [
    Alert(rule["alert"], rule)
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
]
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def _series() -> Iterator[tuple[str, MetricWrapperBase]]:
    for metric in all_metrics().values():
        name = next(iter(metric.describe())).name
        if isinstance(metric, Histogram):
            yield from ((f"{name}{suffix}", metric) for suffix in ("_bucket", "_count", "_sum"))
        else:
            yield f"{name}_total" if isinstance(metric, Counter) else name, metric


SERIES = dict(_series())
TEXTS = " ".join(next(iter(each.describe())).documentation for each in all_metrics().values())
CODES = {error.code for error in vars(errors).values() if hasattr(error, "code")}


@each_alert
def test_an_alert_queries_metrics_with_labels_and_values_that_exist(alert: Alert) -> None:
    selectors = SELECTOR.findall(alert.expression)
    assert selectors or alert.expression.startswith("up{")
    for name, filters in selectors:
        metric = SERIES[name]
        for label, values in FILTER.findall(filters):
            assert label in {*metric._labelnames} | GENERAL  # noqa: SLF001 - shown nowhere else
            for value in values.split("|"):
                known = value in CODES or re.search(rf"\b{value}\b", TEXTS)
                assert known or label in {"route", "code", "kind"}, value


@each_alert
def test_an_alert_says_how_bad_it_is_and_where_its_section_is(alert: Alert) -> None:
    labels, annotations = alert.rule["labels"], alert.rule["annotations"]
    assert isinstance(labels, dict)
    assert isinstance(annotations, dict)
    assert labels["severity"] in {"page", "ticket"}
    assert annotations["summary"]
    assert annotations["runbook"] == f"{PAGE}#{alert.name.lower()}"


@each_alert
def test_the_first_event_counts(alert: Alert) -> None:
    """Prometheus sees no increase in a series that begins with its first event."""
    begin_web_at_zero(["hgmo"])
    begin_worker_at_zero(["hgmo"], SUFFIXES)
    for name, filters in INCREASE.findall(alert.expression):
        for label, values in FILTER.findall(filters):
            for value in () if name.startswith("archiver_http") else values.split("|"):
                samples = [
                    sample
                    for sample in next(iter(SERIES[name].collect())).samples
                    if sample.name == name and sample.labels[label] == value
                ]
                assert samples, f"{name} with {value}"
    if "archiver_http" in alert.expression and "increase" in alert.expression:
        assert "unless" in alert.expression


def test_each_section_belongs_to_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(alert.name for alert in ALERTS)
