"""The git program, which runs offline, with limits and without any configuration of the machine."""

import re
import shutil
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from archiver.runtime.tasks import concurrently
from archiver.runtime.threads import available_cores
from archiver.sources.git.child import PIECE_BYTES, Child, GitFailed, Run, start
from archiver.sources.git.piped_output import PipedOutput, open_pipe

__all__ = ["GitFailed", "GitProgram", "UnsupportedGit", "find_git", "require_supported_version"]

MINIMUM = (2, 39, 1)
"""The first version whose `git archive` has the fixes of CVE-2022-41903 and CVE-2022-23521."""

MEMORY_BYTES = 1 << 30
"""Address space of one process. Deltas of a few bytes may ask for any amount."""

CPU = timedelta(hours=2)
"""Processor time of one process. Runs over the files of a commit have less: ``Listing.cpu``."""

DEADLINE = timedelta(hours=1)
THREADS_MAX = 4
START_TIMEOUT_S = 30

_VERSION = re.compile(rb"git version (\d+)\.(\d+)(?:\.(\d+))?")

_ENVIRONMENT = {
    "HOME": "/dev/null",
    "LC_ALL": "C",
    "TZ": "UTC",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
}

_CONFIG = {
    # Nothing that a repository or a machine names is run or contacted.
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "gpg.program": "/dev/null",
    "protocol.allow": "never",
    # The bytes of an archive depend on the commit only.
    "core.abbrev": "40",
    "core.autocrlf": "false",
    "core.eol": "lf",
    "tar.umask": "002",
    # A file may have a name that no disk of Windows or macOS can have: it is not checked out.
    "core.protectNTFS": "false",
    "core.protectHFS": "false",
    # Memory: larger files are streamed, and packs are mapped piece by piece. These take Linux from
    # 390 to 160 MB to archive, and from 230 to 130 MB to receive, and no longer.
    "core.bigFileThreshold": "32m",
    "core.packedGitWindowSize": "16m",
    "core.packedGitLimit": "64m",
    "core.deltaBaseCacheLimit": "16m",
    "pack.windowMemory": "32m",
    "pack.deltaCacheSize": "32m",
    "pack.threads": str(min(available_cores(), THREADS_MAX)),
    # Every object of a mirror is unreachable, so no cleanup may run. A mirror is a cache, so
    # nothing needs to survive a loss of power.
    "gc.auto": "0",
    "maintenance.auto": "false",
    "core.fsync": "none",
    "repack.writeBitmaps": "false",
}


_CONFIG_VARIABLES = {
    "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    **{f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(_CONFIG)},
    **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(_CONFIG.values())},
}


