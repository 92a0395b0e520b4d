"""What only hgweb does, or only a host that poses as one."""

import asyncio
import gzip
import io
import re
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import quote

import pytest
from yarl import URL

from archiver.errors import (
    ArchiverError,
    InvalidRequest,
    NotAnArchive,
    ShadowedNode,
    SourceBusy,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
    SuffixRefused,
    TruncatedArchive,
    UnknownRepo,
    UnknownRev,
    UnknownSubdir,
)
from archiver.formats.verify import verify
from archiver.model import Archive, Node, Served, Verified
from archiver.sources.fetch import open_fetch
from archiver.sources.hgweb import HgwebSource, open_hgweb
from archiver.sources.perimeter import Perimeter
from tests.formats.samples import tar
from tests.parts.faulty import FaultyHost, Pause, chunked, faulty_host, sized, until_close
from tests.parts.hgweb import Ash, Hgweb, Repository

NODE = Node("0123456789abcdef0123456789abcdef01234567")
REPO = "projects/ash"
HG = {"Content-Type": "application/mercurial-0.1"}
HTML = {"Content-Type": "text/html; charset=utf-8"}
SUFFIXES = ("tar.gz", "tar.bz2", "zip")
BEYOND_ASCII = "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve"


@pytest.fixture
def host() -> Iterator[FaultyHost]:
    """A host that knows NODE by its 12 digits, and no more."""
    with faulty_host() as host:
        host.script(
            f"/{REPO}?cmd=lookup&key={NODE[:12]}", sized(b"1 %s\n" % NODE.encode(), headers=HG)
        )
        yield host


@asynccontextmanager
async def opened(template: str, lookup_concurrency: int = 2) -> AsyncIterator[HgwebSource]:
    async with open_hgweb(
        name="hgmo",
        url_template=template,
        served=Served(suffixes=SUFFIXES),
        redirect_hosts=(),
        allow_private_addresses=False,
        lookup_concurrency=lookup_concurrency,
        read_timeout=timedelta(seconds=10),
        deadline=timedelta(seconds=20),
        user_agent="Archiver/test",
    ) as source:
        yield source


def an_archive(
    repo: str = REPO, node: str = NODE, subdir: str = "", suffix: str = "tar.gz"
) -> Archive:
    return Archive(source="hgmo", repo=repo, node=Node(node), subdir=subdir, suffix=suffix)


def url_of(template: str, archive: Archive) -> str:
    async def play() -> str:
        async with opened(template) as source:
            return source.url(archive)

    return asyncio.run(play())


def resolve(template: str, rev: str, repo: str = REPO) -> Node:
    async def play() -> Node:
        async with opened(template) as source:
            return await source.resolve(repo, rev)

    return asyncio.run(play())


def known(template: str, node: str = NODE, repo: str = REPO) -> bool:
    async def play() -> bool:
        async with opened(template) as source:
            return await source.known(repo, Node(node))

    return asyncio.run(play())


def fetch(template: str, archive: Archive) -> tuple[bytes, Verified]:
    """Return the archive's bytes and what the verifier found in them."""

    async def play() -> tuple[bytes, Verified]:
        async with opened(template) as source, source.open(archive) as stream:
            verifier = verify(archive, root=stream.root)
            data = b""
            async for chunk in stream.chunks():
                await verifier.update(chunk)
                data += chunk
            return data, await verifier.finish()

    return asyncio.run(play())


def test_the_url_is_the_template_filled_and_quoted() -> None:
    template = "https://hg.example.org/x/{repo}/archive/{rev}.{suffix}/{subdir}"
    odd = an_archive(repo="a b/caf\N{LATIN SMALL LETTER E WITH ACUTE}/{rev}", subdir="c+d/e&f;g=h")

    assert url_of(template, an_archive()) == (
        f"https://hg.example.org/x/projects/ash/archive/{NODE[:12]}.tar.gz"
    )
    assert url_of(template, odd) == (
        "https://hg.example.org/x/a%20b/caf%C3%A9/%7Brev%7D"
        f"/archive/{NODE[:12]}.tar.gz/c%2Bd/e%26f%3Bg%3Dh"
    )


