"""Requests of ``/archiver/…`` that are refused, or whose parts are away."""

from datetime import timedelta

import pytest

from archiver.errors import SourceBusy, SourceTimeout, SourceUnavailable
from tests.memory_world import ASH
from tests.web.client import DEFAULT, Client


def test_an_unsupported_suffix_is_refused_with_the_supported_ones(web: Client) -> None:
    response = web.get(f"{DEFAULT}?suffix=7z")
    assert (response.status, response.code) == (400, "invalid_request")
    assert response.json["parameter"] == "suffix"
    assert response.json["allowed"] == "tar.gz, tar.bz2, tar.xz, tar.zst, tar, zip"
    assert web.world.untouched


def test_an_unknown_parameter_is_refused_with_the_known_ones(web: Client) -> None:
    response = web.get(f"{DEFAULT}?region=us-west-2")
    assert (response.status, response.json["parameter"]) == (400, "region")
    assert response.json["allowed"] == (
        "rev, subdir, suffix, submodules, lfs, preferred_region, sha256, wait, on_miss"
    )


@pytest.mark.parametrize(
    ("target", "code"),
    (
        ("/archiver/hgxx/projects/ash/default", "unknown_source"),
        ("/archiver/status/projects/ash/default", "no_such_route"),
        ("/archiver/hgmo/projects/oak/default", "unknown_repo"),
        (f"/archiver/hgmo/{ASH}/nobody", "unknown_rev"),
        (f"/archiver/hgmo/{ASH}/{'0' * 40}", "unknown_rev"),
    ),
)
def test_an_unknown_name_is_a_404_and_no_task(web: Client, target: str, code: str) -> None:
    response = web.get(target)
    assert (response.status, response.code) == (404, code)
    assert not web.world.engine.tasks


def test_an_unknown_subdir_fails_once_and_is_a_404_afterwards(web: Client) -> None:
    web.get(f"{DEFAULT}?subdir=no/such")
    web.work()
    response = web.get(f"{DEFAULT}?subdir=no/such")
    assert (response.status, response.code) == (404, "unknown_subdir")
    assert web.world.source.asked["open"] == 1


def test_a_busy_host_is_a_503_with_its_retry_after(web: Client) -> None:
    web.world.source.outage = SourceBusy("busy", retry_after=timedelta(seconds=12.5))
    response = web.get(DEFAULT)
    assert (response.status, response.code) == (503, "source_busy")
    assert response.headers["retry-after"] == "13"


@pytest.mark.parametrize(
    ("outage", "status"), ((SourceUnavailable("no"), 502), (SourceTimeout("slow"), 504))
)
def test_a_silent_host_is_a_gateway_error(
    web: Client, outage: SourceUnavailable | SourceTimeout, status: int
) -> None:
    web.world.source.outage = outage
    assert web.get(DEFAULT).status == status


def test_hits_outlive_the_host_and_the_engine(web: Client) -> None:
    target = f"/archiver/hgmo/{ASH}/{web.world.node}"
    web.get(target)
    web.work()
    web.world.source.outage = SourceUnavailable("gone")
    web.world.engine.down = True
    assert web.get(target).status == 302


def test_a_miss_without_the_engine_is_a_503_with_retry_after(web: Client) -> None:
    web.world.engine.down = True
    response = web.get(DEFAULT)
    assert (response.status, response.code) == (503, "engine_unavailable")
    assert response.headers["retry-after"] == "3"


@pytest.mark.parametrize("query", ("", "?wait=0", "?on_miss=none", "?on_miss=redirect"))
def test_a_miss_while_no_region_answers_is_a_503_and_no_task(web: Client, query: str) -> None:
    web.world.storage.down.update(web.world.storage.regions)
    response = web.get(f"/archiver/hgmo/{ASH}/{web.world.node}{query}")
    assert (response.status, response.code) == (503, "storage_unavailable")
    assert response.headers["retry-after"] == "3"
    assert web.world.untouched
