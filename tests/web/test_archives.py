"""``/archiver/{source}/{repo}/{rev}``, in a world of fakes."""

import re
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote, urlencode

import pytest

from archiver.errors import SourceBusy, SourceTimeout, SourceUnavailable
from archiver.model import Region
from archiver.testing import MemoryStorage
from archiver.web.client_address import ClientResolver
from tests.memory_world import ASH, FILES, World
from tests.web.client import CONFIG, DEFAULT, PUBLIC_URL, Client, client

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


ODD_REVS = ("@", "REL/2.0", "a#b?c&d=+", "a%2Fb", "caf\xe9/\u65e5\u3000\u672c", "a\\b//..x")


@pytest.mark.parametrize("rev", ODD_REVS)
def test_a_rev_is_any_name_that_the_host_accepts_in_the_path_or_the_query(
    web: Client, rev: str
) -> None:
    node = web.world.source.commit(ASH, FILES, rev)
    in_path = f"/archiver/hgmo/{ASH}/{quote(rev, safe='')}"
    in_query = f"/archiver/hgmo/{ASH}?{urlencode({'rev': rev})}"
    file = f"/get/hgmo/{ASH}/{quote(rev, safe='')}.tar.gz"
    file_of_repo = f"/get/hgmo/{ASH}.tar.gz?{urlencode({'rev': rev})}"
    assert web.get(in_path).status == 202
    web.work()
    hits = [web.get(target) for target in (in_path, in_query, file, file_of_repo)]
    assert {hit.status for hit in hits} == {302}
    assert {hit.headers["archiver-node"] for hit in hits} == {node}
    assert len({hit.headers["link"] for hit in hits}) == 1


@pytest.mark.parametrize("target", ("/archiver/hgmo/{}?rev=REL/2.0", "/archiver/hgmo/{}/REL%2F2.0"))
def test_a_held_request_is_redirected_to_its_own_form_of_address(target: str) -> None:
    config = replace(CONFIG, wait_limits=replace(CONFIG.wait_limits, hold_s=0.02))
    with client(World(), config=config) as web:
        web.world.source.commit(ASH, FILES, "REL/2.0")
        sep = "&" if "?" in target else "?"
        response = web.get(f"{target.format(ASH)}{sep}wait=1")
        assert (response.status, response.headers["archiver-cache"]) == (302, "miss")
        assert response.headers["location"].startswith(f"{PUBLIC_URL}{target.format(ASH)}{sep}")
        assert "hop=1" in response.headers["location"]


def test_requests_with_different_revs_in_the_query_share_no_response(web: Client) -> None:
    nodes = {rev: web.world.source.commit(ASH, {"a": rev.encode()}, rev) for rev in ("a/1", "a/2")}
    for rev in nodes:
        web.get(f"/archiver/hgmo/{ASH}?rev={rev}")
    web.work()
    web.work()
    for rev in (*nodes, *nodes, *nodes):
        response = web.get(f"/archiver/hgmo/{ASH}?rev={rev}")
        assert (response.status, response.headers["archiver-node"]) == (302, nodes[rev])


def test_a_rev_that_no_path_can_have_is_accepted_in_the_query(web: Client) -> None:
    node = web.world.source.commit(ASH, FILES, "a/../b")
    refused = web.get(f"/archiver/hgmo/{ASH}/a%2F..%2Fb")
    assert (refused.status, refused.json["parameter"]) == (400, "rev")
    assert "?rev=" in refused.json["detail"]
    assert web.get(f"/archiver/hgmo/{ASH}?rev=a/../b").headers["archiver-node"] == node


