"""The findings about NATS and the workers, on real servers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.diagnosis.engine_check import EngineCheck
from archiver.diagnosis.finding import Finding, Level
from archiver.diagnosis.worker_check import examine_workers
from archiver.jetstream.capacity import Capacity
from archiver.jetstream.connection import connect
from archiver.jetstream.connection_faults import CHECKS
from archiver.jetstream.inspection import Inspection, open_inspection
from archiver.jetstream.link import Servers
from archiver.jetstream.replication import Replication
from archiver.model import Region
from archiver.ports.diagnosis import EngineFault, StorageFacts
from archiver.ports.queue import WorkerReport
from tests.diagnosis.diagnosing import diagnose, of, unwell
from tests.parts.fleet import prepared
from tests.parts.nats import Nats
from tests.parts.nats_cluster import cluster
from tests.parts.process import free_port, wait_until
from tests.parts.secured_nats import secured

ARCHIVES = 1000
PATIENT = timedelta(minutes=2)


def examine(
    *urls: str, namespace: str, replicas: int = 1, capacity: Capacity | None = None
) -> list[Finding]:
    servers = Servers(urls=urls, replicas=replicas, capacity=capacity or Capacity())
    check = EngineCheck(
        open_engine=lambda: open_inspection(servers, namespace=namespace),
        replicas=replicas,
        version="1",
    )

    async def play() -> list[Finding]:
        return [finding async for finding in check.run()]

    return asyncio.run(play())


def test_a_fleet_without_workers_has_failed(nats: Nats, namespace: str) -> None:
    prepared(nats, namespace)
    found = examine(nats.url, namespace=namespace)
    (finding,) = unwell(found)
    assert (finding.check, finding.level) == ("workers", Level.FAILED)
    assert finding.found == "no worker answers, so nothing is built"
    assert finding.action.startswith("start a worker")
    assert of(found, "engine").found.startswith("NATS 2.")
    assert of(found, "engine").found.endswith(", one server")
    assert of(found, "engine.streams").found == "all 7 exist"


def test_streams_that_do_not_exist_yet_are_well_and_not_created(nats: Nats, namespace: str) -> None:
    found = examine(nats.url, namespace=namespace)
    assert of(found, "engine.streams").found.startswith("none yet: the next web process or worker")
    assert of(examine(nats.url, namespace=namespace), "engine.streams") in found


def test_other_limits_may_be_those_of_other_settings(nats: Nats, namespace: str) -> None:
    prepared(nats, namespace)
    found = examine(nats.url, namespace=namespace, capacity=Capacity(archives=ARCHIVES))
    finding = of(found, "engine.limits")
    assert finding.level is Level.WARNING
    assert finding.action.startswith(
        "give every process of the fleet the same sources and engine.archives, or lower "
    )


@pytest.mark.thorough
def test_a_server_that_is_away_is_named(namespace: str) -> None:
    (finding,) = examine(f"nats://127.0.0.1:{free_port()}", namespace=namespace)
    assert (finding.check, finding.level) == ("engine", Level.FAILED)
    assert finding.found == "the connection is refused (refused)"
    assert finding.action == f"check {CHECKS['refused']}"


@pytest.mark.thorough
def test_a_wrong_password_is_named(tmp_path: Path) -> None:
    users = '{jetstream}\nauthorization { users = [ { user: "archiver", password: "right" } ] }\n'
    with secured(tmp_path, users) as (port, _):
        engine = {"url": f"nats://127.0.0.1:{port}", "user": "archiver", "password": "precious"}
        (finding,) = diagnose({"engine": engine}, only="engine")
    assert finding.level is Level.FAILED
    assert finding.found == "the server refuses the login (not_authorized)"
    assert "precious" not in str(finding)


@pytest.mark.thorough
def test_streams_on_fewer_servers_than_the_setting_says_and_replicas_that_are_away(
    tmp_path: Path,
) -> None:
    namespace = f"test{secrets.token_hex(4)}"
    with cluster(tmp_path) as three:

        async def change(replicas: int) -> None:
            servers = Servers(urls=three.urls, replicas=1, capacity=Capacity(archives=ARCHIVES))
            async with connect(servers, namespace=namespace, name="test") as connection:
                await asyncio.wait_for(connection.prepared.wait(), 60)
                replication = Replication(connection=connection, configured_replicas=1)
                await replication.set_replicas(replicas, within=PATIENT)

        asyncio.run(change(1))
        finding = replicas_of(three.urls, namespace, 1)
        assert "NATS is a cluster, and each stream is on one of its servers" in finding.found
        finding = replicas_of(three.urls, namespace, 3)
        assert finding.found == "engine.replicas is 3, but 7 streams have 1"
        assert finding.action == "run `archiver engine set-replicas 3`"
        asyncio.run(change(3))
        assert replicas_of(three.urls, namespace, 3).level is Level.OK
        three.down(2)
        finding = replicas_of(three.urls[:2], namespace, 3)
        assert finding.found.startswith("some replicas are away or behind: ")


@pytest.mark.thorough
def test_a_cluster_without_a_quorum_is_named(tmp_path: Path, namespace: str) -> None:
    """Its last server notices that after some seconds, and does not answer until then."""

    def finding(url: str) -> Finding:
        return of(examine(url, namespace=namespace, replicas=3), "engine.jetstream")

    with cluster(tmp_path) as three:
        wait_until(lambda: finding(three.urls[0]).level is Level.OK)
        three.down(1)
        three.down(2)
        wait_until(lambda: "no_quorum" in finding(three.urls[0]).found)
        failed = finding(three.urls[0])
    assert failed.found == "the cluster has no quorum (no_quorum)"
    assert failed.action.endswith("start the others")


@pytest.mark.thorough
def test_a_server_that_hangs_is_a_possible_cause_of_silence(nats: Nats, namespace: str) -> None:
    async def play() -> StorageFacts | EngineFault:
        servers = Servers(urls=[nats.url])
        async with open_inspection(servers, namespace=namespace) as inspection:
            nats.freeze()
            try:
                return await inspection.storage()
            finally:
                nats.thaw()

    fault = asyncio.run(play())
    assert isinstance(fault, EngineFault)
    assert fault.reason == "silent"
    assert fault.check.startswith("whether the server at this address hangs or")


class LaggingOnce:
    """An engine whose replicas are behind in its first answer."""

    def __init__(self, engine: Inspection) -> None:
        self.server = engine.server
        self.workers = engine.workers
        self._engine = engine
        self.answers = 0

    async def storage(self) -> StorageFacts | EngineFault:
        storage = await self._engine.storage()
        self.answers += 1
        if self.answers > 1 or isinstance(storage, EngineFault):
            return storage
        return replace(storage, streams=[replace(each, current=0) for each in storage.streams])


def test_a_replica_that_lags_for_a_moment_is_well(nats: Nats, namespace: str) -> None:
    prepared(nats, namespace)
    opened: list[LaggingOnce] = []

    @asynccontextmanager
    async def open_lagging() -> AsyncIterator[LaggingOnce]:
        async with open_inspection(Servers(urls=[nats.url]), namespace=namespace) as inspection:
            opened.append(LaggingOnce(inspection))
            yield opened[0]

    check = EngineCheck(open_engine=open_lagging, replicas=1, version="1")

    async def play() -> list[Finding]:
        return [finding async for finding in check.run()]

    assert of(asyncio.run(play()), "engine.replicas").level is Level.OK
    assert opened[0].answers == 2


def replicas_of(urls: Sequence[str], namespace: str, replicas: int) -> Finding:
    found = examine(*urls, namespace=namespace, replicas=replicas)
    return of(found, "engine.replicas")


def test_workers_of_other_versions_are_named() -> None:
    reports = [
        WorkerReport(name=f"host:{number}", regions={}, version=version)
        for number, version in enumerate(("1.1", "1.2", None))
    ]
    finding = of([*examine_workers(reports, version="1.2")], "workers.versions")
    assert finding.level is Level.WARNING
    assert finding.found == "workers are of version 1.1, unknown, and this program of 1.2"


def test_workers_that_cannot_write_are_named() -> None:
    broken = {Region("one"): "one did not store a probe (AccessDenied)", Region("two"): None}
    reports = [WorkerReport(name="host:1", regions=broken, version="1")]
    finding = of([*examine_workers(reports, version="1")], "workers.regions")
    assert finding.found == "some workers cannot write to one: host:1"
    assert "look at region.one" in finding.action


def test_workers_that_all_drain_are_a_failure() -> None:
    reports = [WorkerReport(name="host:1", regions={}, draining=True, version="1")]
    assert of([*examine_workers(reports, version="1")], "workers").level is Level.FAILED
