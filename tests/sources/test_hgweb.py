"""Archives from hgweb, and from hosts that misbehave."""

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator

import pytest

from archiver.errors import (
    ArchiverError,
    NotAnArchive,
    ShadowedNode,
    SourceBusy,
    SourceRefused,
    SourceUnavailable,
    SuffixRefused,
    TruncatedArchive,
    UnknownRev,
    UnknownSubdir,
    UnprovenArchive,
)
from archiver.sources.hgweb.files import LEVELS_MAX
from archiver.sources.hgweb.listings import NAMES_MAX
from tests.formats.samples import tar
from tests.parts.faulty_host import FaultyHost, chunked, faulty_host, sized, until_close
from tests.parts.hgweb import Ash, Hgweb, Repository
from tests.sources.hgmo import HG, NODE, REPO, SUFFIXES, an_archive, fetch, known, last_file, url_of

HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture
def host() -> Iterator[FaultyHost]:
    """A host that knows NODE by its first 12 digits only."""
    with faulty_host() as host:
        host.script(
            f"/{REPO}?cmd=lookup&key={NODE[:12]}", sized(b"1 %s\n" % NODE.encode(), headers=HG)
        )
        yield host


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
def test_each_failed_archive_response_has_its_error(
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
def test_a_truncated_archive_in_a_valid_response_is_refused(
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


def test_a_hidden_node_is_unknown(host: FaultyHost) -> None:
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


def test_a_node_known_only_in_full_is_retried_later(host: FaultyHost) -> None:
    """Seen with a real hgweb that had just started, and received two requests at once."""
    host.script(f"/{REPO}?cmd=lookup&key={NODE[:12]}", sized(b"0 unknown revision\n", headers=HG))
    host.script(f"/{REPO}?cmd=known&nodes={NODE}", sized(b"1", headers=HG))

    with pytest.raises(SourceUnavailable) as raised:
        fetch(host.template, an_archive())

    assert raised.value.retryable


def test_a_node_whose_12_digits_are_a_bookmark_is_shadowed(hgweb: Hgweb, fresh: Repository) -> None:
    node = fresh.commit({"README": b"one"})
    other = fresh.commit({"README": b"two"})
    fresh.bookmark(node[:12], other)

    with pytest.raises(ShadowedNode) as raised:
        fetch(hgweb.template, an_archive(repo=fresh.name, node=node))

    assert node in raised.value.message
    assert known(hgweb.template, node, fresh.name)


def test_a_suffix_that_the_host_disallows_is_refused(hgweb: Hgweb, fresh: Repository) -> None:
    node = fresh.commit({"README": b"one"})
    (fresh.path / ".hg" / "hgrc").write_text("[web]\nallow-archive = zip\n")

    assert fetch(hgweb.template, an_archive(repo=fresh.name, node=node, suffix="zip"))
    for suffix in ("tar.gz", "tar.bz2"):
        with pytest.raises(SuffixRefused):
            fetch(hgweb.template, an_archive(repo=fresh.name, node=node, suffix=suffix))


@pytest.mark.parametrize("name", ("l10n.central", "a b", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"))
def test_the_root_is_built_from_the_name_like_hgweb_does(
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


LISTED = f"/{REPO}/json-manifest/{NODE}/"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("answer", "error"),
    (
        (sized(b"<html>", headers=HTML), UnprovenArchive),
        (sized(b"{", headers=JSON), UnprovenArchive),
        (chunked(b'{"node": "', headers=JSON), UnprovenArchive),
        (sized(b"<html>", "404 Not Found", headers=HTML), UnprovenArchive),
        (sized(b"<html>", "403 Forbidden", headers=HTML), UnprovenArchive),
        (sized(b"<html>", "500 Internal Server Error", headers=HTML), SourceUnavailable),
        (sized(b"<html>", "503 Service Unavailable", headers=HTML), SourceBusy),
        (chunked(b"{", headers=JSON, ended=False), SourceUnavailable),
    ),
)
def test_a_host_without_listings_is_unproven_and_retried_later(
    host: FaultyHost, answer: bytes, error: type[ArchiverError]
) -> None:
    host.script(LISTED, answer)

    with pytest.raises(error) as raised:
        last_file(host.template, an_archive())

    assert raised.value.retryable


def test_a_folder_over_the_limits_is_unproven(host: FaultyHost) -> None:
    host.script(LISTED, sized(b'{"basename":0},' * (NAMES_MAX + 1), headers=JSON))

    with pytest.raises(UnprovenArchive, match=r"50000 names .*sources\.\w+\.completeness"):
        last_file(host.template, an_archive())


def test_a_tree_with_too_many_levels_is_unproven(
    host: FaultyHost,
) -> None:
    for level in range(LEVELS_MAX + 1):
        path = "/".join(["a"] * level)
        page = {"node": NODE, "abspath": path, "directories": [{"basename": "a"}], "files": []}
        host.script(LISTED + path, sized(json.dumps(page).encode(), headers=JSON))

    with pytest.raises(UnprovenArchive, match=r"256 levels .*sources\.\w+\.completeness"):
        last_file(host.template, an_archive())


def test_the_last_file_is_looked_up_once(host: FaultyHost) -> None:
    page = {"node": NODE, "abspath": "/", "directories": [], "files": [{"basename": "a"}]}
    host.script(LISTED, sized(json.dumps(page).encode(), headers=JSON))
    archives = [an_archive(), an_archive(suffix="zip")]

    assert last_file(host.template, *archives) == [b"a", b"a"]
    assert host.targets == [LISTED]