@pytest.mark.parametrize(
    ("route", "ending"), (("archiver", ""), ("get", ".tar.gz"), ("get", ".zip.sha256"))
)
def test_a_path_whose_repo_is_unknown_may_have_meant_a_rev_with_a_slash(
    web: Client, route: str, ending: str
) -> None:
    web.world.source.commit(ASH, FILES, "REL/2.0")
    plain = web.get(f"/{route}/hgmo/{ASH}/REL/2.0{ending}")
    assert (plain.status, plain.code) == (404, "unknown_repo")
    hint = f"; if REL/2.0 is a revision of {ASH}, pass it as {ASH}{ending}?rev="
    assert plain.json["detail"].endswith(hint)
    meant = web.get(f"/{route}/hgmo/{ASH}{ending}?rev=REL/2.0", prefer="respond-async")
    assert meant.status == 202


def test_a_path_that_cannot_mean_a_rev_with_a_slash_gets_no_hint(web: Client) -> None:
    assert "?rev=" not in web.get(f"/archiver/hgmo/{ASH}/oak?rev=2.0").json["detail"]
    assert "?rev=" not in web.get("/archiver/hgmo/oak/2.0").json["detail"]


def test_a_repo_and_a_subdir_may_have_the_delimiters_of_a_url(web: Client) -> None:
    node = web.world.source.commit("c#/@100%?", {"@types/what?#/a%2Fb": b""}, "default")
    response = web.get("/archiver/hgmo/c%23/@100%25%3F/default?subdir=@types/what?%23")
    assert response.status == 202
    assert response.headers["location"].endswith(
        f"/archiver/status/hgmo:c~23:~40100~25~3F:-:{node}:~40types:what~3F~23:-:tar.gz"
    )
    assert web.get(response.headers["location"].removeprefix(PUBLIC_URL)).result["node"] == node


@pytest.mark.parametrize(
    ("target", "parameter"),
    (
        (f"/archiver/hgmo/{ASH}?rev=", "rev"),
        (f"/archiver/hgmo/{ASH}?rev=a%0Ab", "rev"),
        (f"/archiver/hgmo/{ASH}/?rev=a", "repo"),
        ("/archiver/hgmo?rev=a", "repo"),
        ("/archiver/hgmo//ash?rev=a", "repo"),
        ("/archiver/hgmo/projects%2Fash?rev=a", "repo"),
        ("/archiver/hgmo/%ff?rev=a", "repo"),
    ),
)
def test_a_rev_in_the_query_leaves_the_whole_path_to_the_repo(
    web: Client, target: str, parameter: str
) -> None:
    response = web.get(target)
    assert (response.status, response.json["parameter"]) == (400, parameter)
    assert web.world.untouched


def test_clients_are_redirected_to_the_region_they_prefer(web: Client) -> None:
    web.get(MOZHARNESS)
    web.work()
    response = web.get(MOZHARNESS)
    assert response.headers["archiver-region"] == "us-west-2"
    assert "archiver-region-fallback" not in response.headers
    assert response.headers["location"].startswith("https://us-west-2.s3.example/")


@pytest.mark.parametrize("region", ("eu-central-1", "", "US-WEST-2"))
def test_an_unknown_preferred_region_is_ignored(web: Client, region: str) -> None:
    web.get(DEFAULT)
    web.work()
    response = web.get(f"{DEFAULT}?preferred_region={region}")
    assert (response.status, response.headers["archiver-region"]) == (302, "us-east-1")
    assert response.headers.get("archiver-region-fallback", "") == region


def test_a_preferred_region_without_a_copy_falls_back_to_one_that_has_it(web: Client) -> None:
    web.world.storage.down.add(Region("us-west-2"))
    web.get(DEFAULT)
    web.work()
    response = web.get(f"{DEFAULT}?preferred_region=us-west-2")
    assert (response.status, response.headers["archiver-region"]) == (302, "us-east-1")
    assert response.headers["archiver-region-fallback"] == "us-west-2"
    assert list(web.world.engine.repairs.values()) == [("us-west-2",)]


