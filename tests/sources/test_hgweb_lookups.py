"""Lookups on hgweb: the node of a rev, and whether a repository has a node."""

import asyncio
import json
import threading
from datetime import timedelta
from urllib.parse import quote

import pytest

from archiver.errors import (
    ArchiverError,
    InvalidRequest,
    SourceBusy,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
    UnknownRepo,
    UnknownRev,
)
from archiver.model import Node
from archiver.ports.source import ServedFormats
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import open_fetch
from archiver.sources.hgweb.source import HgwebSource
from tests.parts.faulty_host import FaultyHost, Pause, Until, sized
from tests.parts.hgweb import Ash, Hgweb, Repository
from tests.sources.hgmo import HG, NODE, REPO, SUFFIXES, an_archive, fetch, known, opened, resolve

BEYOND_ASCII = "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve"


@pytest.mark.parametrize(
    "rev", ("", ".", "null", "tip~", "0", "5", "-1", "-2", "12345678901", "00000000000")
)
def test_server_specific_revs_are_refused_without_a_request(host: FaultyHost, rev: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(host.template, rev)

    assert refused.value.parameter == "rev"
    assert "12 to 40" in refused.value.allowed
    assert host.requests == []


@pytest.mark.parametrize("rev", ("tip", "123456789012", "1.0", "-x", "\N{ARABIC-INDIC DIGIT FIVE}"))
def test_other_revs_are_looked_up(host: FaultyHost, rev: str) -> None:
    with pytest.raises(UnknownRepo):  # that is, it said 404
        resolve(host.template, rev)

    assert len(host.requests) == 1


@pytest.mark.parametrize(
    ("body", "error"),
    (
        (b"0 unknown revision 'tip': <b>secret</b>\n", UnknownRev),
        (b"1 %s\n" % (b"0" * 40), UnknownRev),
        (b"1 %s\n" % (b"f" * 40), UnknownRev),
        (b"1 %s" % (b"a" * 40), SourceUnavailable),
        (b"1 %s\n\n" % (b"a" * 40), SourceUnavailable),
        (b"1 %s\n" % (b"A" * 40), SourceUnavailable),
        (b"1 %s\n" % (b"a" * 41), SourceUnavailable),
        (b"secret", SourceUnavailable),
        (b"", SourceUnavailable),
        (b"1 " * 1_000_000, SourceUnavailable),
    ),
)
def test_only_a_node_is_accepted_from_lookup(
    host: FaultyHost, body: bytes, error: type[ArchiverError]
) -> None:
    host.script(f"/{REPO}?cmd=lookup&key=tip", sized(body, headers=HG))

    with pytest.raises(error) as raised:
        resolve(host.template, "tip")

    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("status", "error"),
    (
        ("404 Not Found", UnknownRepo),
        ("403 Forbidden", SourceRefused),
        ("500 Internal Server Error", SourceUnavailable),
        ("503 Service Unavailable", SourceBusy),
    ),
)
def test_a_failed_query_is_not_an_unknown_rev(
    host: FaultyHost, status: str, error: type[ArchiverError]
) -> None:
    host.script(f"/{REPO}?cmd=lookup&key=tip", sized(b"0 unknown\n", status, headers=HG))
    host.script(f"/{REPO}?cmd=known&nodes={NODE}", sized(b"1", status, headers=HG))

    with pytest.raises(error):
        resolve(host.template, "tip")
    with pytest.raises(error):
        known(host.template)


@pytest.mark.parametrize("body", (b"", b"2", b"11", b"1\n0", b"yes"))
def test_only_0_and_1_are_accepted_from_known(host: FaultyHost, body: bytes) -> None:
    host.script(f"/{REPO}?cmd=known&nodes={NODE}", sized(body, headers=HG))

    with pytest.raises(SourceUnavailable):
        known(host.template)


def test_queries_are_limited_to_a_few_at_a_time(host: FaultyHost) -> None:
    revs = [f"rev-{number}" for number in range(6)]
    for rev in revs:
        answer = sized(b"1 %s\n" % NODE.encode(), headers=HG)
        host.script(f"/{REPO}?cmd=lookup&key={rev}", Pause(0.3), answer)

    async def play() -> list[Node]:
        async with opened(host.template, lookup_concurrency=2) as source:
            return await asyncio.gather(*(source.resolve(REPO, rev) for rev in revs))

    assert asyncio.run(play()) == [NODE] * 6
    assert host.most_at_once == 2


