"""A superproject: folders of a real source tree are its submodules, and it has files of Git LFS.

Each of its commits but the first moves one submodule, to a commit that changes a few files and a
file of Git LFS.
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from archiver.git_objects import FILE, SUBMODULE
from benchmarks.git_repository import (
    commit_commands,
    file_command,
    import_commits,
    mode_and_data,
)
from benchmarks.inputs import Inputs
from benchmarks.programs import need
from tests.git_repositories import GitRepository
from tests.parts.lfs_host import LfsService
from tests.superprojects import gitmodules

PROJECT = "group/project"
CHANGED_FILES = 10

_EVERYTHING = 1 << 40
_ATTRIBUTES = b".gitattributes"
_LFS = b"lfs/*.bin filter=lfs diff=lfs merge=lfs -text\n"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The ``submodules`` are the largest folders of at most ``folder_bytes``, at one ``depth``.

    The superproject has ``own_bytes`` of other files. Half of the LFS files are there, the rest in
    ``lfs_submodules``, which the ``commits`` after the first one move in turn.
    """

    name: str
    depth: int
    submodules: int
    folder_bytes: int
    own_bytes: int
    lfs_files: int
    lfs_bytes: int
    lfs_submodules: int
    commits: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A commit of the superproject. ``main`` are the nodes of all main branches then."""

    node: str
    main: dict[str, str]


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    recipe: Recipe
    steps: list[Step]


class Superproject:
    """Bare repositories below ``folder``, and their LFS files, as a ``GitHost`` serves them."""

    def __init__(self, inputs: Inputs, recipe: Recipe) -> None:
        need("git")
        self.folder = inputs.folder / "superprojects" / recipe.name
        note = self.folder / "made.json"
        made = msgspec.json.decode(note.read_bytes(), type=_Made) if note.exists() else None
        if made is None or made.recipe != recipe:
            print(f"  committing submodules in {self.folder}, for this run and later ones: minutes")
            shutil.rmtree(self.folder, ignore_errors=True)
            made = _Made(recipe=recipe, steps=_Maker(self.folder, recipe).make(inputs))
            note.write_bytes(msgspec.json.encode(made))
        self.steps = made.steps

    def repository(self, repo: str) -> GitRepository:
        return GitRepository(self.folder / f"{repo}.git")

    def show(self, number: int) -> str:
        """Have all main branches be as they were at a commit, and return that."""
        for repo, node in self.steps[number].main.items():
            self.repository(repo).git("update-ref", "refs/heads/main", node)
        return self.steps[number].node


@dataclass(slots=True)
class _Submodule:
    """``files`` have a mode and a content for each name."""

    path: str
    files: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    lfs: int = 0

    @property
    def repo(self) -> str:
        return f"group/{self.path.replace('/', '-')}"


class _Maker:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._folder = folder
        self._recipe = recipe
        self._lfs = LfsService(folder=folder / ".lfs", links="")

    def make(self, inputs: Inputs) -> list[Step]:
        """Return the commits of the superproject. All files are in memory meanwhile."""
        submodules = [_Submodule(path) for path in self._choose(inputs)]
        own = self._fill(inputs, submodules)
        moving = submodules[:: len(submodules) // self._recipe.lfs_submodules]
        moving = moving[: self._recipe.lfs_submodules]
        half = self._recipe.lfs_files // 2
        for submodule in moving:
            submodule.lfs = half // len(moving)
        nodes = {each.path: self._import(each, moving) for each in submodules}
        return self._import_project(own, submodules, moving, nodes, lfs=half)

    def _choose(self, inputs: Inputs) -> list[str]:
        """Return the paths of the submodules, in order."""
        sizes: Counter[str] = Counter()
        for member, content in inputs.members(_EVERYTHING):
            sizes[self._folder_of(member.name)] += len(content)
        fitting = [path for path, size in sizes.most_common() if size <= self._recipe.folder_bytes]
        return sorted(islice(filter(None, fitting), self._recipe.submodules))

    def _folder_of(self, name: str) -> str:
        """Return the folder of a file that may become a submodule; empty if it is above them."""
        *folders, _ = name.split("/")
        depth = self._recipe.depth
        return "/".join(folders[:depth]) if len(folders) >= depth else ""

    def _fill(
        self, inputs: Inputs, submodules: Sequence[_Submodule]
    ) -> dict[bytes, tuple[int, bytes]]:
        """Add the files of the submodules, and return those of the superproject."""
        by_path = {each.path: each for each in submodules}
        own: dict[bytes, tuple[int, bytes]] = {}
        room = self._recipe.own_bytes
        for member, content in inputs.members(_EVERYTHING):
            if member.name.encode() == _ATTRIBUTES:
                continue
            mode, data = mode_and_data(member, content)
            if found := by_path.get(self._folder_of(member.name)):
                name = member.name.removeprefix(f"{found.path}/")
                found.files[name.encode()] = mode, data
            elif len(data) <= room:
                room -= len(data)
                own[member.name.encode()] = mode, data
        return own

    def _import(self, submodule: _Submodule, moving: Sequence[_Submodule]) -> list[str]:
        """Create the repository of a submodule, and return its commits."""
        numbers = range(1, self._recipe.commits + 1)
        moves = [n for n in numbers if moving[n % len(moving)] is submodule]
        return self._create(submodule.repo, self._commands(submodule, moves))

    def _commands(self, submodule: _Submodule, moves: Sequence[int]) -> Iterator[bytes]:
        yield from self._first(submodule.repo, submodule.files, submodule.lfs)
        texts = [name for name, (mode, _) in submodule.files.items() if mode == FILE]
        for number in moves:
            yield from commit_commands(number)
            yield self._lfs_command(submodule.repo, 0, version=number)
            chance = random.Random(number)  # noqa: S311 - not for secrets
            for name in chance.sample(texts, min(CHANGED_FILES, len(texts))):
                mode, content = submodule.files[name]
                yield file_command(name, mode, content + b"/* change %d */\n" % number)

    def _first(self, repo: str, files: dict[bytes, tuple[int, bytes]], lfs: int) -> Iterator[bytes]:
        yield from commit_commands(0)
        for name, (mode, content) in files.items():
            yield file_command(name, mode, content)
        if lfs:
            yield file_command(_ATTRIBUTES, FILE, _LFS)
        for number in range(lfs):
            yield self._lfs_command(repo, number)

    def _lfs_command(self, repo: str, number: int, *, version: int = 0) -> bytes:
        """Store an LFS file of random bytes, and return the command for its pointer."""
        chance = random.Random(f"{repo} {number}")  # noqa: S311 - not for secrets
        most_bytes = 2 * self._recipe.lfs_bytes // self._recipe.lfs_files
        size_bytes = chance.randrange(most_bytes)
        chance.seed(f"{repo} {number} {version}")
        pointer = self._lfs.add(repo, chance.randbytes(size_bytes))
        return file_command(b"lfs/%d.bin" % number, FILE, pointer.text)

    def _import_project(
        self,
        own: dict[bytes, tuple[int, bytes]],
        submodules: Sequence[_Submodule],
        moving: Sequence[_Submodule],
        nodes: dict[str, list[str]],
        *,
        lfs: int,
    ) -> list[Step]:
        urls = {each.path: f"../{each.repo.partition('/')[2]}.git" for each in submodules}
        main = {each.repo: nodes[each.path][0] for each in submodules}
        mains = [dict(main)]
        own[b".gitmodules"] = FILE, gitmodules(urls)

        def commands() -> Iterator[bytes]:
            yield from self._first(PROJECT, own, lfs)
            for each in submodules:
                yield _link_command(each.path, main[each.repo])
            for number in range(1, self._recipe.commits + 1):
                yield from commit_commands(number)
                moved = moving[number % len(moving)]
                at = nodes[moved.path].index(main[moved.repo]) + 1
                main[moved.repo] = nodes[moved.path][at]
                mains.append(dict(main))
                yield _link_command(moved.path, main[moved.repo])

        found = self._create(PROJECT, commands())
        return [
            Step(node=node, main={**main, PROJECT: node})
            for node, main in zip(found, mains, strict=True)
        ]

    def _create(self, repo: str, commands: Iterator[bytes]) -> list[str]:
        path = self._folder / f"{repo}.git"
        import_commits(path, commands)
        return GitRepository(path).git("rev-list", "--reverse", "main").split()


def _link_command(path: str, node: str) -> bytes:
    return b'M %o %s "%s"\n' % (SUBMODULE, node.encode(), path.encode())
