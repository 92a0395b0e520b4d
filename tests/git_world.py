"""A worker's way from a git host to an archive, with every part real but the buckets."""

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from archiver.building.pipeline import Pipeline
from archiver.building.streams import Progress
from archiver.formats.convert import ProcessConverter
from archiver.formats.verify import StreamVerifier
from archiver.formats.workspace import Workspace
from archiver.model import Archive, Completeness, Conversion, Limits, Node
from archiver.ports.source import ServedFormats, Source
from archiver.sources.config import GitConfig, SourceConfig
from archiver.sources.git.complete.hosts import GitHosts, TakeSeat, unlimited
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.git.program import GitProgram, find_git
from archiver.sources.open import open_source
from archiver.tasks import Phase
from archiver.tree_proof import TreeProof
from tests.parts.git_host import REPO

NO_GIT = GitConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An archive, and what its manifest would say about it."""

    data: bytes
    proof: TreeProof | None
    completeness: Completeness
    conversion: Conversion | None
    source_url: str
    phases: list[tuple[Phase, int]]

    def tar(self) -> tarfile.TarFile:
        return tarfile.open(fileobj=io.BytesIO(self.data), mode="r:*")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class GitWorld:
    """A git source with the mirrors below *folder*."""

    source: Source
    mirrors: Mirrors
    pipeline: Pipeline

    async def make(
        self,
        node: str,
        *,
        repo: str = REPO,
        subdir: str = "",
        suffix: str = "tar.gz",
        submodules: bool = False,
        lfs: bool = False,
        phases: list[tuple[Phase, int]] | None = None,
    ) -> Made:
        """Return an archive of *repo*, made as a worker makes it."""
        archive = replace(
            git_archive(node, repo=repo, subdir=subdir, suffix=suffix),
            submodules=submodules,
            lfs=lfs,
        )
        candidate = replace(archive, suffix="tar")
        phases = [] if phases is None else phases
        progress = Progress(lambda phase, size_bytes: phases.append((phase, size_bytes)))
        async with self.pipeline.fetch(self.source, candidate, archive, progress) as output:
            async with aclosing(output.stream.chunks()) as chunks:
                pieces = [chunk async for chunk in chunks]
            return Made(
                data=b"".join(pieces),
                proof=output.proof,
                completeness=output.completeness,
                conversion=output.conversion,
                source_url=output.source_url,
                phases=phases,
            )


def git_archive(
    node: str, *, repo: str = REPO, subdir: str = "", suffix: str = "tar.gz"
) -> Archive:
    return Archive(source="git", repo=repo, node=Node(node), subdir=subdir, suffix=suffix)


def git_source_config(
    template: str,
    *,
    name: str = "git",
    git: GitConfig = NO_GIT,
    limits: Limits | None = None,
    authorization: str = "",
) -> SourceConfig:
    return SourceConfig(
        kind="git",
        name=name,
        url_template=template,
        served=ServedFormats(suffixes=("tar",), verbatim=False, parts_of_whole=False),
        lookup_concurrency=2,
        read_timeout=timedelta(seconds=30),
        deadline=timedelta(seconds=90),
        user_agent="tests",
        limits=limits or Limits(),
        git=git,
        authorization=authorization,
    )


@asynccontextmanager
async def git_world(
    config: SourceConfig,
    folder: Path,
    *others: SourceConfig,
    mirror_max_bytes: int = 1 << 30,
    lfs_max_bytes: int = 1 << 30,
    git: GitProgram | None = None,
    take_seat: TakeSeat = unlimited,
) -> AsyncIterator[GitWorld]:
    """Yield the world of the source *config*. *others* are further sources of submodules."""
    git = git or find_git()
    mirrors = Mirrors(folder=folder / "mirrors", max_bytes=mirror_max_bytes, git=git)
    workspace = Workspace(folder=folder / "work", max_bytes=1 << 30)
    converter = ProcessConverter(workspace=workspace, threads=2)
    lfs_cache = LfsCache(folder=folder / "lfs", max_bytes=lfs_max_bytes)
    hosts = GitHosts(take_seat, lfs_cache=lfs_cache)
    async with AsyncExitStack() as stack:
        source, *_ = [
            await stack.enter_async_context(open_source(each, mirrors=mirrors, hosts=hosts))
            for each in (config, *others)
        ]
        yield GitWorld(
            source=source,
            mirrors=mirrors,
            pipeline=Pipeline(
                verify=partial(StreamVerifier, limits=config.limits), converter=converter
            ),
        )


def contents(tar: tarfile.TarFile) -> Mapping[str, tuple[bytes, int, bytes]]:
    """Return kind, permissions and content (or target) of each member but folders."""
    found = {}
    for member in tar:
        if member.isdir():
            continue
        file = tar.extractfile(member) if member.isreg() else None
        content = file.read() if file else member.linkname.encode(errors="surrogateescape")
        found[member.name] = (member.type, member.mode & 0o100, content)
    return found
