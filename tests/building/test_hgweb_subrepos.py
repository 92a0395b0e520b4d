"""Archives with subrepositories and large files, as hgweb serves them."""

import asyncio
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.errors import (
    CorruptArchive,
    IncompleteArchive,
    SourceRefused,
    UnknownSubdir,
)
from archiver.model import Archive, Completeness, Manifest, Node
from archiver.ports.source import ServedFormats
from tests.broken_repositories import LocalArchiver, archive_of
from tests.parts.hgweb import DATE, HG_ENV, Hgweb, Mercurial, Repository, hg_binary, serving

pytestmark = pytest.mark.thorough

TAR = ServedFormats(suffixes=("tar.gz",))
WHOLE_TAR = ServedFormats(suffixes=("tar.gz",), subdirs=False)
STORES = {"largefiles": ".hg/largefiles", "lfs": ".hg/store/lfs"}
"""Where each extension keeps large files."""
INNER = "lib/sub/inner.txt"


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory, mercurial: Mercurial) -> Iterator[Hgweb]:
    """A server that packs subrepositories."""
    folder = tmp_path_factory.mktemp("packing")
    with serving(folder, mercurial, "archivesubrepos = true") as server:
        yield server


@pytest.fixture(scope="module", params=("largefiles", "lfs"))
def extension(request: pytest.FixtureRequest) -> str:
    extension: str = request.param
    return extension


@pytest.fixture(scope="module")
def extended(
    tmp_path_factory: pytest.TempPathFactory, mercurial: Mercurial, extension: str
) -> Iterator[Hgweb]:
    """A server for the repositories of one extension. It loads that itself, for good."""
    with serving(tmp_path_factory.mktemp(extension), mercurial) as server:
        yield server


@pytest.fixture(params=(False, True), ids=("verify", "trust"))
def trusted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def with_subrepo(host: Hgweb, name: str) -> tuple[Repository, Node]:
    """Return a repository with a subrepository, whose files sort before others of the tree."""
    parent = host.create(name)
    sub = host.create(f"{name}/lib/sub")
    sub.commit({"inner.txt": b"inner\n"})
    files = {".hgsub": b"lib/sub = lib/sub\n", "lib/own.txt": b"own\n", "z.txt": b"z\n"}
    return parent, Node(parent.commit(files))


def with_large_file(
    host: Hgweb, name: str, extension: str, *, other: str = "a.txt"
) -> tuple[Repository, Node]:
    """Return a repository with a large file. The extension changes a process for good."""
    repository = host.create(name)
    repository.write({other: b"a\n", "big.bin": name.encode() * 100})
    options = ("--config", f"extensions.{extension}=", "--config", "lfs.track=size('>100B')")
    if extension == "largefiles":
        shutil.rmtree(repository.path / ".hg")
        alone(repository, *options, "init")
        alone(repository, *options, "add", "--large", "big.bin")
    alone(repository, *options, "commit", "--addremove", "--message", "Change", "--date", DATE)
    node = alone(repository, *options, "log", "--rev", "tip", "--template", "{node}")
    return repository, Node(node)