class UnsupportedGit(Exception):
    """The git program is absent, or too old. The text says so to operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitProgram:
    """The git program at ``path``. ``exec_path`` is the folder of its own programs.

    A program that is ``bound_to`` a repository runs there. Every run ends at its deadline, when the
    block of its caller ends, and on cancellation, together with all processes that it started.
    """

    path: str
    exec_path: str
    memory_bytes: int = MEMORY_BYTES
    cpu: timedelta = CPU
    deadline: timedelta = DEADLINE
    git_dir: Path | None = None
    object_dir: Path | None = None
    index_file: Path | None = None
    inherits: tuple[int, ...] = ()

    def bound_to(
        self, git_dir: Path, *, object_dir: Path | None = None, inherits: tuple[int, ...] = ()
    ) -> "GitProgram":
        """Return the program for a repository. Its processes keep the descriptors *inherits*."""
        return replace(self, git_dir=git_dir, object_dir=object_dir, inherits=inherits)

    async def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        max_output_bytes: int = PIECE_BYTES,
        may_fail: bool = False,
    ) -> bytes:
        """Return the output of one run. Raises GitFailed, also for more than *max_output_bytes*.

        A failure is logged as a warning, unless the input is such that the run *may_fail*.
        """
        async with (
            self._start(arguments, feeds=True, may_fail=may_fail) as child,
            concurrently(child.write_all(stdin)),
        ):
            return await child.read_all(max_output_bytes)

    @asynccontextmanager
    async def stream(
        self, *arguments: str, stdin: BinaryIO | None = None
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Yield the output in pieces of up to 1 MiB. They raise GitFailed at their end.

        Git reads the file *stdin* from its position on.
        """
        async with (
            self._start(arguments, feeds=False, stdin=stdin) as child,
            aclosing(child.iter_output()) as pieces,
        ):
            yield pieces

    @asynccontextmanager
    async def pipe(self, *arguments: str) -> AsyncIterator[PipedOutput]:
        """Yield the output for another process to read. Raises GitFailed if git is not started."""
        with open_pipe() as pipe:
            async with self._start(arguments, feeds=False, stdout=pipe.writer) as child:
                pipe.close_writer()
                yield PipedOutput(child, pipe)

    @asynccontextmanager
    async def feed(self, *arguments: str) -> AsyncIterator[Child]:
        """Yield a process to write to: ``write``, then ``finish``. Both raise GitFailed."""
        async with self._start(arguments, feeds=True) as child:
            yield child

    def with_index(self, index_file: Path) -> "GitProgram":
        """Return the program with an index of its own, which need not exist yet."""
        return replace(self, index_file=index_file)

    def limited(self, *, cpu: timedelta) -> "GitProgram":
        """Return the program with at most this limit of processor time, in whole seconds."""
        return replace(self, cpu=min(self.cpu, cpu))

    def _start(
        self,
        arguments: tuple[str, ...],
        *,
        feeds: bool,
        stdin: BinaryIO | None = None,
        stdout: int = PIPE,
        may_fail: bool = False,
    ) -> AbstractAsyncContextManager[Child]:
        run = Run(
            command=(self.path, *arguments),
            environment=self._environment(),
            memory_bytes=self.memory_bytes,
            cpu=self.cpu,
            deadline=self.deadline,
            inherits=self.inherits,
            stdin=stdin.fileno() if stdin else None,
            may_fail=may_fail,
        )
        return start(run, feeds=feeds, stdout=stdout)

    def _environment(self) -> dict[str, str]:
        environment = {**_ENVIRONMENT, **_CONFIG_VARIABLES, "PATH": self.exec_path}
        if self.git_dir:
            environment["GIT_DIR"] = str(self.git_dir)
        if self.object_dir:
            environment["GIT_OBJECT_DIRECTORY"] = str(self.object_dir)
        if self.index_file:
            environment["GIT_INDEX_FILE"] = str(self.index_file)
        return environment

    def version(self) -> tuple[int, int, int]:
        """Return git's version. Blocks for some milliseconds. Raises UnsupportedGit."""
        match = _VERSION.match(_ask(self.path, "version"))
        if not match:
            raise UnsupportedGit(f"{self.path} is not git: it does not report its version")
        major, minor, patch = (int(number or 0) for number in match.groups())
        return major, minor, patch


def find_git() -> GitProgram:
    """Return the git program on PATH. Blocks for some milliseconds. Raises UnsupportedGit."""
    path = shutil.which("git")
    if not path:
        raise UnsupportedGit("git is not installed, or not on PATH")
    path = str(Path(path).resolve())
    exec_path = _ask(path, "--exec-path").decode().strip()
    # `git archive` runs gpg, if a commit asks for its signature, from PATH.
    if shutil.which("gpg", path=exec_path):
        raise UnsupportedGit(f"{exec_path} has gpg beside git's own programs")
    return GitProgram(path=path, exec_path=exec_path)


def require_supported_version(git: GitProgram) -> None:
    """Return if *git* has the fixes that Archiver depends on. Raises UnsupportedGit."""
    version = git.version()
    if version < MINIMUM:
        raise UnsupportedGit(
            f"{git.path} is git {_dotted(version)}: version {_dotted(MINIMUM)} or later is "
            "required, because earlier ones let a repository write to git's memory"
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _ask(path: str, question: str) -> bytes:
    command = (path, question)
    try:
        return subprocess.run(  # noqa: S603 - the operator's git
            command,
            env={**_ENVIRONMENT, **_CONFIG_VARIABLES},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=START_TIMEOUT_S,
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise UnsupportedGit(f"{path} cannot be run") from exc
