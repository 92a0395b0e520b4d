"""The hosts and servers of a snapshot: the same repositories and nodes in every run."""

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.parts.git_host import REPO, GitHost, serving_git
from tests.parts.hgweb import HG_ENV, Mercurial, Repository, hg_binary, serving
from tests.parts.slow_host import SlowHost, slow_host
from tests.system.stack import UNLIMITED, Stack, servers

NOISE = random.Random(16).randbytes(20_000)  # noqa: S311 - same every time
HG_FILES = {"src/main.py": b"print(1)\n", "README": b"read me\n", "noise/a.dat": NOISE}
GIT_FILES = {"lib/code.c": b"int main;\n", "README": b"git\n"}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A stack whose processes run the code in a folder, and the nodes on its hosts."""

    stack: Stack
    host: SlowHost
    old: str
    node: str
    tip: str
    commit: str

    def hg(self, node: str, query: str = "") -> str:
        return f"/archiver/hgmo/records/hg/{node}{'?' if query else ''}{query}"

    @property
    def git(self) -> str:
        return f"/archiver/lab/{REPO}/{self.commit}?suffix=tar.gz"

    def run(
        self, *words: str, env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of operators."""
        return subprocess.run(
            [sys.executable, "-m", "archiver", *words],
            env={**os.environ, **self.stack.env, **(env or {})},
            cwd=self.stack.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@contextlib.contextmanager
def mercurial() -> Iterator[Mercurial]:
    command = [hg_binary(), "serve", "--cmdserver", "pipe"]
    with subprocess.Popen(
        command, env={**os.environ, **HG_ENV}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield Mercurial(process)


@contextlib.contextmanager
def world(folder: Path, *, source: Path) -> Iterator[World]:
    """Yield servers that are up. *source* has the package of the processes to start."""
    (folder / "hg").mkdir()
    (folder / "git").mkdir()
    with contextlib.ExitStack() as stack:
        hgweb = stack.enter_context(serving(folder / "hg", stack.enter_context(mercurial())))
        old, node, tip = commit_all(hgweb.create("records/hg"))
        git = stack.enter_context(serving_git(folder / "git"))
        commit = git.create().commit(GIT_FILES)
        host = stack.enter_context(slow_host(hgweb.port))
        template = hgweb.template_for(host.port)
        settings = settings_for(git, folder, source)
        fleet = stack.enter_context(servers(folder, template=template, settings=settings))
        yield World(stack=fleet, host=host, old=old, node=node, tip=tip, commit=commit)


def commit_all(repository: Repository) -> tuple[str, str, str]:
    old = repository.commit({**HG_FILES, "README": b"old\n"})
    return old, repository.commit(HG_FILES), repository.commit({"README": b"tip\n"})


def settings_for(git: GitHost, folder: Path, source: Path) -> dict[str, str]:
    has_limits = (source / "archiver" / "settings" / "limits.py").exists()
    return {
        "PYTHONPATH": str(source.absolute()),
        "ARCHIVER_SOURCES__LAB__KIND": "git",
        "ARCHIVER_SOURCES__LAB__URL_TEMPLATE": git.template,
        "ARCHIVER_DATA_DIR": str(folder / "data"),
        **(UNLIMITED if has_limits else {}),
    }
