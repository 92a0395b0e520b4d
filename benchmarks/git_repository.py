"""A git repository of a real source tree, with commits that each change a few files."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        run(["git", "init", "--quiet", "--bare", "--initial-branch=main", self.path])
        self.git("config", "core.compression", "1")  # the last repack compresses as usual
        with subprocess.Popen(
            [self._git, "--git-dir", self.path, "fast-import", "--quiet"],
            env=git_environment(),
            stdin=subprocess.PIPE,
        ) as importing:
            with cast("IO[bytes]", importing.stdin) as stream:
                stream.writelines(_commands(inputs, recipe))
            if importing.wait():
                raise RuntimeError("git fast-import failed")
        self.git("config", "--unset", "core.compression")
        self.git("repack", "-a", "-d", "-F", "--quiet")
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


def _folders(path: str) -> Iterator[str]:
    """Yield the folders above *path*, of which the root is empty."""
    yield ""
    for at, char in enumerate(path):
        if char == "/":
            yield path[:at]


def _commands(inputs: Inputs, recipe: Recipe) -> Iterator[bytes]:
    """Yield a stream for ``git fast-import``: https://git-scm.com/docs/git-fast-import."""
    yield from _commit(0)
    changeable: list[tuple[bytes, int, bytes]] = []
    for number, (member, content) in enumerate(inputs.members(recipe.tree_bytes)):
        name = member.name.encode()
        mode = LINK if member.issym() else EXECUTABLE if member.mode & 0o100 else FILE
        data = member.linkname.encode() if member.issym() else content
        yield _file(name, mode, data)
        if mode == FILE and number % 100 == 0:
            changeable.append((name, mode, data))
    for number in range(1, recipe.commits + 1):
        yield from _commit(number)
        start = number * CHANGED_FILES % len(changeable)
        for name, mode, content in islice(changeable * 2, start, start + CHANGED_FILES):
            yield _file(name, mode, content + b"/* change %d */\n" % number)


def _commit(number: int) -> Iterator[bytes]:
    message = b"Change %d" % number
    yield b"commit %s\ncommitter %s" % (_BRANCH, _AUTHOR % (_FIRST_TIME + 60 * number))
    yield b"data %d\n%s\n" % (len(message), message)


def _file(name: bytes, mode: int, content: bytes) -> bytes:
    quoted = name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'M %o inline "%s"\ndata %d\n%s\n' % (mode, quoted, len(content), content)
