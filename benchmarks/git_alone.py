"""Runs steps of a build from a git host with Archiver's code; prints wall and CPU time as JSON.

``python -m benchmarks.git_alone STEP WORD …`` runs the function of this module named STEP. CPU time
includes that of child processes.
"""

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import median

from archiver.formats.compression.compress import compress_tar, keep_freed_memory
from archiver.formats.convert import ProcessConverter
from archiver.formats.repack import MemberFilter, repack_tar
from archiver.formats.tar.writer import TarWriter
from archiver.formats.verify import StreamVerifier
from archiver.formats.workspace import Workspace
from archiver.model import Archive, Node
from archiver.ports.source import Stream
from archiver.runtime.threads import available_cores
from archiver.sources.git.root import root_directory
from benchmarks.alone import CHUNK_BYTES
from tests.git_repositories import git_environment
from tests.git_world import GitWorld, git_source_config, git_world
from tests.system.stack import binary

MIRRORS_BYTES = 64 << 30

ROOT = "{basename}-{node}"

SHARE = 20
"""The first and the last twentieth of a history are compared."""


def _archive(repo: str, node: str, suffix: str = "tar") -> Archive:
    return Archive(source="git", repo=repo, node=Node(node), subdir="", suffix=suffix)


@asynccontextmanager
async def _world(template: str, folder: str) -> AsyncIterator[GitWorld]:
    """Yield a source whose mirrors are below *folder*."""
    config = replace(git_source_config(template), deadline=timedelta(minutes=30))
    async with git_world(config, Path(folder), mirror_max_bytes=MIRRORS_BYTES) as world:
        yield world


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Clock:
    """Measures from its creation, or from ``start``."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._cpu_s, self._started = _cpu_s(), time.monotonic()

    def stop(self) -> dict[str, float]:
        """Return wall and CPU time. Children count once they have ended."""
        return {"wall_s": time.monotonic() - self._started, "cpu_s": _cpu_s() - self._cpu_s}


def _chunks(path: str) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


async def fetch(clock: Clock, *words: str) -> None:
    """Fetch a commit into a mirror, and list its files."""
    template, folder, repo, node = words
    async with _world(template, folder) as world:
        clock.start()
        async with world.source.open(_archive(repo, node)):
            pass


def archive(clock: Clock, *words: str) -> None:
    """Have git write the tar of a commit into a file, or to /dev/null."""
    git_dir, repo, node, target = words
    root = root_directory(ROOT, _archive(repo, node))
    clock.start()
    command = [binary("git"), "--git-dir", git_dir, "archive", f"--prefix={root}/", "--output"]
    subprocess.run([*command, target, "--format=tar", node], check=True, env=git_environment())


def repack(clock: Clock, *words: str) -> None:
    """Read a tar, and write it again, as a conversion does before it compresses."""
    repo, node, tar = words
    clock.start()
    for _ in _repacked(repo, node, tar):
        pass


def _repacked(repo: str, node: str, tar: str) -> Iterator[bytes]:
    original = _archive(repo, node)
    root = root_directory(ROOT, original)
    members = MemberFilter(original=original, target=original, root=root, writer=TarWriter())
    return repack_tar(_chunks(tar), "tar", members)


def compress(clock: Clock, *words: str) -> None:
    """Compress a tar on all cores, into a file or to /dev/null."""
    suffix, tar, target = words
    clock.start()
    with Path(target).open("wb") as file:
        file.writelines(compress_tar(_chunks(tar), suffix=suffix, threads=available_cores()))


async def verify(clock: Clock, *words: str) -> None:
    """Verify an archive, and prove it if the last word is ``prove``."""
    template, folder, repo, node, suffix, path, proof = words
    wanted = _archive(repo, node, suffix)
    async with _world(template, folder) as world, world.source.open(_archive(repo, node)) as stream:
        with ThreadPoolExecutor(1) as pool:
            verifier = _verifier(wanted, stream, proof, pool)
            clock.start()
            for chunk in _chunks(path):
                await verifier.update(chunk)
            await verifier.finish()


async def build(clock: Clock, *words: str) -> None:
    """Make an archive of a commit that the mirror has, verify it, and discard it."""
    template, folder, repo, node, suffix, proof = words
    original, wanted = _archive(repo, node), _archive(repo, node, suffix)
    converter = _converter(folder)
    with ThreadPoolExecutor(1) as pool:
        async with _world(template, folder) as world:
            clock.start()
            async with world.source.open(original) as stream:
                verifier = _verifier(wanted, stream, proof, pool)
                async with converter.convert(
                    stream.chunks,
                    original=original,
                    target=wanted,
                    root=stream.root,
                    piped=stream.piped,
                ) as pieces:
                    async for piece in pieces:
                        await verifier.update(piece)
                await verifier.finish()


def _converter(folder: str) -> ProcessConverter:
    workspace = Workspace(folder=Path(folder), max_bytes=MIRRORS_BYTES)
    return ProcessConverter(workspace=workspace, threads=available_cores())


def _verifier(wanted: Archive, stream: Stream, proof: str, pool: Executor) -> StreamVerifier:
    tree = stream.tree_check if proof == "prove" else None
    return StreamVerifier(wanted, root=stream.root, identity=None, tree=tree, pool=pool)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().split()


async def history(clock: Clock, *words: str) -> dict[str, float]:
    """Fetch all commits of a list in turn, and archive each; then the last into a new mirror.

    Returns the median time of a fetch at the beginning and at the end, and the size of the mirror
    against that of the new one.
    """
    template, folder, repo, listed = words
    nodes = await asyncio.to_thread(_lines, listed)
    clock.start()
    taken = []
    async with _world(template, folder) as world:
        for node in nodes:
            started = time.monotonic()
            async with world.source.open(_archive(repo, node)) as stream:
                taken.append(time.monotonic() - started)
                async for _ in stream.chunks:
                    pass
        fresh = f"fresh/{repo.rpartition('/')[2]}"
        async with world.source.open(_archive(fresh, nodes[-1])):
            pass
        sizes = {
            status.identity.repo: status.size.size_bytes
            for status in world.mirrors.folder.statuses()
            if status.identity
        }
    share = len(taken) // SHARE or 1  # the very first one fetches everything
    begin, end = median(taken[1 : 1 + share]), median(taken[-share:])
    return {
        "begin_s": begin,
        "end_s": end,
        "mirror_bytes": sizes[repo],
        "fresh_bytes": sizes[fresh],
    }


def main(step: str, *words: str) -> None:
    keep_freed_memory()  # as workers and conversions do
    clock, run_step = Clock(), STEPS[step]
    found = run_step(clock, *words)
    result = asyncio.run(found) if isinstance(found, Coroutine) else None
    print(json.dumps({**clock.stop(), **(result or {})}))


STEPS: Mapping[str, Callable[..., Coroutine[None, None, dict[str, float] | None] | None]] = {
    step.__name__: step for step in (fetch, archive, repack, compress, verify, build, history)
}


if __name__ == "__main__":
    main(*sys.argv[1:])
