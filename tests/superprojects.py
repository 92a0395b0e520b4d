"""Superprojects for tests: repositories with submodules, and what git itself checks out of them."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.git_repositories import Files, GitRepository, git_environment, submodule
from tests.parts.git_host import GitHost

Urls = Mapping[str, tuple[str, str]]
"""The URL and the node of each submodule, by its path."""


def gitmodules(urls: Mapping[str, str]) -> bytes:
    """Return a ``.gitmodules`` with these URLs, by their paths."""
    return "".join(
        f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path, url in urls.items()
    ).encode()


def with_submodules(files: Files, urls: Urls) -> Files:
    """Return *files* with submodules, in the order of git's trees."""
    modules = gitmodules({path: url for path, (url, _) in urls.items()})
    return {
        **files,
        ".gitmodules": modules,
        **{path: submodule(node) for path, (_, node) in urls.items()},
    }


class Superproject:
    """Repositories on *host*: ``group/project`` with ``libs/one``, which has ``deep/two``.

    ``one`` is a sibling by a relative URL, ``two`` by an absolute one.
    """

    def __init__(self, host: GitHost) -> None:
        self.host = host
        self.two = host.create("group/two")
        self.two_node = self.two.commit({"two.txt": b"two\n", "sub/x": b"x\n"})
        self.one = host.create("group/one")
        urls = {"deep/two": (f"{host.url}/group/two.git", self.two_node)}
        self.one_node = self.one.commit(
            with_submodules({"one.txt": b"one\n", "deep.txt": b"after deep/\n"}, urls)
        )
        self.project = host.create("group/project")
        self.node = self.commit()

    def commit(self, files: Files | None = None, urls: Urls | None = None) -> str:
        """Return a commit of the superproject, by default with the submodule ``one``."""
        files = files or {"README": b"read me\n", "libs.txt": b"after libs/\n", "libs/a": b"a\n"}
        urls = {"libs/one": ("../one.git", self.one_node)} if urls is None else urls
        return self.project.commit(with_submodules(files, urls))


def checked_out(
    host: GitHost, repo: str, node: str, folder: Path, *, subdir: str = ""
) -> Mapping[str, tuple[bytes, int, bytes]]:
    """Return what ``git clone --recurse-submodules`` has at *node*: kind, permissions, content.

    In the form of ``git_world.contents``, without the root.
    """
    environment = {**git_environment(), "GIT_ALLOW_PROTOCOL": "http"}

    def git(*arguments: str) -> None:
        program = shutil.which("git") or "git"
        subprocess.run((program, *arguments), env=environment, check=True, capture_output=True)

    git("clone", "--quiet", "--no-checkout", f"{host.url}/{repo}.git", str(folder))
    git("-C", str(folder), "checkout", "--quiet", node)
    git("-C", str(folder), "submodule", "update", "--init", "--recursive", "--quiet")
    found = {}
    for path in sorted((folder / subdir).rglob("*")):
        if ".git" in path.relative_to(folder).parts or (path.is_dir() and not path.is_symlink()):
            continue
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = (tarfile.SYMTYPE, 0o100, os.fsencode(path.readlink()))
        else:
            found[name] = (tarfile.REGTYPE, path.stat().st_mode & 0o100, path.read_bytes())
    return found


def repository_of(host: GitHost, repo: str) -> GitRepository:
    return GitRepository(host.folder / f"{repo}.git")
