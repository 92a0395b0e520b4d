"""The dashboard in deploy/ is the one that follows from the metrics."""

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from archiver.telemetry import METRICS
from tools.dashboard.queries import rate, seen, series

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "grafana" / "dashboard.json"


def test_the_file_is_that_of_the_metrics() -> None:
    """``make docs`` writes it."""
    made = subprocess.run(
        [sys.executable, "-m", "tools.dashboard"], cwd=ROOT, capture_output=True, check=True
    )
    assert made.stdout.decode() == FILE.read_text()


def test_panels_do_not_overlap_and_name_their_queries() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(FILE.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        names = [query["refId"] for query in panel.get("targets", ())]
        assert all(one != other for one, other in combinations(names, 2))


def test_every_variable_that_a_query_uses_exists() -> None:
    page = json.loads(FILE.read_text())
    known = {each["name"] for each in page["templating"]["list"]} | {"__rate_interval"}
    used = set(re.findall(r"\$\{?(\w+)", FILE.read_text()))
    assert used == known


def test_a_query_names_its_metric_and_filters_by_the_variables() -> None:
    assert series(METRICS.workers, state="active") == 'archiver_workers{state="active"}'
    assert series(METRICS.queue_oldest_age, lane="~hi|mid") == (
        'archiver_queue_oldest_task_age_seconds{source=~"$source",lane=~"hi|mid"}'
    )
    assert rate(METRICS.connections_closed) == (
        "sum (rate(archiver_connections_closed_total[$__rate_interval]))"
    )
    assert seen(METRICS.copies_lacking, "region") == (
        'max by (region) (archiver_copies_lacking{region=~"$region"})'
    )


def test_a_query_refuses_a_label_that_its_metric_does_not_have() -> None:
    with pytest.raises(ValueError, match="has no label colour"):
        series(METRICS.workers, colour="red")
