"""Responses after objects were deleted from the buckets of a running fleet."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.hgweb import Ash, Hgweb, Repository
from tests.parts.process import wait_until
from tests.parts.slow_host import SlowHost
from tests.system.client import Answer, fetch, poll, stored, succeed
from tests.system.stack import REGIONS, Stack, servers

pytestmark = pytest.mark.thorough

EAST, WEST = REGIONS
SETTINGS = {"ARCHIVER_SERVER__RECHECK_S": "0.5", "ARCHIVER_SERVER__HIT_TTL_S": "0.2"}


@pytest.fixture
def stack(tmp_path: Path, hgweb: Hgweb, host: SlowHost) -> Iterator[Stack]:
    template = hgweb.template_for(host.port)
    with (
        servers(tmp_path, template=template, settings=SETTINGS) as stack,
        stack.web(),
    ):
        yield stack


def _until(url: str, status: int, region: str | None = None) -> Answer:
    """Repeat the request until the response has *status*, and redirects to *region* if given."""
    answers: list[Answer] = []

    def answered() -> bool:
        answers.append(fetch(url))
        return (answers[-1].status, answers[-1].headers["Archiver-Region"]) == (status, region)

    wait_until(answered, what=f"a {status} of {region}")
    return answers[-1]


def test_a_deleted_copy_is_served_by_the_other_region_until_it_is_repaired(
    stack: Stack, ash: Ash, host: SlowHost
) -> None:
    url = stack.url(ash.repo, ash.node, f"preferred_region={WEST}")
    with stack.worker("worker-1"):
        before = succeed(url)
    fetched = host.archives()
    hits = [fetch(url), fetch(url)]
    stack.delete(WEST, "archives")

    _until(url, 302, EAST)
    with stack.worker("worker-2"):
        again = fetch(_until(url, 302, WEST).location)

    assert {hit.headers["Archiver-Region"] for hit in hits} == {WEST}
    assert hashlib.sha256(again.body).hexdigest() == before["sha256"]
    assert host.archives() == fetched
    assert stack.lines("copy.gone")


def test_an_archive_that_is_deleted_everywhere_is_rebuilt_with_identical_bytes(
    stack: Stack, ash: Ash
) -> None:
    url = stack.url(ash.repo, ash.node)
    with stack.worker("worker-1"):
        before = succeed(url)
    for region in REGIONS:
        stack.delete(region, "archives")

    accepted = _until(url, 202)
    with stack.worker("worker-2"):
        result = poll(accepted.location, stored)[-1]
        hit = _until(url, 302, EAST)

    assert (result["state"], result["sha256"]) == ("SUCCESS", before["sha256"])
    assert set(result["s3_urls"]) == set(REGIONS)
    assert hashlib.sha256(fetch(hit.location).body).hexdigest() == before["sha256"]


def test_a_lost_archive_is_not_replaced_if_the_host_now_sends_other_bytes(
    stack: Stack, fresh: Repository
) -> None:
    node = fresh.commit({"README": b"read me"})
    url = stack.url(fresh.name, node)
    with stack.worker("worker-1"):
        before = succeed(url)
    fresh.tag("V_1", node)
    for region in REGIONS:
        stack.delete(region, "archives")

    accepted = _until(url, 202)
    with stack.worker("worker-2"):
        result = poll(accepted.location, stored)[-1]
        refused = _until(url, 502)
    for region in REGIONS:
        stack.delete(region, "manifests")
    accepted = _until(url, 202)
    with stack.worker("worker-3"):
        after = poll(accepted.location, stored)[-1]

    assert (result["state"], result["error"]["code"]) == ("FAILURE", "bytes_changed")
    assert (refused.status, refused.json["code"]) == (502, "bytes_changed")
    assert after["state"] == "SUCCESS"
    assert after["sha256"] != before["sha256"]