def alone(repository: Repository, *words: str) -> str:
    """Run a command in a process of its own, and return its output."""
    cache = {"XDG_CACHE_HOME": str(repository.path.parent)}
    return subprocess.run(
        [hg_binary(), *words],
        cwd=repository.path,
        env={**os.environ, **HG_ENV, **cache},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def build(
    local: LocalArchiver, archive: Archive, *, trusted: bool, served: ServedFormats = TAR
) -> Manifest:
    return asyncio.run(local.build(archive, served, trusted=trusted))


def files(local: LocalArchiver, manifest: Manifest) -> dict[str, bytes]:
    """Return the files of a stored archive in their order, without those of Mercurial."""
    with tarfile.open(fileobj=io.BytesIO(local.stored(manifest))) as tar:
        return {
            member.name.partition("/")[2]: file.read()
            for member in tar
            if "/.hg" not in member.name and (file := tar.extractfile(member))
        }


def test_a_subrepository_is_left_out_by_default(
    hgweb: Hgweb, tmp_path: Path, *, trusted: bool
) -> None:
    local = LocalArchiver(host=hgweb, folder=tmp_path)
    repository, node = with_subrepo(hgweb, f"default-{trusted}")
    manifest = build(local, archive_of(repository, node, "tar.gz"), trusted=trusted)
    assert [*files(local, manifest)] == ["lib/own.txt", "z.txt"]


@pytest.mark.parametrize("subdir", ("", "lib"))
def test_a_packed_subrepository_follows_the_files_of_the_tree(
    packing: Hgweb, tmp_path: Path, *, trusted: bool, subdir: str
) -> None:
    local = LocalArchiver(host=packing, folder=tmp_path)
    repository, node = with_subrepo(packing, f"packed-{trusted}-{subdir}")
    archive = archive_of(repository, node, "tar.gz", subdir)
    if not trusted:
        with pytest.raises(IncompleteArchive, match="inner"):
            build(local, archive, trusted=trusted)
        return
    manifest = build(local, archive, trusted=trusted)
    assert manifest.completeness is Completeness.TRUSTED
    assert files(local, manifest)[INNER] == b"inner\n"
    assert [*files(local, manifest)][-1] == INNER


def test_a_part_of_a_subrepository_is_cut_from_the_whole_tree_only(
    packing: Hgweb, tmp_path: Path
) -> None:
    local = LocalArchiver(host=packing, folder=tmp_path)
    repository, node = with_subrepo(packing, "part")
    archive = archive_of(repository, node, "tar.gz", "lib/sub")
    with pytest.raises(UnknownSubdir):
        build(local, archive, trusted=True)
    manifest = build(local, archive, trusted=True, served=WHOLE_TAR)
    assert files(local, manifest) == {INNER: b"inner\n"}


def test_a_subrepository_that_the_host_cannot_get_fails_the_archive(
    packing: Hgweb, tmp_path: Path, *, trusted: bool
) -> None:
    local = LocalArchiver(host=packing, folder=tmp_path)
    repository, node = with_subrepo(packing, f"gone-{trusted}")
    shutil.rmtree(repository.path / "lib/sub")
    with pytest.raises(CorruptArchive):
        build(local, archive_of(repository, node, "tar.gz"), trusted=trusted)


def test_large_files_are_packed_with_their_content(
    extended: Hgweb, tmp_path: Path, *, trusted: bool, extension: str
) -> None:
    """Those of largefiles come first, so the last file is not the last of the manifest."""
    local = LocalArchiver(host=extended, folder=tmp_path)
    repository, node = with_large_file(extended, f"{extension}-{trusted}", extension)
    archive = archive_of(repository, node, "tar.gz")
    if extension == "largefiles" and not trusted:
        with pytest.raises(IncompleteArchive):
            build(local, archive, trusted=trusted)
        return
    manifest = build(local, archive, trusted=trusted)
    assert files(local, manifest)["big.bin"] == repository.name.encode() * 100
    large_first = extension == "largefiles"
    assert [*files(local, manifest)] == sorted(("a.txt", "big.bin"), reverse=large_first)


def test_an_archive_whose_last_file_is_not_large_is_proven(
    extended: Hgweb, tmp_path: Path, extension: str
) -> None:
    local = LocalArchiver(host=extended, folder=tmp_path)
    name = f"{extension}-first"
    repository, node = with_large_file(extended, name, extension, other="z.txt")
    manifest = build(local, archive_of(repository, node, "tar.gz"), trusted=False)
    assert manifest.completeness is Completeness.PROVEN
    assert [*files(local, manifest)] == ["big.bin", "z.txt"]


def test_a_large_file_that_the_host_lacks_fails_the_archive(
    extended: Hgweb, tmp_path: Path, extension: str
) -> None:
    """The host refuses the request, or notices it in the middle."""
    local = LocalArchiver(host=extended, folder=tmp_path)
    repository, node = with_large_file(extended, f"lacks-{extension}", extension)
    shutil.rmtree(repository.path / STORES[extension])
    with pytest.raises((SourceRefused, CorruptArchive)):
        build(local, archive_of(repository, node, "tar.gz"), trusted=True)
