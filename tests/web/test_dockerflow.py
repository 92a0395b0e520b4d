"""Heartbeats, version, metrics and robots.txt."""

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from archiver.health import Heartbeat
from archiver.model import Region
from archiver.ports.queue import WorkerReport
from tests.memory_world import ASH, World
from tests.web.client import Client

ROOT = Path(__file__).parents[2]


def test_the_version_names_the_deployed_release(web: Client) -> None:
    assert web.get("/__version__").json == {"version": "1.2.3", "commit": "c0ffee"}


def test_lbheartbeat_contacts_no_other_part(web: Client) -> None:
    web.world.engine.down = True
    web.world.storage.down.update(web.world.storage.regions)
    assert web.get("/__lbheartbeat__").status == 200


def test_all_is_well(web: Client) -> None:
    response = web.get("/__heartbeat__")
    assert (response.status, response.json["status"]) == (200, "ok")
    assert response.json["checks"] == {
        "engine": "ok",
        "workers": "ok",
        "region.us-east-1": "ok",
        "region.us-west-2": "ok",
    }


def test_one_region_down_is_a_warning(web: Client) -> None:
    web.world.storage.down.add(Region("us-west-2"))
    response = web.get("/__heartbeat__")
    assert (response.status, response.json["status"]) == (200, "warning")
    assert response.json["checks"]["region.us-west-2"] == "warning"
    assert response.json["details"]["region.us-west-2"] == {
        "status": "warning",
        "level": 30,
        "messages": {"storage_unavailable": "us-west-2 does not answer"},
    }


def test_all_regions_down_is_an_error(web: Client) -> None:
    web.world.storage.down.update(web.world.storage.regions)
    response = web.get("/__heartbeat__")
    assert (response.status, response.json["status"]) == (500, "error")


def test_the_engine_down_is_an_error(web: Client) -> None:
    web.world.engine.down = True
    response = web.get("/__heartbeat__")
    assert (response.status, response.json["checks"]["engine"]) == (500, "error")


def test_a_service_without_workers_is_not_well(web: Client) -> None:
    web.world.engine.reports.clear()
    response = web.get("/__heartbeat__")
    assert (response.status, response.json["checks"]["workers"]) == (500, "error")
    assert "no_worker" in response.json["details"]["workers"]["messages"]


def test_a_region_that_no_worker_can_write_to_is_a_warning(web: Client) -> None:
    reason = "us-west-2 did not store a probe"
    full = WorkerReport(name="w:1", regions={Region("us-west-2"): reason})
    web.world.engine.reports[:] = [full]
    response = web.get("/__heartbeat__")
    assert (response.status, response.json["checks"]["region.us-west-2"]) == (200, "warning")


def test_a_heartbeat_is_good_for_some_seconds(web: Client) -> None:
    assert web.get("/__heartbeat__").status == 200
    web.world.engine.down = True
    assert web.get("/__heartbeat__").status == 200


def test_an_old_heartbeat_is_taken_again() -> None:
    world = World()
    heartbeat = Heartbeat(check=world.archiver.check_health, ttl=timedelta(0))

    async def scenario() -> list[str | None]:
        before = await heartbeat.health()
        world.engine.down = True
        after = await heartbeat.health()
        return [error.code if error else None for error in (before["engine"], after["engine"])]

    assert asyncio.run(scenario()) == [None, "engine_unavailable"]


def test_metrics_count_requests_by_their_outcome(web: Client) -> None:
    web.world.source.commit("metrics", {"a": b""}, "default")
    web.get("/archiver/hgmo/metrics/default")
    metrics = web.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'archiver_requests_total{outcome="miss",source="hgmo"}' in metrics.body.decode()


def test_no_metric_grows_with_names_that_clients_invent(web: Client) -> None:
    for target in ("/archiver/made-up/a/b", "/made-up", "/archiver/hgmo/made-up/made-up"):
        web.get(target)
    web.request("MADE-UP", f"/archiver/hgmo/{ASH}/default")
    assert b"made-up" not in web.get("/metrics").body.lower()


def test_metrics_cover_every_process_that_shares_a_folder(tmp_path: Path) -> None:
    program = (
        "from tests.web.client import client\n"
        "from tests.memory_world import World\n"
        "with client(World()) as web:\n"
        "    web.get('/archiver/hgmo/projects/ash/default')\n"
        "    print(web.get('/metrics').body.decode())\n"
    )
    alone, together = (
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout
        for _ in range(2)
    )
    sample = 'archiver_requests_total{outcome="miss",source="hgmo"}'
    assert f"{sample} 1.0" in alone
    assert f"{sample} 2.0" in together


def test_crawlers_are_kept_out(web: Client) -> None:
    assert web.get("/robots.txt").body == b"User-agent: *\nDisallow: /\n"
    for target in ("/robots.txt", "/nothing", f"/archiver/hgmo/{ASH}/default"):
        assert web.get(target).headers["x-robots-tag"] == "noindex, nofollow"