def test_every_request_asks_to_keep_the_connection_so_that_hgweb_sends_chunks(
    host: FaultyHost,
) -> None:
    host.script(f"/{REPO}?cmd=lookup&key=tip", sized(b"1 %s\n" % NODE.encode(), headers=HG))

    assert resolve(host.template, "tip") == NODE
    assert [request.headers["connection"] for request in host.requests] == ["keep-alive"]


def test_a_query_times_out_while_it_waits_for_a_slot(host: FaultyHost) -> None:
    for rev in ("one", "two"):
        host.script(f"/{REPO}?cmd=lookup&key={rev}", Pause(300))

    async def play() -> tuple[Node | BaseException, ...]:
        config = SourceConfig(
            kind="hgweb",
            name="hgmo",
            url_template=host.template,
            served=ServedFormats(suffixes=SUFFIXES),
            lookup_concurrency=1,
            read_timeout=timedelta(minutes=5),
            deadline=timedelta(minutes=5),
            user_agent="Archiver/test",
        )
        async with open_fetch(config) as fetch:
            source = HgwebSource(config, fetch, query_deadline=timedelta(seconds=0.3))
            questions = (source.resolve(REPO, "one"), source.resolve(REPO, "two"))
            return await asyncio.gather(*questions, return_exceptions=True)

    outcomes = asyncio.run(play())  # nothing else gives up within five minutes

    assert [type(outcome) for outcome in outcomes] == [SourceTimeout, SourceTimeout]


@pytest.mark.parametrize(("lookup_concurrency", "at_once"), ((1, 1), (4, 2)))
def test_listings_are_limited_and_do_not_delay_queries(
    host: FaultyHost, lookup_concurrency: int, at_once: int
) -> None:
    page = {"node": NODE, "abspath": "/", "directories": [], "files": [{"basename": "a"}]}
    listing = sized(json.dumps(page).encode(), headers={"Content-Type": "application/json"})
    answered = threading.Event()
    archives = [an_archive(repo=f"{REPO}{number}") for number in range(4)]
    for archive in archives:
        target = f"/{archive.repo}/json-manifest/{NODE}/"
        host.script(target, Until(answered), listing)
    host.script(f"/{REPO}?cmd=lookup&key=tip", sized(b"1 %s\n" % NODE.encode(), headers=HG))

    async def play() -> None:
        async with opened(host.template, lookup_concurrency) as source:
            listings = [asyncio.create_task(source.last_file(archive)) for archive in archives]
            while len(host.requests) < at_once:
                await asyncio.sleep(0.01)
            assert await source.resolve(REPO, "tip") == NODE
            answered.set()
            assert await asyncio.gather(*listings) == [b"a"] * 4

    asyncio.run(play())
    assert host.most_at_once == at_once


NAMES = (
    "@", "topic/with blank", "a+b&c=d;e%f #?", "a%2Fb\\", "a/../b", "-",
    f"{BEYOND_ASCII}?#&@ ;=%41/", "\u65e5\u3000\u672c",
)  # fmt: skip


def test_every_name_that_mercurial_accepts_is_resolved(hgweb: Hgweb, fresh: Repository) -> None:
    node = fresh.commit({"README": b"one"})
    fresh.commit({"README": b"two"})
    fresh.hg("bookmark", "--rev", node, *NAMES)
    fresh.branch("zweig/\xfc#1")
    fresh.tag("tag/\xe9 2", node)
    branch = fresh.tip

    async def play() -> list[Node]:
        async with opened(hgweb.template) as source:
            revs = (*NAMES, "tag/\xe9 2", "zweig/\xfc#1")
            return [await source.resolve(fresh.name, rev) for rev in revs]

    assert asyncio.run(play()) == [node] * (len(NAMES) + 1) + [branch]


def test_a_name_beyond_ascii_is_unknown(hgweb: Hgweb, ash: Ash) -> None:
    with pytest.raises(UnknownRev, match=f"has no revision {BEYOND_ASCII}"):
        resolve(hgweb.template, BEYOND_ASCII, ash.repo)


