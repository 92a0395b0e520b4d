"""Which archive an address of ``/archiver/…`` names, whatever characters it has."""

from dataclasses import replace
from urllib.parse import quote, urlencode

import pytest

from tests.memory_world import ASH, FILES, World
from tests.web.client import CONFIG, DEFAULT, PUBLIC_URL, Client, client

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


def test_an_empty_subdir_is_the_whole_tree(web: Client) -> None:
    assert web.get(f"{DEFAULT}?subdir=").headers["location"] == web.get(DEFAULT).headers["location"]


def test_a_plus_in_a_query_is_a_space_and_in_a_path_it_is_a_plus(web: Client) -> None:
    files = {"a b/c": b"", "a+b/c": b""}
    web.world.source.commit("c++", files, "default")
    spaced = web.get("/archiver/hgmo/c++/default?subdir=a+b")
    plussed = web.get("/archiver/hgmo/c%2B%2B/default?subdir=a%2Bb")
    assert ":a~20b:" in spaced.headers["location"]
    assert ":a+b:" in plussed.headers["location"]


def test_tags_that_begin_alike_are_two_archives(web: Client) -> None:
    """The original cut nodes to 12 characters, so it served one archive for the other."""
    web.world.source.commit(ASH, {"a": b"1"}, "FIREFOX_60_0_RELEASE")
    web.world.source.commit(ASH, {"a": b"2"}, "FIREFOX_60_0esr_RELEASE")
    one = web.get(f"/archiver/hgmo/{ASH}/FIREFOX_60_0_RELEASE")
    other = web.get(f"/archiver/hgmo/{ASH}/FIREFOX_60_0esr_RELEASE")
    assert one.headers["location"] != other.headers["location"]
