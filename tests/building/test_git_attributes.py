"""Random trees with random attributes: archives are what git packs, of every folder and file."""

import asyncio
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from archiver.errors import EmptyTree, NotPackable
from archiver.tree_proof import TreeMatch
from tests.git_repositories import Entry, GitRepository, executable, submodule, symlink
from tests.git_world import GitWorld, contents, git_source_config, git_world
from tests.parts.git_host import GitHost

TREES = 10
"""Each takes about a second."""

NAMES = ("a", "b", "a.x", "b.x", "a-", "A", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "c d")

PATTERNS = (
    *("*", "a", "/a", "a/", "a/**", "**/b", "*.x", "/*", "a/b", "b/", "!a", '"c d"', "a*"),
    *("[ab]", "**", "**/", "caf*", "b/*.x"),
)

ATTRIBUTES = (
    *("export-ignore", "-export-ignore", "!export-ignore", "export-ignore=false"),
    *("export-subst", "-export-subst", "export-subst=1", "ident", "-ident", "ident=x"),
    *("eol=crlf", "eol=lf", "text", "-text", "text=auto", "crlf", "binary", "filter=lfs"),
    *("working-tree-encoding=UTF-16", "working-tree-encoding=bogus", "macro", "-macro", "outer"),
)

CONTENTS = (
    *(b"", b"x\n", b"x\r\n", b"a\nb\n", b"$Format:%H$ $Id$\n", b"$Id: abc$\n", b"\xff\xfea\0"),
    *(b"$Format:%s%n%an$\r\n", b"caf\xc3\xa9\n" * 3, b"\0binary\n$Id$\n"),
)


def attributes(random: Random) -> bytes:
    lines = []
    if random.random() < 0.4:
        others = [each for each in ATTRIBUTES if "macro" not in each]
        lines.append(f"[attr]macro {' '.join(random.sample(others, 2))}")
    if random.random() < 0.2:
        lines.append("[attr]outer macro -text")
    for _ in range(random.randint(1, 4)):
        found = random.sample(ATTRIBUTES, random.randint(1, 3))
        lines.append(f"{random.choice(PATTERNS)} {' '.join(found)}")
    return "\n".join([*lines, ""]).encode()


def some_entry(random: Random) -> bytes | Entry:
    content = random.choice(CONTENTS)
    match random.randint(0, 9):
        case 0:
            return symlink(random.choice((b"a", b"../a", b"$Format:%H$")))
        case 1:
            return submodule("1" * 40)
        case 2:
            return executable(content)
        case _:
            return content


def some_files(random: Random, depth: int = 0) -> dict[str, bytes | Entry]:
    files: dict[str, bytes | Entry] = {}
    for name in random.sample(NAMES, random.randint(1, 4)):
        if depth < 3 and random.random() < 0.35:
            below = some_files(random, depth + 1)
            files |= {f"{name}/{path}": entry for path, entry in below.items()}
        else:
            files[name] = some_entry(random)
    if random.random() < 0.7:
        files[".gitattributes"] = attributes(random)
    return files


def packed_by_git(
    repository: GitRepository, node: str, subdir: str
) -> Mapping[str, tuple[bytes, int, bytes]]:
    paths = ("--", subdir) if subdir else ()
    data = repository.git_bytes("archive", f"--prefix=project-{node}/", node, *paths)
    return contents(tarfile.open(fileobj=io.BytesIO(data)))


def places(files: Mapping[str, bytes | Entry]) -> list[str]:
    """Return the paths of all folders and files; the root is empty."""
    submodules = {
        path for path, entry in files.items() if isinstance(entry, Entry) and entry.mode == "160000"
    }
    folders = {path.rsplit("/", up)[0] for path in files for up in range(1, path.count("/") + 1)}
    return sorted({"", *folders, *files} - submodules)


async def compare(world: GitWorld, repository: GitRepository, node: str, subdir: str) -> str:
    """Return how the archive was proven, or that it is empty. Fail if git's own is another."""
    expected = packed_by_git(repository, node, subdir)
    try:
        made = await world.make(node, subdir=subdir)
    except EmptyTree:
        assert not expected
        return "empty"
    assert contents(made.tar()) == expected
    assert made.proof
    assert made.proof.match in {TreeMatch.EXACT, TreeMatch.ATTRIBUTES}
    return made.proof.match


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(3))
def test_an_archive_is_what_git_packs_whatever_the_attributes(
    git_host: GitHost, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)  # noqa: S311 - the same trees every time
    repository = git_host.create()

    async def scenario() -> None:
        found = set()
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            for _ in range(TREES):
                files = some_files(random)
                node = repository.commit(files, parents=())
                options = places(files)
                for subdir in random.sample(options, min(3, len(options))):
                    found.add(await compare(world, repository, node, subdir))
        assert {"exact", "attributes"} <= found

    asyncio.run(scenario())


def test_an_attribute_that_git_rejects_is_not_a_failure_of_the_mirror(
    git_host: GitHost, tmp_path: Path
) -> None:
    repository = git_host.create()
    files = {".gitattributes": b"a working-tree-encoding\n", "a": b"a\n", "sub/b": b"b\n"}
    node = repository.commit(files)

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            with pytest.raises(NotPackable) as raised:
                await world.make(node)
            assert "working-tree-encoding" in raised.value.message
            assert (await world.make(node, subdir="sub")).proof
            assert len(git_host.fetches) == 1

    asyncio.run(scenario())
