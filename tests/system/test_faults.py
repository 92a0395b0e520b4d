"""Responses and tasks while processes are killed or frozen and servers are down or wiped."""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts.hgweb import Ash, Hgweb, Repository
from tests.parts.process import wait_until
from tests.parts.slow_host import SlowHost
from tests.system.client import Answer, ended, fetch, poll, stored, succeed
from tests.system.stack import LEASE_S, REGIONS, Stack, servers

pytestmark = pytest.mark.thorough

SLOW = 300_000
"""Bytes per second. At this rate the large archive takes several seconds."""


@pytest.fixture
def stack(tmp_path: Path, hgweb: Hgweb, host: SlowHost) -> Iterator[Stack]:
    with servers(tmp_path, template=hgweb.template_for(host.port)) as stack:
        yield stack


def fetching(result: dict[str, Any]) -> bool:
    return bool(result["state"] == "STARTED" and result["bytes_done"])


def test_a_worker_killed_during_a_build_loses_no_task(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    url = stack.url(large.name, large.tip)
    host.rate = SLOW
    with stack.web(), stack.worker("worker-1") as victim:
        status = fetch(url).location
        poll(status, fetching)
        half_way = _manifests(stack)
        victim.kill()
        victim.wait()
        killed = time.monotonic()
        with stack.worker("worker-2"):
            host.rate = None
            result = poll(status, stored)[-1]
        took = time.monotonic() - killed

    assert half_way == []
    assert (result["state"], result["attempt"]) == ("SUCCESS", 2)
    assert set(result["s3_urls"]) == set(REGIONS)
    assert took < LEASE_S + 15


def test_a_stopping_worker_hands_its_task_back_at_once(
    tmp_path: Path, hgweb: Hgweb, large: Repository, host: SlowHost
) -> None:
    settings = {"ARCHIVER_WORKER__GRACE_S": "0", "ARCHIVER_ENGINE__LEASE_S": "60"}
    template = hgweb.template_for(host.port)
    with (
        servers(tmp_path, template=template, settings=settings) as stack,
        stack.web(),
        stack.worker("worker-2-to-be") as leaving,
    ):
        host.rate = SLOW
        status = fetch(stack.url(large.name, large.tip)).location
        poll(status, fetching)
        leaving.send_signal(signal.SIGTERM)
        assert leaving.wait(20) == 0
        host.rate = None
        with stack.worker("worker-next"):
            result = poll(status, stored)[-1]  # long before the lease of 60 s is over
        log = stack.logs()

    assert (result["state"], result["failures"]) == ("SUCCESS", 0)
    assert "task.handed_back" in log


def test_a_worker_that_resumes_after_its_lease_changes_nothing(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    url = stack.url(large.name, large.tip)
    host.rate = SLOW
    with stack.web(), stack.worker("worker-1") as frozen:
        status = fetch(url).location
        poll(status, fetching)
        frozen.send_signal(signal.SIGSTOP)
        with stack.worker("worker-2"):
            host.rate = None
            first = poll(status, stored)[-1]
            frozen.send_signal(signal.SIGCONT)
            wait_until(
                lambda: "task.lost" in stack.logs() or "task.let_go" in stack.logs(),
                what="the end of the frozen attempt",
            )
            second = poll(status, stored)[-1]

    assert first["state"] == second["state"] == "SUCCESS"
    assert first["sha256"] == second["sha256"]
    assert first["attempt"] == second["attempt"] == 2
    assert len(_manifests(stack)) == len(REGIONS)


def test_an_unavailable_region_gets_its_copy_later_and_not_from_the_host(
    stack: Stack, ash: Ash, host: SlowHost
) -> None:
    url = stack.url(ash.repo, ash.node)
    unavailable = stack.regions["us-west-2"]
    unavailable.down()
    with stack.web(), stack.worker():
        result = succeed(url, until=ended)
        redirected = fetch(f"{url}?preferred_region=us-west-2")
        fetched = host.archives()
        unavailable.up()
        status = redirected.headers["Link"].partition(">")[0].removeprefix("<")
        repaired = poll(status, lambda result: len(result["s3_urls"]) == len(REGIONS))[-1]
        served = _redirected_to("us-west-2", url)
        body = fetch(served.location).body

    assert list(result["s3_urls"]) == ["us-east-1"]
    assert result["regions_missing"] == ["us-west-2"]
    assert "1 of 2" in result["status"]
    assert redirected.headers["Archiver-Region"] == "us-east-1"
    assert repaired["regions_missing"] == []
    assert served.headers["Archiver-Region"] == "us-west-2"
    assert len(body) == result["size"]
    assert host.archives() == fetched


def _redirected_to(region: str, url: str) -> Answer:
    """Return the redirect to *region* once it is not avoided any longer."""
    preferring = f"{url}?preferred_region={region}"
    wait_until(
        lambda: fetch(preferring).headers["Archiver-Region"] == region, what="redirects there"
    )
    return fetch(preferring)


def test_an_outage_of_all_regions_causes_no_fetch_and_fails_no_task(
    stack: Stack, ash: Ash, host: SlowHost
) -> None:
    stack.env["ARCHIVER_WORKER__MAX_FAILURES"] = "1"
    with stack.web():
        accepted = fetch(stack.url(ash.repo, ash.node))
        for region in REGIONS:
            stack.regions[region].down()
        with stack.worker():
            waiting = poll(accepted.location, lambda result: result["attempt"] >= 3)[-1]
            miss = fetch(stack.url(ash.repo, ash.old))
            fetched = host.archives()
            for region in REGIONS:
                stack.regions[region].up()
            result = poll(accepted.location, stored)[-1]
        line = json.loads(stack.lines("task.waiting")[0])

    assert (miss.status, miss.json["code"]) == (503, "storage_unavailable")
    assert fetched == []
    assert waiting["error"]["code"] == "storage_unavailable"
    assert (waiting["failures"], waiting["state"] in {"RETRY", "STARTED"}) == (0, True)
    assert (line["level"], line["s3_code"]) == ("warning", "connection_refused")
    assert (result["state"], result["failures"]) == ("SUCCESS", 0)
    assert len(host.archives()) == 1


def test_the_primary_region_may_be_the_unavailable_one(stack: Stack, ash: Ash) -> None:
    url = stack.url(ash.repo, ash.node)
    unavailable = stack.regions["us-east-1"]
    unavailable.down()
    with stack.web(), stack.worker():
        result = succeed(url, until=ended)
        unavailable.up()
        status = fetch(url).headers["Link"].partition(">")[0].removeprefix("<")
        repaired = poll(status, lambda result: len(result["s3_urls"]) == len(REGIONS))[-1]

    assert list(result["s3_urls"]) == ["us-west-2"]
    assert repaired["sha256"] == result["sha256"]


def test_wiping_the_engine_loses_no_archive(stack: Stack, ash: Ash, host: SlowHost) -> None:
    url = stack.url(ash.repo, ash.node)
    with stack.web(), stack.worker():
        before = succeed(url)
        fetched = host.archives()
        _wipe_engine(stack)
        hit = fetch(url)
        status = hit.headers["Link"].partition(">")[0].removeprefix("<")
        after = poll(status, stored)[-1]
        wait_until(lambda: _is_healthy(stack), what="the creation of its streams", timeout_s=60)
        other = succeed(stack.url(ash.repo, ash.old))

    assert hit.status == 302
    assert (after["state"], after["sha256"]) == ("SUCCESS", before["sha256"])
    assert [target for target in host.archives() if ash.node[:12] in target] == fetched
    assert other["state"] == "SUCCESS"


def test_accepted_tasks_succeed_although_the_engine_was_wiped(stack: Stack, ash: Ash) -> None:
    urls = [stack.url(ash.repo, node) for node in (ash.node, ash.old, ash.tip)]
    with stack.web():
        accepted = [fetch(url) for url in urls]
        _wipe_engine(stack)
        with stack.worker():
            results = [poll(answer.location, stored)[-1] for answer in accepted]

    assert {answer.status for answer in accepted} == {202}
    assert {result["state"] for result in results} == {"SUCCESS"}


def test_hits_are_served_while_the_engine_and_the_host_are_unavailable(
    stack: Stack, ash: Ash, host: SlowHost
) -> None:
    url = stack.url(ash.repo, ash.node)
    with stack.web():
        with stack.worker():
            succeed(url)
            for _ in range(30):  # until every web process has the hit in its cache
                fetch(stack.url(ash.repo, ash.node[:12]))
        stack.nats.down()
        host.close()
        hits = [fetch(url), fetch(stack.url(ash.repo, ash.node[:12]))]
        heartbeat = fetch(f"{stack.public}/__heartbeat__")
        miss = fetch(stack.url(ash.repo, ash.old))
    with stack.web():  # with empty caches
        cold = fetch(url)

    assert [hit.status for hit in hits] == [302, 302]
    assert cold.status == 302
    assert heartbeat.status == 500
    assert miss.status in {502, 503}
    assert miss.json["code"] in {"source_unavailable", "engine_unavailable"}


def test_a_truncated_fetch_stores_nothing_and_is_retried(
    stack: Stack, large: Repository, host: SlowHost
) -> None:
    stack.env["ARCHIVER_WORKER__RETRY_BASE_S"] = "4"  # long enough for a poll
    host.rate = SLOW
    with stack.web(), stack.worker():
        status = fetch(stack.url(large.name, large.tip)).location
        poll(status, fetching)
        host.cut()
        retrying = poll(status, lambda result: result["state"] in {"RETRY", "SUCCESS"})[-1]
        visible = _manifests(stack)
        host.rate = None
        result = poll(status, stored)[-1]

    assert retrying["error"]["code"] in {"truncated_archive", "source_unavailable"}
    assert retrying["s3_urls"] == {}
    assert visible == []
    assert (result["state"], result["failures"]) == ("SUCCESS", 1)


def test_a_task_for_a_stored_archive_ends_without_a_fetch(
    stack: Stack, ash: Ash, host: SlowHost
) -> None:
    """The web process sees no manifests, as if it had looked just before their commit."""
    url = stack.url(ash.repo, ash.node)
    with stack.web(), stack.worker():
        succeed(url)
        fetched = host.archives()
    _wipe_engine(stack)
    _rename_in_buckets(stack, "manifests", "aside")
    with stack.web():
        accepted = fetch(url)
        _rename_in_buckets(stack, "aside", "manifests")
        with stack.worker("worker-2"):
            result = poll(accepted.location, stored)[-1]

    assert accepted.status == 202
    assert result["state"] == "SUCCESS"
    assert host.archives() == fetched


def _manifests(stack: Stack) -> list[Path]:
    """Return the manifests in all buckets."""
    return [
        path for region in REGIONS for path in stack.visible(region) if "manifests" in path.parts
    ]


def _rename_in_buckets(stack: Stack, name: str, to: str) -> None:
    for region in REGIONS:
        stack.regions[region].down()
        (stack.folder / region / "bucket" / name).rename(stack.folder / region / "bucket" / to)
        stack.regions[region].up()


def _is_healthy(stack: Stack) -> bool:
    return fetch(f"{stack.public}/__heartbeat__").status == 200


def _wipe_engine(stack: Stack) -> None:
    stack.nats.down()
    shutil.rmtree(stack.folder / "nats" / "store")
    stack.nats.up()
