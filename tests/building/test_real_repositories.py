"""Sources of real projects: an unpacked archive is what ``git checkout`` writes."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from archiver.tree_proof import TreeMatch
from tests.git_repositories import DATE, MAIN, GitRepository, git_environment
from tests.git_world import git_source_config, git_world
from tests.parts.git_host import GitHost
from tests.parts.git_program import GIT

PROJECTS = ("click", "flask", "idna", "markupsafe", "six")

UMASK = 0o002
"""That of the modes in archives."""

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("no_git_left")]


def download(project: str, folder: Path) -> Path:
    """Return the unpacked source distribution of *project*, from the index that pip uses."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary=:all:", "--no-deps"]
    subprocess.run([*command, f"--dest={folder}", project], check=True)
    (packed,) = folder.glob("*.tar.gz")
    unpack(packed, folder)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def unpack(archive: Path, folder: Path) -> None:
    command = ["tar", "--extract", "--preserve-permissions", "--no-same-owner"]
    subprocess.run([*command, f"--file={archive}", f"--directory={folder}"], check=True)


def git(repository: GitRepository, tree: Path, *arguments: str) -> None:
    """Run git in *repository* with *tree* as its working tree."""
    subprocess.run(
        [GIT, f"--git-dir={repository.path}", f"--work-tree={tree}", *arguments],
        env=git_environment(),
        umask=UMASK,
        cwd=tree,
        check=True,
    )


def described(folder: Path) -> Mapping[str, tuple[str, bytes]]:
    """Return type, permissions and content of everything below *folder*, by path."""
    found = {}
    for path in folder.rglob("*"):
        mode = stat.filemode(path.lstat().st_mode)
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        else:
            content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (mode, content)
    return found


@pytest.mark.parametrize("project", PROJECTS)
def test_an_unpacked_archive_is_a_checkout(git_host: GitHost, tmp_path: Path, project: str) -> None:
    (tmp_path / "source").mkdir()
    source = download(project, tmp_path / "source")
    repository = git_host.create()
    git(repository, source, "add", "--all", "--force", ".")
    git(repository, source, "commit", "--quiet", f"--message={project}", f"--date={DATE}")
    node = repository.git("rev-parse", MAIN)
    checkout, unpacked = tmp_path / "checkout", tmp_path / "unpacked"
    for folder in (checkout, unpacked):
        folder.mkdir()
    git(repository, checkout, "checkout", "--quiet", "--force", node, "--", ".")

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            made = await world.make(node)
            assert made.proof
            assert made.proof.match is TreeMatch.EXACT
            (tmp_path / "made.tar.gz").write_bytes(made.data)

    asyncio.run(scenario())
    unpack(tmp_path / "made.tar.gz", unpacked)
    expected = described(checkout)
    assert len(expected) > 5
    assert described(unpacked / f"project-{node}") == expected