@pytest.mark.parametrize(
    ("peer", "query", "region", "fallback"),
    (
        ("192.0.2.1", "", "us-west-2", None),
        ("192.0.2.1", "?preferred_region=us-east-1", "us-east-1", None),
        ("192.0.2.1", "?preferred_region=mars", "us-west-2", "mars"),
        ("198.51.100.1", "", "us-east-1", None),
        ("203.0.113.1", "", "us-east-1", "asia"),
        ("203.0.113.1", "?preferred_region=us-west-2", "us-west-2", None),
        (None, "", "us-east-1", None),
    ),
)
def test_without_a_preference_clients_are_redirected_to_the_nearest_region(
    peer: str | None, query: str, region: str, fallback: str | None
) -> None:
    clients = ClientResolver(
        networks=[("192.0.2.0/24", Region("us-west-2")), ("203.0.113.0/24", Region("asia"))]
    )
    with client(World(), config=replace(CONFIG, clients=clients)) as web:
        web.get(DEFAULT)
        web.work()
        web.peer = peer
        headers = web.get(f"{DEFAULT}{query}").headers
    assert headers["archiver-region"] == region
    assert headers["location"].startswith(f"https://{region}.s3.example/")
    assert headers.get("archiver-region-fallback") == fallback


def test_a_region_without_a_copy_is_replaced_by_its_nearest_one() -> None:
    regions = tuple(map(Region, ("us-east-1", "us-west-2", "asia")))
    world = World(
        storage=MemoryStorage(regions=regions), nearest={regions[2]: (regions[1], regions[0])}
    )
    clients = ClientResolver(networks=[("192.0.2.0/24", regions[2])])
    with client(world, config=replace(CONFIG, clients=clients)) as web:
        world.storage.down.add(regions[2])
        web.get(DEFAULT)
        web.work()
        headers = web.get(DEFAULT).headers
        assert headers["archiver-region"] == "us-west-2"
        assert headers["archiver-region-fallback"] == "asia"


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


def test_an_empty_subdir_is_the_whole_tree(web: Client) -> None:
    assert web.get(f"{DEFAULT}?subdir=").headers["location"] == web.get(DEFAULT).headers["location"]


def test_a_plus_in_a_query_is_a_space_and_in_a_path_it_is_a_plus(web: Client) -> None:
    files = {"a b/c": b"", "a+b/c": b""}
    web.world.source.commit("c++", files, "default")
    spaced = web.get("/archiver/hgmo/c++/default?subdir=a+b")
    plussed = web.get("/archiver/hgmo/c%2B%2B/default?subdir=a%2Bb")
    assert ":a~20b:" in spaced.headers["location"]
    assert ":a+b:" in plussed.headers["location"]


def test_an_unsupported_suffix_is_refused_with_the_supported_ones(web: Client) -> None:
    response = web.get(f"{DEFAULT}?suffix=7z")
    assert (response.status, response.code) == (400, "invalid_request")
    assert response.json["parameter"] == "suffix"
    assert response.json["allowed"] == "tar.gz, tar.bz2, tar.xz, tar.zst, tar, zip"
    assert web.world.untouched


def test_an_unknown_parameter_is_refused_with_the_known_ones(web: Client) -> None:
    response = web.get(f"{DEFAULT}?region=us-west-2")
    assert (response.status, response.json["parameter"]) == (400, "region")
    assert response.json["allowed"] == "rev, subdir, suffix, preferred_region, wait, on_miss"


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


def test_tags_that_begin_alike_are_two_archives(web: Client) -> None:
    """The original cut nodes to 12 characters, so it served one archive for the other."""
    web.world.source.commit(ASH, {"a": b"1"}, "FIREFOX_60_0_RELEASE")
    web.world.source.commit(ASH, {"a": b"2"}, "FIREFOX_60_0esr_RELEASE")
    one = web.get(f"/archiver/hgmo/{ASH}/FIREFOX_60_0_RELEASE")
    other = web.get(f"/archiver/hgmo/{ASH}/FIREFOX_60_0esr_RELEASE")
    assert one.headers["location"] != other.headers["location"]


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
