"""Each alert fires in Prometheus when it should, and none in a fleet that works."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deploy.test_alerts import ALERTS, RULES

pytestmark = pytest.mark.programs

PROMTOOL = "/usr/bin/promtool"

Values = Mapping[str, str]
"""Values of each series, a minute apart, in promtool's notation: ``0+1x60`` grows by one."""

SLOW = 'archiver_http_request_duration_seconds_bucket{route="archive", code="302", le="%s"}'

HEALTHY: Values = {
    'up{job="archiver-web", instance="a"}': "1x4500",
    'archiver_engine_connected{instance="a"}': "1x4500",
    'archiver_engine_connected{instance="b"}': "1x4500",
    'archiver_engine_works{process="web"}': "1x4500",
    'archiver_engine_works{process="worker"}': "1x4500",
    'archiver_workers{state="active"}': "2x4500",
    'archiver_build_info{version="1.0.0"}': "1x4500",
    "archiver_access_unreadable": "0x4500",
    'archiver_breaker_state{kind="source", name="hgmo"}': "0x4500",
    'archiver_queue_oldest_task_age_seconds{source="hgmo", lane="hi"}': "5x4500",
    'archiver_queue_oldest_task_age_seconds{source="hgmo", lane="deferred"}': "0+60x4500",
    'archiver_engine_fullness{place="tasks"}': "0.1x4500",
    'archiver_engine_fullness{place="index"}': "0.5x4500",
    'archiver_region_reachable{region="one"}': "1x4500",
    'archiver_region_writable{region="one"}': "1x4500",
    'archiver_region_reachable{region="two"}': "1x4500",
    'archiver_region_writable{region="two"}': "1x4500",
    'archiver_copies_lacking{region="one"}': "0x4500",
    "archiver_sweep_finished_timestamp_seconds": "0x60 3600+86400x1",
    'archiver_attempts_total{source="hgmo", outcome="succeeded"}': "0+9x4500",
    'archiver_attempts_total{source="hgmo", outcome="failed"}': "0+1x4500",
    'archiver_requests_total{source="hgmo", outcome="hit"}': "0+9x4500",
    SLOW % "0.1": "0+9x4500",
    SLOW % "+Inf": "0+9x4500",
    'archiver_http_request_duration_seconds_count{route="heartbeat", code="500"}': "0+1x4500",
}  # fmt: skip


class Case(NamedTuple):
    """``values`` in the place of those of a fleet that works, and how long they must last."""

    values: Values
    minutes: int
    number: int = 1


NONE_REACHABLE = {f'archiver_region_reachable{{region="{each}"}}': "0x9" for each in ("one", "two")}
NONE_WRITABLE = {f'archiver_region_writable{{region="{each}"}}': "0x99" for each in ("one", "two")}

