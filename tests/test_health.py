"""The health of the service follows from that of its parts."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from archiver.breaker import Breaker, BreakerName
from archiver.errors import ArchiverError, EngineUnavailable, NoWorker, StorageUnavailable
from archiver.health import (
    Health,
    Heartbeat,
    check_worker,
    health_of,
    health_of_breakers,
    render_heartbeat,
    source_of,
)
from archiver.model import Region
from archiver.ports.queue import WorkerReport
from archiver.testing import MemoryEngine, MemoryStorage

EAST, WEST = Region("us-east-1"), Region("us-west-2")
SOUND = {EAST: None, WEST: None}


def reporting(*regions: Mapping[Region, str | None]) -> list[WorkerReport]:
    return [WorkerReport(name=f"w:{number}", regions=each) for number, each in enumerate(regions)]


def messages(health: Health) -> dict[str, str]:
    return {part: error.message for part, error in health.items() if error}


def test_a_service_is_healthy_if_all_parts_work() -> None:
    health = health_of(engine=None, regions=SOUND, reports=reporting({EAST: None, WEST: None}))
    assert render_heartbeat(health)[0] == 200
    assert messages(health) == {}


def test_a_breaker_is_a_warning_even_if_it_is_that_of_every_region() -> None:
    until = datetime.now(UTC) + timedelta(minutes=1)
    names = (*(BreakerName("region", region) for region in SOUND), BreakerName("source", "hgmo"))
    opened = dict.fromkeys(names, Breaker(until=until, code="timeout"))
    health = {**health_of(engine=None, regions=SOUND), **health_of_breakers(opened)}
    status, body = render_heartbeat(health)
    assert (status, body["status"]) == (200, "warning")
    source = health["breaker.source.hgmo"]
    assert source
    assert (source.code, until.isoformat(timespec="seconds") in source.message) == (
        "source_paused",
        True,
    )
    assert [part for part in health if source_of(part)] == ["breaker.source.hgmo"]


def test_a_service_without_workers_is_unhealthy() -> None:
    health = health_of(engine=None, regions=SOUND, reports=[])
    assert isinstance(health["workers"], NoWorker)
    assert render_heartbeat(health)[0] == 500


def test_a_service_whose_workers_all_drain_is_unhealthy() -> None:
    (one,) = reporting(SOUND)
    drains = replace(one, draining=True)
    health = health_of(engine=None, regions=SOUND, reports=[drains])
    assert isinstance(health["workers"], NoWorker)
    assert "drain" in health["workers"].message
    assert render_heartbeat(health)[0] == 500
    for working in (one, replace(one, draining=False)):  # one is of an earlier release
        health = health_of(engine=None, regions=SOUND, reports=[drains, working])
        assert render_heartbeat(health)[0] == 200


def test_a_draining_worker_warns() -> None:
    async def play() -> Health:
        return await check_worker(MemoryEngine(), MemoryStorage(), draining=True)

    status, body = render_heartbeat(asyncio.run(play()))
    assert (status, body["status"]) == (200, "warning")
    assert "worker" in str(body["checks"])


def test_unreachable_workers_are_unhealthy() -> None:
    lost = EngineUnavailable("the engine is not connected")
    health = health_of(engine=lost, regions=SOUND, reports=lost)
    assert (health["engine"], health["workers"]) == (lost, lost)


@pytest.mark.parametrize(
    ("reports", "problem"),
    (
        ([{EAST: None, WEST: None}], None),
        ([{EAST: None, WEST: "no room"}], "no room"),
        ([{EAST: None, WEST: "no room"}, {EAST: None, WEST: None}], None),
        ([{EAST: None, WEST: "no room"}, {EAST: None, WEST: "read only"}], "no room"),
        ([{EAST: None}], None),
    ),
)
def test_a_region_works_if_one_worker_can_write_to_it(
    reports: list[dict[Region, str | None]], problem: str | None
) -> None:
    health = health_of(engine=None, regions=SOUND, reports=reporting(*reports))
    assert messages(health) == ({} if problem is None else {"region.us-west-2": problem})
    assert render_heartbeat(health)[0] == 200


def test_an_unreachable_region_reports_its_own_error() -> None:
    silent = StorageUnavailable("us-west-2 did not list its bucket in time")
    reports = reporting({EAST: None, WEST: "us-west-2 did not store a probe"})
    health = health_of(engine=None, regions={EAST: None, WEST: silent}, reports=reports)
    assert health["region.us-west-2"] is silent


def test_the_log_has_the_reason_of_a_failed_region() -> None:
    refusing = StorageUnavailable("us-east-1 did not list its bucket", s3_code="AccessDenied")
    reports = reporting({WEST: "us-west-2 did not store a probe (QuotaExceeded)"})

    async def check() -> Health:
        return health_of(engine=None, regions={EAST: refusing, WEST: None}, reports=reports)

    with capture_logs() as lines:
        asyncio.run(Heartbeat(check=check).health())
    assert {line["part"]: line["reason"] for line in lines} == {
        "region.us-east-1": "us-east-1 did not list its bucket (AccessDenied)",
        "region.us-west-2": "us-west-2 did not store a probe (QuotaExceeded)",
    }


def test_without_a_writable_region_the_service_is_unhealthy() -> None:
    reports = reporting({EAST: "no room", WEST: "no room"})
    status, body = render_heartbeat(health_of(engine=None, regions=SOUND, reports=reports))
    assert (status, body["status"]) == (500, "error")


@pytest.mark.parametrize(
    ("engine", "status"), ((None, 200), (EngineUnavailable("it does not answer"), 500))
)
def test_a_worker_reports_its_health_without_the_fleets(
    engine: ArchiverError | None, status: int
) -> None:
    got, body = render_heartbeat(health_of(engine=engine, regions=SOUND))
    assert got == status
    assert body["checks"] == {
        "engine": "error" if engine else "ok",
        "region.us-east-1": "ok",
        "region.us-west-2": "ok",
    }
