"""The git host of the tests serves git's own client."""

from pathlib import Path

import pytest

from tests.git_repositories import (
    ATTRIBUTES,
    CASES,
    MODES,
    ODD_NAMES,
    SIMPLE,
    WITH_LFS,
    WITH_SUBMODULE,
    Files,
    commit_rounds,
    create,
)
from tests.parts.git_host import REPO, GitHost

TREES = {
    "simple": SIMPLE,
    "modes": MODES,
    "odd names": ODD_NAMES,
    "cases": CASES,
    "attributes": ATTRIBUTES,
    "lfs": WITH_LFS,
    "submodule": WITH_SUBMODULE,
    "empty": {},
}


@pytest.mark.parametrize("name", TREES)
def test_git_clones_every_kind_of_tree(git_host: GitHost, tmp_path: Path, name: str) -> None:
    files: Files = TREES[name]
    repository = git_host.create()
    node = repository.commit(files)
    clone = create(tmp_path / "clone")

    clone.git("fetch", "--quiet", f"{git_host.url}/{REPO}.git", "main:main")

    assert clone.git("rev-parse", "main") == node
    assert clone.git_bytes("ls-tree", "-r", "-z", node).count(b"\0") == len(files)
    assert clone.git_bytes("ls-tree", "-r", node) == repository.git_bytes("ls-tree", "-r", node)
    assert create(tmp_path / "again").commit(files) == node


def test_the_host_reads_packed_requests(git_host: GitHost, tmp_path: Path) -> None:
    """Git packs requests of more than a kilobyte."""
    repository = git_host.create()
    clone = create(tmp_path / "clone")
    url = f"{git_host.url}/{REPO}.git"
    commit_rounds(repository, 1)
    clone.git("fetch", "--quiet", url, "main:main")
    commit_rounds(clone, 60)
    node = repository.commit(SIMPLE)

    clone.git("fetch", "--quiet", url, "+main:theirs")

    assert clone.git("rev-parse", "theirs") == node
    packed = [each for each in git_host.requests if "content-encoding" in each.headers]
    assert packed
    assert all(each.body.startswith(b"0") for each in packed)


def test_the_host_demands_credentials(git_host: GitHost, tmp_path: Path) -> None:
    git_host.create().commit(SIMPLE)
    git_host.credentials = "user:password"
    clone = create(tmp_path / "clone")
    address = f"127.0.0.1:{git_host.port}/{REPO}.git"

    with pytest.raises(AssertionError, match="could not read Username"):
        clone.git("fetch", "--quiet", f"http://{address}", "main:main")
    clone.git("fetch", "--quiet", f"http://user:password@{address}", "main:main")

    assert clone.find("refs/heads/main")
