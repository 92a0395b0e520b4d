"""The official client of Git LFS, and the LFS host and pointers of the other tests."""

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from archiver.model import Archive, Limits, Node
from archiver.sources.git.lfs.pointer_search import LfsEntry, find_pointers
from archiver.sources.git.listing import list_tree
from tests.git_objects.test_lfs_pointers import OTHERS, POINTERS
from tests.git_repositories import GitRepository, git_environment
from tests.parts.git_host import REPO, GitHost
from tests.sources.git_packs import add, new_mirrors, pack_of
from tests.sources.lfs_files import download

pytestmark = pytest.mark.programs

FILES: Mapping[str, bytes] = {
    "large.bin": bytes(range(256)) * 5000,
    "deep/er/other.bin": b"other\n",
    "same.bin": bytes(range(256)) * 5000,
    "empty.bin": b"",
    "plain.txt": b"plain\n",
}


class Checkout:
    """A clone with a work tree, in which the filters of git-lfs run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**git_environment(), "HOME": str(folder.parent)}
        self._environment["GIT_CONFIG_GLOBAL"] = str(folder.parent / "gitconfig")

    def git(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> int:
        folder = self.folder if self.folder.is_dir() else self.folder.parent
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the one on PATH
            input=stdin,
            capture_output=True,
            env=self._environment,
            check=False,
        )
        assert done.returncode == 0 or not check, (arguments, done.stderr)
        return done.returncode


def clone(host: GitHost, folder: Path) -> Checkout:
    folder.mkdir()
    checkout = Checkout(folder / "checkout")
    checkout.git("lfs", "install", "--skip-repo")
    checkout.git("clone", "--quiet", f"{host.url}/{REPO}.git", str(checkout.folder))
    return checkout


def push(host: GitHost, folder: Path) -> str:
    """Push FILES with git-lfs, and return the node."""
    repository = host.create()
    repository.git("config", "http.receivepack", "true")
    checkout = clone(host, folder)
    checkout.git("checkout", "--quiet", "-b", "main")
    checkout.git("lfs", "track", "*.bin")
    for name, content in FILES.items():
        path = checkout.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    checkout.git("add", ".")
    checkout.git("commit", "--quiet", "--message", "Add files")
    checkout.git("push", "--quiet", "origin", "main")
    return repository.git("rev-parse", "main")


async def pointers(host: GitHost, node: str, folder: Path) -> list[LfsEntry]:
    repository = GitRepository(host.folder / f"{REPO}.git")
    async with new_mirrors(folder / "mirrors").use("src", REPO, len(node)) as mirror:
        await add(mirror, pack_of(repository, node), node)
        archive = Archive(
            source="src", repo=REPO, node=Node(node), subdir="", suffix="tar", lfs=True
        )
        async with list_tree(mirror, archive, Limits()) as listing:
            return await find_pointers(mirror, archive, listing)


@pytest.mark.parametrize("token", ("", "RemoteAuth 1234"))
def test_files_of_the_official_client_are_found_and_fetched(
    git_host: GitHost, tmp_path: Path, token: str
) -> None:
    git_host.lfs.token = token
    node = push(git_host, tmp_path / "pusher")

    found = asyncio.run(pointers(git_host, node, tmp_path))

    assert {entry.path.decode() for entry in found} == {
        name for name, content in FILES.items() if name.endswith(".bin") and content
    }
    for entry in found:
        assert entry.text == entry.pointer.text
        content = download(git_host.template, entry.pointer)
        assert content == FILES[entry.path.decode()]


def test_the_official_client_accepts_the_host(git_host: GitHost, tmp_path: Path) -> None:
    push(git_host, tmp_path / "pusher")

    checkout = clone(git_host, tmp_path / "puller").folder

    assert {name: (checkout / name).read_bytes() for name in FILES} == FILES


UNCHECKED = {"empty", "one byte too long"}
"""An empty file is a pointer to itself for the client, which checks sizes only in a repository."""


@pytest.mark.parametrize("name", sorted({*POINTERS, *OTHERS} - UNCHECKED))
def test_the_official_client_reads_the_same_texts_as_pointers(name: str, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "none")

    text = {**POINTERS, **OTHERS}[name]
    status = checkout.git("lfs", "pointer", "--check", "--stdin", stdin=text, check=False)

    assert (status == 0) == (name in POINTERS)
