"""Builds of git commits under faults: the right archives, second tries, and what is left over."""

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from archiver.errors import ArchiverError
from tests.git_world import GitWorld, git_source_config, git_world
from tests.parts.git_host import GitHost
from tests.parts.stopping_git import StoppingGit


def open_world(
    host: GitHost, folder: Path, git: StoppingGit | None = None, max_bytes: int = 1 << 30
) -> AbstractAsyncContextManager[GitWorld]:
    config = git_source_config(host.template)
    program = git.program if git else None
    return git_world(config, folder, mirror_max_bytes=max_bytes, git=program)


def expected(host: GitHost, folder: Path, *nodes: str) -> dict[str, str]:
    """Return the SHA-256 of each archive, made in a folder of its own without any fault."""

    async def scenario() -> dict[str, str]:
        async with open_world(host, folder / "reference") as world:
            found = {node: (await world.make(node)).sha256 for node in nodes}
        host.requests.clear()
        return found

    return asyncio.run(scenario())


async def make_despite(world: GitWorld, node: str, *allowed: type[ArchiverError]) -> str:
    """Return the SHA-256 of an archive, of which the first try may fail with an error to retry."""
    assert all(error.retryable for error in allowed)
    with suppress(*allowed):
        return (await world.make(node)).sha256
    return (await world.make(node)).sha256


def litter(folder: Path) -> list[str]:
    """Return the temporary files in a worker's folder."""
    mirrors = folder / "mirrors"
    found = [*(mirrors / "new").iterdir(), *(mirrors / "trash").iterdir()]
    found += [path for path in mirrors.rglob("tmp_*") if path not in found]
    found += [path for path in (folder / "work").rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in found]


def mirrors_of(folder: Path) -> list[Path]:
    """Return the mirrors in a worker's folder, the one in use last."""
    return sorted((folder / "mirrors" / "stores").glob("*/*"), key=lambda path: int(path.name))
