"""Adapter for git hosts: refs are resolved over HTTP, archives are made from a mirror."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec.structs import replace

from archiver.errors import (
    InternalError,
    NotPackable,
    SuffixRefused,
    WrongTree,
)
from archiver.git_objects import SHA1_DIGITS, SHA256_DIGITS, inject_commit_record
from archiver.model import Archive
from archiver.ports.source import IdentityCheck, OnReceived, PipedTar, Stream
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import Fetch
from archiver.sources.git.client import GitClient
from archiver.sources.git.commit_tar import CommitTar
from archiver.sources.git.complete.hosts import GitHost, GitHosts
from archiver.sources.git.complete.stream import open_complete
from archiver.sources.git.lfs.client import LfsClient, open_lfs_client
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.git.refs import GitRefs
from archiver.sources.git.root import root_directory
from archiver.sources.git.snapshot import Snapshot, Snapshots
from archiver.sources.git.tree_check import CommitCheck
from archiver.sources.templates import quote_path

NODE_DIGITS = frozenset({SHA1_DIGITS, SHA256_DIGITS})

DOWNLOADABLE = frozenset({"tar.gz", "zip"})
"""The formats that all forges serve."""


@asynccontextmanager
async def open_git_source(
    config: SourceConfig, fetch: Fetch, mirrors: Mirrors | None, hosts: GitHosts
) -> AsyncIterator["GitSource"]:
    """Yield the source. It makes archives from *mirrors*, and is one of the *hosts*."""
    client = GitClient(config, fetch)
    async with open_lfs_client(client, fetch) as lfs:
        yield GitSource(config, client, lfs, mirrors, hosts)


class GitSource:
    """Implements ``Source`` for one git host. It is one of the *hosts* of submodules."""

    def __init__(
        self,
        config: SourceConfig,
        client: GitClient,
        lfs: LfsClient,
        mirrors: Mirrors | None,
        hosts: GitHosts,
    ) -> None:
        self.name = config.name
        self.served = config.served
        self.node_digits = NODE_DIGITS
        self.abbreviates = False
        self.completes = True
        self.lookup_concurrency = config.lookup_concurrency
        self._config = config
        self._client = client
        refs = GitRefs(self._client)
        self.check_rev = refs.check_rev
        self.resolve = refs.resolve
        self.has_node = refs.has_node
        self._hosts = hosts
        self._snapshots: Snapshots | None = None
        self._host: GitHost | None = None
        if mirrors:
            self._snapshots = Snapshots(config, self._client, mirrors)
            self._host = GitHost(
                config,
                urls=self._client.urls,
                snapshots=self._snapshots,
                has_node=self.has_node,
                lfs=lfs,
            )
            hosts.add(self._host)

    def url(self, archive: Archive) -> str:
        """Return the repository's address, with the commit and the subdir as its fragment."""
        subdir = f":{quote_path(archive.subdir)}" if archive.subdir else ""
        return f"{self._client.urls.repo(archive.repo)}#{archive.node}{subdir}"

    def download_url(self, archive: Archive) -> str | None:
        if archive.suffix not in DOWNLOADABLE:
            return None
        return self._client.urls.archive(archive)

    def identity_check(self, archive: Archive) -> IdentityCheck | None:
        """Return None: the whole tree is compared instead."""

    async def last_file(self, archive: Archive) -> bytes | None:
        """Return None: the whole tree is compared instead."""

    async def explain_unpackable(self, archive: Archive, *, after: bytes) -> NotPackable | None:
        """Return None: git packs every tree."""

    @asynccontextmanager
    async def open(
        self, archive: Archive, *, on_received: OnReceived | None = None
    ) -> AsyncIterator[Stream]:
        if archive not in self.served.candidates(archive):
            raise SuffixRefused(f"{self.name} does not serve such archives")
        snapshots = self._snapshots
        if snapshots is None or self._host is None:
            raise InternalError("only workers make archives of git hosts")
        if archive.submodules or archive.lfs:
            async with open_complete(
                archive,
                url=self.url(archive),
                host=self._host,
                hosts=self._hosts,
                on_received=on_received,
            ) as stream:
                yield stream
            return
        async with AsyncExitStack() as stack:
            snapshot = await snapshots.open(stack, archive, on_received=on_received)
            try:
                yield self._stream(snapshot)
            except WrongTree:
                snapshots.blame(snapshot)
                raise

    def _stream(self, snapshot: Snapshot) -> Stream:
        archive, listing = snapshot.archive, snapshot.listing
        root = root_directory(self._config.git.root_template, archive)
        tar = CommitTar(snapshot, root=root)
        submodules = tuple(sorted(listing.submodules.items()))
        record = replace(snapshot.record, submodules=submodules)
        return Stream(
            url=self.url(archive),
            root=root,
            client_root=root,
            size_bytes=0,
            chunks=inject_commit_record(tar.chunks(), record, subdir=archive.subdir),
            tree_check=CommitCheck(snapshot),
            piped=PipedTar(open=tar.pipe, comment=record.comment()),
        )