CASES: Mapping[str, Case] = {
    "ArchiverDown": Case({'up{job="archiver-web", instance="a"}': "0x9"}, 3),
    "ArchiverNoWorker": Case({'archiver_workers{state="active"}': "0x9"}, 3),
    "ArchiverAbsent": Case({'archiver_build_info{version="1.0.0"}': "_x9"}, 3),
    "ArchiverEngineAway": Case(
        {f'archiver_engine_works{{process="{each}"}}': "0x9" for each in ("web", "worker")}, 3
    ),
    "ArchiverProcessWithoutEngine": Case({'archiver_engine_connected{instance="a"}': "0x9"}, 6),
    "ArchiverBug": Case(
        {'archiver_http_request_duration_seconds_count{route="file", code="500"}': "_ _ 1 1"}, 3
    ),
    "ArchiverHitsSlow": Case({SLOW % "0.1": "0x40", SLOW % "30": "0+9x40"}, 35),
    "ArchiverWaitersRefused": Case(
        {'archiver_requests_total{source="hgmo", outcome="too_many_waiters"}': "0 1 1"}, 2
    ),
    "ArchiverAccessUnreadable": Case({"archiver_access_unreadable": "1x9"}, 6),
    "ArchiverSeveralVersions": Case({'archiver_build_info{version="1.0.1"}': "1x1500"}, 1441),
    "ArchiverQueueOld": Case(
        {'archiver_queue_oldest_task_age_seconds{source="hgmo", lane="parked"}': "601x9"}, 6
    ),
    "ArchiverQueueFull": Case({'archiver_refusals_total{code="queue_full"}': "0 1 1"}, 2),
    "ArchiverEngineFull": Case({'archiver_engine_fullness{place="tasks"}': "0.95x9"}, 6),
    "ArchiverIndexFull": Case({'archiver_engine_fullness{place="index"}': "1x90"}, 61),
    "ArchiverAttemptsLost": Case(
        {'archiver_attempts_total{source="hgmo", outcome="lost"}': "0+1x9"}, 9
    ),
    "ArchiverTasksWaitForUs": Case(
        {'archiver_attempts_total{source="hgmo", outcome="waiting"}': "0+1x40"}, 20
    ),
    "ArchiverNothingBuilt": Case(
        {
            'archiver_attempts_total{source="hgmo", outcome="waiting"}': "0+1x40",
            'archiver_attempts_total{source="hgmo", outcome="succeeded"}': "9x40",
        },
        30,
    ),
    "ArchiverConversionsLost": Case(
        {'archiver_conversions_total{suffix="zip", outcome="lost"}': "0+1x9"}, 9
    ),
    "ArchiverSourcePaused": Case(
        {'archiver_breaker_state{kind="source", name="hgmo"}': "2x4 1 2x4 1 2x4 1x40"}, 16
    ),
    "ArchiverBuildsFail": Case(
        {
            'archiver_attempts_total{source="hgmo", outcome="failed"}': "0+2x40",
            'archiver_attempts_total{source="hgmo", outcome="succeeded"}': "0+1x40",
        },
        30,
    ),
    "ArchiverBytesChanged": Case(
        {'archiver_source_errors_total{source="hgmo", code="bytes_changed"}': "0 1 1"}, 2
    ),
    "ArchiverMirrorsDamaged": Case(
        {'archiver_mirror_removals_total{reason="damaged"}': "0+1x9"}, 9
    ),
    "ArchiverRegionAway": Case({'archiver_region_reachable{region="one"}': "0x9"}, 6),
    "ArchiverAllRegionsAway": Case(NONE_REACHABLE, 2),
    "ArchiverRegionReadOnly": Case({'archiver_region_writable{region="two"}': "0x99"}, 11),
    "ArchiverNothingWritable": Case(NONE_WRITABLE, 3),
    "ArchiverCopiesLack": Case({'archiver_copies_lacking{region="one"}': "3x200"}, 121),
    "ArchiverCopiesGone": Case({'archiver_checks_total{outcome="gone"}': "0+2x60"}, 10),
    "ArchiverSweepLate": Case({"archiver_sweep_finished_timestamp_seconds": "60x4500"}, 4400),
    "ArchiverValuesUnreadable": Case(
        {'archiver_unreadable_values_total{place="states"}': "0 1 1"}, 2
    ),
}  # fmt: skip


def fired(values: Values, minutes: int, alerts: Sequence[str], folder: Path) -> set[str]:
    """Return which of *alerts* fire after so many minutes of *values*."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in values.items()],
                "alert_rule_test": [
                    {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": []}
                    for name in alerts
                ],
            }
        ],
    }
    file = folder / "test.json"  # YAML includes JSON
    file.write_text(json.dumps(test))
    ended = subprocess.run(
        [PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    text = ended.stdout + ended.stderr
    found = {name for name in alerts if f"alertname: {name}, time" in text}
    assert bool(found) is bool(ended.returncode), text
    return found


def test_promtool_accepts_the_rules() -> None:
    command = [PROMTOOL, "check", "rules", "--lint=all", "--lint-fatal", str(RULES)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("alert", [alert.name for alert in ALERTS])
def test_an_alert_fires_when_it_should(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    assert alert in fired({**HEALTHY, **case.values}, case.minutes, [alert], tmp_path)


@pytest.mark.parametrize("minutes", (1, 60, 1440, 4400))
def test_no_alert_fires_in_a_fleet_that_works(minutes: int, tmp_path: Path) -> None:
    values = {
        **HEALTHY,
        "archiver_sweep_finished_timestamp_seconds": "0x60 3600x1380 90000+60x3000",
    }
    names = [alert.name for alert in ALERTS]
    assert fired(values, minutes, names, tmp_path) == set()


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    page = json.loads((RULES.parents[1] / "grafana" / "dashboard.json").read_text())
    queries = [query["expr"] for panel in page["panels"] for query in panel.get("targets", ())]
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "rules.json"  # YAML includes JSON
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = [PROMTOOL, "check", "rules", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert len(rules) > 50