def test_a_name_beyond_ascii_in_no_repository_is_an_unknown_repository(hgweb: Hgweb) -> None:
    with pytest.raises(UnknownRepo):
        resolve(hgweb.template, BEYOND_ASCII, "no/such/repo")


CRASH = sized(b"Internal Server Error", "500 Internal Server Error")


def test_a_crash_on_a_name_beyond_ascii_is_not_an_outage(host: FaultyHost) -> None:
    """Hgweb does so on Python 3.11 in an ASCII locale; on 3.13 it responds correctly."""
    host.script(f"/{REPO}?cmd=lookup&key={quote(BEYOND_ASCII)}", CRASH)
    host.script(f"/{REPO}/json-log/{quote(BEYOND_ASCII)}?revcount=1", CRASH)
    host.script(f"/{REPO}?cmd=lookup&key=plain", CRASH)

    with pytest.raises(UnknownRev, match=r"crashes .* by its node"):
        resolve(host.template, BEYOND_ASCII)
    with pytest.raises(SourceUnavailable):
        resolve(host.template, "plain")


def test_a_name_that_the_log_page_would_misread_is_not_looked_up(host: FaultyHost) -> None:
    host.script(f"/{REPO}?cmd=lookup&key={quote(BEYOND_ASCII)}%252F", CRASH)

    with pytest.raises(UnknownRev, match="by its node"):
        resolve(host.template, f"{BEYOND_ASCII}%2F")


def test_a_part_of_a_name_is_not_a_local_number(hgweb: Hgweb, ash: Ash) -> None:
    """Hgweb's log page reads only the part after a colon."""
    with pytest.raises(UnknownRev):
        resolve(hgweb.template, f"{BEYOND_ASCII}:0", ash.repo)


@pytest.mark.parametrize(
    "body", (b"", b"[]", b"{}", b'{"node": 1}', b'{"node": "12"}', b'{"node": "%s"}' % (b"0" * 40))
)
def test_a_log_page_without_a_node_is_malformed(host: FaultyHost, body: bytes) -> None:
    host.script(f"/{REPO}?cmd=lookup&key={quote(BEYOND_ASCII)}", CRASH)
    host.script(
        f"/{REPO}/json-log/{quote(BEYOND_ASCII)}?revcount=1",
        sized(body, headers={"Content-Type": "application/json"}),
    )

    with pytest.raises(SourceUnavailable):
        resolve(host.template, BEYOND_ASCII)


@pytest.mark.parametrize("node", ("0" * 40, "f" * 40))
def test_null_nodes_are_unknown(hgweb: Hgweb, ash: Ash, node: str) -> None:
    assert not known(hgweb.template, node, ash.repo)
    with pytest.raises(UnknownRev):
        resolve(hgweb.template, node[:12], ash.repo)
    with pytest.raises(UnknownRev):
        fetch(hgweb.template, an_archive(node=node))


def test_mercurial_has_no_node_of_64_digits(host: FaultyHost) -> None:
    assert not known(host.template, "a" * 64)
    assert host.requests == []


def test_a_secret_changeset_is_unknown(hgweb: Hgweb, fresh: Repository) -> None:
    fresh.commit({"README": b"public"})
    node = fresh.commit({"README": b"secret"})
    fresh.hg("phase", "--secret", "--force", node)

    assert not known(hgweb.template, node, fresh.name)
    with pytest.raises(UnknownRev):
        resolve(hgweb.template, node[:12], fresh.name)
    with pytest.raises(UnknownRev):
        fetch(hgweb.template, an_archive(repo=fresh.name, node=node))


def test_an_empty_repository_has_no_tip(hgweb: Hgweb, empty: Repository) -> None:
    with pytest.raises(UnknownRev):
        resolve(hgweb.template, "tip", empty.name)


@pytest.mark.parametrize("repo", ("projects", "projects/ash/testing", "nowhere"))
def test_folders_are_not_repositories(hgweb: Hgweb, ash: Ash, repo: str) -> None:
    with pytest.raises(UnknownRepo):
        resolve(hgweb.template, "tip", repo)
    with pytest.raises(UnknownRepo):
        known(hgweb.template, ash.node, repo)
    with pytest.raises(UnknownRepo):
        fetch(hgweb.template, an_archive(repo=repo, node=ash.node))