@pytest.mark.parametrize(
    "rev", ("", ".", "null", "tip~", "0", "5", "-1", "-2", "12345678901", "00000000000")
)
def test_revs_that_mean_something_else_on_each_server_are_refused_unasked(
    host: FaultyHost, rev: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(host.template, rev)

    assert refused.value.parameter == "rev"
    assert "12 to 40" in refused.value.allowed
    assert host.requests == []


@pytest.mark.parametrize("rev", ("tip", "123456789012", "1.0", "-x", "\N{ARABIC-INDIC DIGIT FIVE}"))
def test_other_revs_are_asked_for(host: FaultyHost, rev: str) -> None:
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
def test_only_a_node_is_an_answer_to_lookup(
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
def test_a_host_that_fails_to_answer_is_not_taken_at_its_word(
    host: FaultyHost, status: str, error: type[ArchiverError]
) -> None:
    host.script(f"/{REPO}?cmd=lookup&key=tip", sized(b"0 unknown\n", status, headers=HG))
    host.script(f"/{REPO}?cmd=known&nodes={NODE}", sized(b"1", status, headers=HG))

    with pytest.raises(error):
        resolve(host.template, "tip")
    with pytest.raises(error):
        known(host.template)


@pytest.mark.parametrize("body", (b"", b"2", b"11", b"1\n0", b"yes"))
def test_only_0_and_1_are_answers_to_known(host: FaultyHost, body: bytes) -> None:
    host.script(f"/{REPO}?cmd=known&nodes={NODE}", sized(body, headers=HG))

    with pytest.raises(SourceUnavailable):
        known(host.template)


def test_few_questions_are_asked_at_a_time(host: FaultyHost) -> None:
    revs = [f"rev-{number}" for number in range(6)]
    for rev in revs:
        answer = sized(b"1 %s\n" % NODE.encode(), headers=HG)
        host.script(f"/{REPO}?cmd=lookup&key={rev}", Pause(0.1), answer)

    async def play() -> list[Node]:
        async with opened(host.template, lookup_concurrency=2) as source:
            return await asyncio.gather(*(source.resolve(REPO, rev) for rev in revs))

    assert asyncio.run(play()) == [NODE] * 6
    assert host.most_at_once == 2


def test_a_question_is_given_up_although_it_waits_for_another_one(host: FaultyHost) -> None:
    for rev in ("one", "two"):
        host.script(f"/{REPO}?cmd=lookup&key={rev}", Pause(5))

    async def play() -> tuple[Node | BaseException, ...]:
        perimeter = Perimeter(home=URL(host.url))
        async with open_fetch(
            perimeter=perimeter, read_timeout=timedelta(seconds=10), user_agent="Archiver/test"
        ) as fetch:
            source = HgwebSource(
                name="hgmo",
                url_template=host.template,
                served=Served(suffixes=SUFFIXES),
                lookup_concurrency=1,
                deadline=timedelta(seconds=20),
                fetch=fetch,
                question_deadline=timedelta(seconds=0.3),
            )
            questions = (source.resolve(REPO, "one"), source.resolve(REPO, "two"))
            return await asyncio.gather(*questions, return_exceptions=True)

    started = time.monotonic()
    outcomes = asyncio.run(play())

    assert [type(outcome) for outcome in outcomes] == [SourceTimeout, SourceTimeout]
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("answer", "subdir", "error"),
    (
        (sized(b"<html>", headers=HTML), "", NotAnArchive),
        (sized(b"<html>", "404 file(s) not found", headers=HTML), "no/where", UnknownSubdir),
        (sized(b"<html>", "404 Not Found", headers=HTML), "no/where", UnknownSubdir),
        (sized(b"<html>", "404 Not Found", headers=HTML), "", UnknownRev),
        (sized(b"<html>", "404 Unsupported archive type", headers=HTML), "no/where", SuffixRefused),
        (sized(b"<html>", "403 Archive type not allowed", headers=HTML), "", SuffixRefused),
        (sized(b"<html>", "403 Forbidden", headers=HTML), "", SourceRefused),
        (sized(b"<html>", "500 Internal Server Error", headers=HTML), "", SourceUnavailable),
        (sized(b"<html>", "503 Service Unavailable", headers=HTML), "", SourceBusy),
        (sized(b"<html>", "304 Not Modified"), "", SourceUnavailable),
    ),
)
def test_what_is_no_archive_is_told_apart(
    host: FaultyHost, answer: bytes, subdir: str, error: type[ArchiverError]
) -> None:
    archive = an_archive(subdir=subdir)
    host.script(url_of(host.template, archive).removeprefix(host.url), answer)

    with pytest.raises(error) as raised:
        fetch(host.template, archive)

    assert type(raised.value) is error
    if error is UnknownSubdir:
        assert "no/where" in raised.value.message


@pytest.mark.parametrize("cut", (1, 9, 100))
@pytest.mark.parametrize(
    "framed", (lambda body: sized(body, missing=1), lambda body: chunked(body, ended=False))
)
def test_an_archive_that_breaks_off_is_truncated(
    host: FaultyHost, framed: type[bytes], cut: int
) -> None:
    archive = an_archive()
    whole = gzip.compress(tar(), mtime=0)
    host.script(url_of(host.template, archive).removeprefix(host.url), framed(whole[:-cut]))

    with pytest.raises(TruncatedArchive):
        fetch(host.template, archive)


@pytest.mark.parametrize("framed", (sized, chunked, until_close))
def test_an_archive_that_ends_too_early_is_truncated_although_http_is_content(
    host: FaultyHost, framed: type[bytes]
) -> None:
    archive = an_archive()
    target = url_of(host.template, archive).removeprefix(host.url)
    whole = gzip.compress(tar(), mtime=0)

    host.script(target, framed(whole))
    assert fetch(host.template, archive)[0] == whole
    host.script(target, framed(whole[:-1]))
    with pytest.raises(TruncatedArchive):
        fetch(host.template, archive)


def test_a_node_that_the_host_does_not_show_is_unknown(host: FaultyHost) -> None:
    host.script(f"/{REPO}?cmd=lookup&key={NODE[:12]}", sized(b"0 filtered revision\n", headers=HG))
    host.script(f"/{REPO}?cmd=known&nodes={NODE}", sized(b"0", headers=HG))

    with pytest.raises(UnknownRev):
        fetch(host.template, an_archive())


def test_a_node_whose_12_digits_are_ambiguous_is_shadowed(host: FaultyHost) -> None:
    host.script(
        f"/{REPO}?cmd=lookup&key={NODE[:12]}", sized(b"0 ambiguous identifier\n", headers=HG)
    )
    host.script(f"/{REPO}?cmd=known&nodes={NODE}", sized(b"1", headers=HG))

    with pytest.raises(ShadowedNode):
        fetch(host.template, an_archive())


def test_a_node_whose_12_digits_are_a_bookmark_is_shadowed(hgweb: Hgweb, fresh: Repository) -> None:
    node = fresh.commit({"README": b"one"})
    other = fresh.commit({"README": b"two"})
    fresh.bookmark(node[:12], other)

    with pytest.raises(ShadowedNode) as raised:
        fetch(hgweb.template, an_archive(repo=fresh.name, node=node))

    assert node in raised.value.message
    assert known(hgweb.template, node, fresh.name)


def test_names_with_slashes_and_blanks_are_resolved(hgweb: Hgweb, fresh: Repository) -> None:
    node = fresh.commit({"README": b"one"})
    fresh.bookmark("topic/with blank", node)
    fresh.bookmark("a+b&c=d;e%f", node)

    assert resolve(hgweb.template, "topic/with blank", fresh.name) == node
    assert resolve(hgweb.template, "a+b&c=d;e%f", fresh.name) == node


def test_a_name_beyond_ascii_is_unknown(hgweb: Hgweb, ash: Ash) -> None:
    with pytest.raises(UnknownRev):
        resolve(hgweb.template, BEYOND_ASCII, ash.repo)


def test_a_crash_over_a_name_beyond_ascii_is_no_outage(host: FaultyHost) -> None:
    """Hgweb does so on Python 3.11, and answers as it should on 3.13."""
    crash = sized(b"Internal Server Error", "500 Internal Server Error")
    host.script(f"/{REPO}?cmd=lookup&key={quote(BEYOND_ASCII)}", crash)
    host.script(f"/{REPO}?cmd=lookup&key=plain", crash)

    with pytest.raises(UnknownRev, match="ASCII"):
        resolve(host.template, BEYOND_ASCII)
    with pytest.raises(SourceUnavailable):
        resolve(host.template, "plain")


@pytest.mark.parametrize("node", ("0" * 40, "f" * 40))
def test_nodes_that_stand_for_nothing_are_nowhere(hgweb: Hgweb, ash: Ash, node: str) -> None:
    assert not known(hgweb.template, node, ash.repo)
    with pytest.raises(UnknownRev):
        resolve(hgweb.template, node[:12], ash.repo)
    with pytest.raises(UnknownRev):
        fetch(hgweb.template, an_archive(node=node))


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


def test_a_suffix_that_the_host_does_not_allow_is_refused(hgweb: Hgweb, fresh: Repository) -> None:
    node = fresh.commit({"README": b"one"})
    (fresh.path / ".hg" / "hgrc").write_text("[web]\nallow-archive = zip\n")

    assert fetch(hgweb.template, an_archive(repo=fresh.name, node=node, suffix="zip"))
    for suffix in ("tar.gz", "tar.bz2"):
        with pytest.raises(SuffixRefused):
            fetch(hgweb.template, an_archive(repo=fresh.name, node=node, suffix=suffix))


@pytest.mark.parametrize("name", ("l10n.central", "a b", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"))
def test_the_root_is_what_hgweb_makes_of_the_name(
    hgweb: Hgweb, fresh: Repository, name: str
) -> None:
    odd = hgweb.create(f"{fresh.name}-odd/{name}")
    node = odd.commit({"README": b"one"})

    _, verified = fetch(hgweb.template, an_archive(repo=odd.name, node=node))

    assert re.fullmatch(r"[a-z0-9]+-[a-z]*-?[0-9a-f]{12}", verified.root)


@pytest.mark.parametrize("subdir", ("", "testing/mozharness", "README", "toolkit"))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_has_the_files_of_its_changeset(
    hgweb: Hgweb, ash: Ash, suffix: str, subdir: str
) -> None:
    archive = an_archive(ash.repo, ash.node, subdir, suffix)

    data, verified = fetch(hgweb.template, archive)

    assert data == hgweb.archive(ash.repo, ash.node, suffix, subdir)
    assert verified.root == f"ash-{ash.node[:12]}"
    packed = _zip_files(data) if suffix == "zip" else _tar_files(data)
    top = f"{verified.root}/"
    found = {name.removeprefix(top): content for name, content in packed.items()}
    expected = {name: text for name, text in ash.files.items() if f"{name}/".startswith(subdir)}
    assert expected.items() <= found.items()
    assert set(found) - set(expected) <= {".hg_archival.txt", "testing/mozharness/latest"}


def _tar_files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [(member.name, archive.extractfile(member)) for member in archive if member.isreg()]
        return {name: file.read() for name, file in files if file}


def _zip_files(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
