"""Hits and misses of ``/archiver/{source}/{repo}/{rev}``, in a world of fakes."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver.model import Copies
from archiver.tree_proof import TreeMatch, TreeProof
from tests.memory_world import ASH, FILES
from tests.web.client import DEFAULT, PUBLIC_URL, Client

MOZHARNESS = f"{DEFAULT}?&preferred_region=us-west-2&suffix=tar.gz&subdir=testing/mozharness"


def test_a_miss_is_accepted_with_the_url_of_its_status(web: Client) -> None:
    response = web.get(DEFAULT)
    assert response.status == 202
    assert response.json == {"result": {}}
    assert response.headers["location"] == (
        f"{PUBLIC_URL}/archiver/status/hgmo:projects:ash:-:{web.world.node}:-:tar.gz"
    )
    assert 2 <= int(response.headers["retry-after"]) <= 4
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["archiver-cache"] == "miss"


def test_a_second_request_joins_the_task_of_the_first(web: Client) -> None:
    first, second = web.get(DEFAULT), web.get(f"/archiver/hgmo/{ASH}/V_1")
    assert second.status == 202
    assert second.headers["archiver-cache"] == "joined"
    assert second.headers["location"] == first.headers["location"]
    assert len(web.world.engine.tasks) == 1


def test_a_hit_redirects_to_the_bytes(web: Client) -> None:
    web.get(DEFAULT)
    web.work()
    response = web.get(DEFAULT)
    assert response.status == 302
    assert response.body == b""
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["archiver-cache"] == "hit"
    assert response.headers["archiver-node"] == web.world.node
    assert response.headers["archiver-region"] == "us-east-1"
    body = web.world.storage.download(response.headers["location"])
    assert response.headers["archiver-size"] == str(len(body))
    assert re.fullmatch(r"[0-9a-f]{64}", response.headers["archiver-sha256"])
    assert "archiver-proof" not in response.headers


@pytest.mark.parametrize("match", TreeMatch)
def test_a_hit_says_how_the_archive_compares_with_its_commit(web: Client, match: TreeMatch) -> None:
    web.get(DEFAULT)
    web.work()
    archive, manifests = web.world.archive(), web.world.storage.manifests
    proof = TreeProof(commit=b"tree 1\n", tree="1" * 40, match=match)
    for region, stored in manifests.items():
        stored[archive.key] = replace(stored[archive.key], proof=proof)
        copies = Copies(manifest=stored[archive.key], regions=(region,))
        web.run(web.world.index.record(archive, copies))
    expected = None if match is TreeMatch.OTHER else match  # it is not known which
    assert web.get(DEFAULT).headers.get("archiver-proof") == expected
    assert web.head(DEFAULT).headers.get("archiver-proof") == expected


def test_a_hit_links_to_its_status_and_its_canonical_url(web: Client) -> None:
    web.get(MOZHARNESS)
    web.work()
    status, canonical = web.get(MOZHARNESS).headers["link"].split(", ")
    node = web.world.node
    assert status == (
        f"<{PUBLIC_URL}/archiver/status/hgmo:projects:ash:-:{node}:testing:mozharness:-:tar.gz>; "
        'rel="describedby"'
    )
    assert canonical == (
        f"<{PUBLIC_URL}/archiver/hgmo/projects/ash/{node}"
        '?suffix=tar.gz&subdir=testing/mozharness>; rel="canonical"'
    )


def test_the_canonical_url_of_a_hit_is_a_hit_and_has_no_other(web: Client) -> None:
    web.world.source.commit("a é+b", FILES, "default")
    web.get("/archiver/hgmo/a%20%C3%A9+b/default")
    web.work()
    link = web.get("/archiver/hgmo/a%20%C3%A9+b/default").headers["link"]
    target = link.rpartition(f"<{PUBLIC_URL}")[2].partition(">")[0]
    response = web.get(target)
    assert response.status == 302
    assert "canonical" not in response.headers["link"]


def test_head_of_a_miss_is_a_404_and_creates_nothing(web: Client) -> None:
    response = web.head(DEFAULT)
    assert (response.status, response.code) == (404, "absent")
    assert not web.world.engine.tasks


def test_head_of_a_hit_is_presigned_for_head(web: Client) -> None:
    web.get(DEFAULT)
    web.work()
    got, headed = web.get(DEFAULT), web.head(DEFAULT)
    assert headed.status == 302
    assert headed.headers["archiver-sha256"] == got.headers["archiver-sha256"]
    with pytest.raises(PermissionError):
        web.world.storage.download(headed.headers["location"])


def test_a_branch_that_moved_leads_to_new_bytes_and_the_old_ones_stay(web: Client) -> None:
    old = f"/archiver/hgmo/{ASH}/{web.world.node}"
    web.get(old)
    web.work()
    before = web.get(old).headers["archiver-sha256"]
    node = web.world.source.commit(ASH, {"README": b"new"}, "default")
    assert web.get(DEFAULT).headers["archiver-node"] == node
    web.work()
    assert web.get(DEFAULT).headers["archiver-sha256"] != before
    assert web.get(old).headers["archiver-sha256"] == before


def test_an_authorization_header_is_neither_needed_nor_refused(web: Client) -> None:
    """A proxy of the original's clients adds one."""
    assert web.get(DEFAULT, authorization="Bearer stale").status == 202


@pytest.mark.parametrize(
    ("mean_s", "waiting", "least", "most"),
    ((0.01, 0, 1, 1), (10, 0, 8, 12), (10, 2, 16, 24), (1000, 0, 60, 60)),
)
def test_retry_after_is_the_expected_time_in_the_queue(
    web: Client, mean_s: float, waiting: int, least: int, most: int
) -> None:
    web.world.engine.mean = timedelta(seconds=mean_s)
    web.get(f"{DEFAULT}?subdir=testing/mozharness")
    web.world.engine.claim()
    for suffix in ("zip", "tar")[:waiting]:
        web.get(f"{DEFAULT}?suffix={suffix}")
    seconds = int(web.get(f"{DEFAULT}?subdir=testing/mozharness").headers["retry-after"])
    assert least <= seconds <= most
