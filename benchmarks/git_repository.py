"""A git repository of a real source tree, with commits that each change a few files."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tarfile import TarInfo
from typing import IO, cast

import msgspec

from archiver.git_objects import EXECUTABLE, FILE, LINK
from benchmarks.inputs import Inputs
from benchmarks.programs import need, run
from tests.git_repositories import git_environment
from tests.system.stack import binary

CHANGED_FILES = 10
"""Files that each commit changes: some kilobytes of objects, most of them trees."""

SUBDIR_SHARE = 0.01

_AUTHOR = b"Bench <bench@example.org> %d +0000\n"
_FIRST_TIME = 1_700_000_000
_BRANCH = b"refs/heads/main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Bytes of the tree, and the number of commits after the first one."""

    name: str
    tree_bytes: int
    commits: int


class GitRepository:
    """A bare repository. ``nodes`` are its commits, the oldest first.

    ``subdir`` is the folder whose size is closest to 1 % of the tree.
    """

    def __init__(self, inputs: Inputs, recipe: Recipe) -> None:
        need("git")
        self._git = binary("git")
        self.path = inputs.folder / "git" / f"{recipe.name}.git"
        if not self._has(recipe):
            print(f"  committing the tree in {self.path}, for this run and later ones: minutes")
            self._make(inputs, recipe)
        self.nodes = self.git("rev-list", "--reverse", "main").split()
        self.files, self.size_bytes, self.subdir = self._measure()

    @property
    def _recipe(self) -> Path:
        """The file that says what was made, once that is complete."""
        return self.path / "recipe.json"

    def _has(self, recipe: Recipe) -> bool:
        found = self._recipe.exists() and self._recipe.read_bytes()
        return found == msgspec.json.encode(recipe)

    def git(self, *words: str) -> str:
        return subprocess.run(
            [self._git, "--git-dir", self.path, *words],
            env=git_environment(),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def _make(self, inputs: Inputs, recipe: Recipe) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        import_commits(self.path, _commands(inputs, recipe))
        self._recipe.write_bytes(msgspec.json.encode(recipe))

    def _measure(self) -> tuple[int, int, str]:
        """Return the number of files, their bytes, and the subdir."""
        sizes: Counter[str] = Counter()
        lines = self.git("ls-tree", "-r", "-l", "-z", self.nodes[0]).split("\0")[:-1]
        for line in lines:
            fields, _, path = line.partition("\t")
            for folder in _folders(path):
                sizes[folder] += int(fields.split()[-1])
        total = sizes.pop("")
        return (
            len(lines),
            total,
            min(sizes, key=lambda each: abs(sizes[each] - SUBDIR_SHARE * total)),
        )


def import_commits(path: Path, commands: Iterable[bytes]) -> None:
    """Create the bare repository *path* of a stream for ``git fast-import``, well packed.

    Format: https://git-scm.com/docs/git-fast-import.
    """

    def git(*words: str) -> list[str | Path]:
        return [binary("git"), "--git-dir", path, *words]

    path.parent.mkdir(parents=True, exist_ok=True)
    run(["git", "init", "--quiet", "--bare", "--initial-branch=main", path])
    quickly = ("-c", "core.compression=1")  # the repack compresses as usual
    with subprocess.Popen(
        git(*quickly, "fast-import", "--quiet"), env=git_environment(), stdin=subprocess.PIPE
    ) as importing:
        with cast("IO[bytes]", importing.stdin) as stream:
            stream.writelines(commands)
        if importing.wait():
            raise RuntimeError("git fast-import failed")
    run(git("repack", "-a", "-d", "-F", "--quiet"), env=git_environment())


def _folders(path: str) -> Iterator[str]:
    """Yield the folders above *path*, of which the root is empty."""
    yield ""
    for at, char in enumerate(path):
        if char == "/":
            yield path[:at]


def _commands(inputs: Inputs, recipe: Recipe) -> Iterator[bytes]:
    yield from commit_commands(0)
    changeable: list[tuple[bytes, int, bytes]] = []
    for number, (member, content) in enumerate(inputs.members(recipe.tree_bytes)):
        name, (mode, data) = member.name.encode(), mode_and_data(member, content)
        yield file_command(name, mode, data)
        if mode == FILE and number % 100 == 0:
            changeable.append((name, mode, data))
    for number in range(1, recipe.commits + 1):
        yield from commit_commands(number)
        start = number * CHANGED_FILES % len(changeable)
        for name, mode, content in islice(changeable * 2, start, start + CHANGED_FILES):
            yield file_command(name, mode, content + b"/* change %d */\n" % number)


def mode_and_data(member: TarInfo, content: bytes) -> tuple[int, bytes]:
    """Return git's mode of a file or link, and what a blob has."""
    if member.issym():
        return LINK, member.linkname.encode()
    return EXECUTABLE if member.mode & 0o100 else FILE, content


def commit_commands(number: int) -> Iterator[bytes]:
    """Yield the head of a commit to the main branch, for ``file_command`` to follow."""
    message = b"Change %d" % number
    yield b"commit %s\ncommitter %s" % (_BRANCH, _AUTHOR % (_FIRST_TIME + 60 * number))
    yield b"data %d\n%s\n" % (len(message), message)


def file_command(name: bytes, mode: int, content: bytes) -> bytes:
    quoted = name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'M %o inline "%s"\ndata %d\n%s\n' % (mode, quoted, len(content), content)
