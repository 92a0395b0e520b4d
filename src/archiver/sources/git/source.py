"""Adapter for git hosts: refs are resolved over HTTP, archives are made from a mirror."""

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from msgspec.structs import replace

from archiver.errors import (
    ArchiverError,
    BadArchive,
    BadPack,
    EmptyTree,
    InternalError,
    MirrorFailed,
    NoRoom,
    NotPackable,
    SuffixRefused,
    WrongTree,
)
from archiver.git_objects import SHA1_DIGITS, SHA256_DIGITS, inject_commit_record
from archiver.model import Archive
from archiver.ports.source import IdentityCheck, OnReceived, PipedTar, Stream
from archiver.sources.config import Attributes, SourceConfig
from archiver.sources.fetch import Fetch
from archiver.sources.git.attributes import NO_EFFECTS, find_effects
from archiver.sources.git.child import GitFailed
from archiver.sources.git.client import GitClient
from archiver.sources.git.commit import read_commit
from archiver.sources.git.commit_tar import CommitTar
from archiver.sources.git.listing import Listing, list_tree
from archiver.sources.git.mirror import Mirror
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.git.pack import open_pack
from archiver.sources.git.refs import GitRefs
from archiver.sources.git.root import root_directory
from archiver.sources.git.tree_check import CommitCheck
from archiver.sources.templates import quote_path

NODE_DIGITS = frozenset({SHA1_DIGITS, SHA256_DIGITS})

DOWNLOADABLE = frozenset({"tar.gz", "zip"})
"""The formats that all forges serve."""

LACKS_OBJECTS = "sent a pack that lacks objects of the commit, or has malformed ones"


class GitSource:
    """Implements ``Source`` for one git host."""

    def __init__(self, config: SourceConfig, fetch: Fetch, mirrors: Mirrors | None) -> None:
        self.name = config.name
        self.served = config.served
        self.node_digits = NODE_DIGITS
        self.abbreviates = False
        self.lookup_concurrency = config.lookup_concurrency
        self._config = config
        self._mirrors = mirrors
        self._client = GitClient(config, fetch)
        refs = GitRefs(self._client)
        self.check_rev = refs.check_rev
        self.resolve = refs.resolve
        self.has_node = refs.has_node

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
        mirrors = self._mirrors
        if mirrors is None:
            raise InternalError("only workers make archives of git hosts")
        async with AsyncExitStack() as stack:
            opened = await self._open(stack, mirrors, archive, on_received)
            opened = opened or await self._open(stack, mirrors, archive, on_received)
            if opened is None:
                raise MirrorFailed("git failed twice on the worker's copy of the repository")
            stream, mirror = opened
            try:
                yield stream
            except WrongTree:
                mirrors.replace(mirror, reason="damaged")
                raise

    async def _open(
        self,
        stack: AsyncExitStack,
        mirrors: Mirrors,
        archive: Archive,
        on_received: OnReceived | None,
    ) -> tuple[Stream, Mirror] | None:
        """Return the stream, and the mirror that it comes from, which *stack* closes.

        None if that mirror was damaged or left no room, and an empty one has replaced it.
        """
        async with AsyncExitStack() as opened:
            using = mirrors.use(self.name, archive.repo, len(archive.node))
            mirror = await opened.enter_async_context(using)
            try:
                listing = await self._fetch(opened, mirror, archive, on_received)
                stream = await self._stream(opened, mirror, archive, listing)
            except (GitFailed, MirrorFailed, BadPack, NoRoom) as exc:
                error = mirror.translate(exc) if isinstance(exc, GitFailed) else exc
                if reason := _reason_to_replace(mirror, error):
                    mirrors.replace(mirror, reason=reason)
                    return None
                if _is_of_the_host(mirror, error, exc):
                    error = self._client.failures.bad_pack(LACKS_OBJECTS)
                if error is exc:
                    raise
                raise error from exc
            stack.push_async_exit(opened.pop_all())
            return stream, mirror

    async def _fetch(
        self,
        opened: AsyncExitStack,
        mirror: Mirror,
        archive: Archive,
        on_received: OnReceived | None,
    ) -> Listing | None:
        """Have the host send the commit, unless the mirror has it.

        Returns the listing of *archive*, which *opened* closes, if the commit has just arrived and
        has been listed.
        """
        if await mirror.has(archive.node):
            return None
        async with mirror.fetch_lock():
            if await mirror.has(archive.node):
                return None
            await mirror.reserve()
            haves = await mirror.haves()
            async with open_pack(self._client, archive.repo, archive.node, haves) as pack:
                chunks = _counted(pack.chunks(), on_received)
                await mirror.receive(chunks, max_bytes=self._config.limits.packed_bytes)
            return await self._remember_received(opened, mirror, archive)

    async def _remember_received(
        self, opened: AsyncExitStack, mirror: Mirror, archive: Archive
    ) -> Listing | None:
        """Offer the commit to the host from now on, so that builds that wait receive little.

        Git lists the size of each file, which shows that no object is missing.
        """
        whole = dataclasses.replace(archive, subdir="")
        await read_commit(mirror, whole)
        try:
            listing = await opened.enter_async_context(
                list_tree(mirror, whole, self._config.limits)
            )
        except (BadArchive, NotPackable):
            if not archive.subdir:
                raise
            return None
        mirror.remember(archive.node)
        return None if archive.subdir else listing

    async def _stream(
        self, opened: AsyncExitStack, mirror: Mirror, archive: Archive, listing: Listing | None
    ) -> Stream:
        limits, attributes = self._config.limits, self._config.git.attributes
        record = await read_commit(mirror, archive)
        if listing is None:
            listing = await opened.enter_async_context(list_tree(mirror, archive, limits))
        record = replace(record, submodules=tuple(sorted(listing.submodules.items())))
        if not listing.entries:
            raise EmptyTree(f"{archive.node} in {archive.repo} has no files")
        effects = NO_EFFECTS
        if attributes is Attributes.HONOUR:
            effects = await opened.enter_async_context(
                find_effects(mirror, archive, listing, record)
            )
        root = root_directory(self._config.git.root_template, archive)
        git = mirror.git_for(attributes).limited(cpu=listing.cpu)
        tar = CommitTar(mirror=mirror, archive=archive, git=git, root=root)
        return Stream(
            url=self.url(archive),
            root=root,
            client_root=root,
            size_bytes=0,
            chunks=inject_commit_record(tar.chunks(), record, subdir=archive.subdir),
            tree_check=CommitCheck(archive, record=record, listing=listing, effects=effects),
            piped=PipedTar(open=tar.pipe, comment=record.comment()),
        )


def _is_of_the_host(mirror: Mirror, error: ArchiverError, cause: Exception) -> bool:
    """Return whether git failed on objects that have all just arrived from the host."""
    was_killed = isinstance(cause, GitFailed) and not cause.ended_itself
    return isinstance(error, MirrorFailed) and mirror.is_fresh and not was_killed


def _reason_to_replace(mirror: Mirror, error: ArchiverError) -> str | None:
    """Return why an empty mirror may succeed where this one failed, if that is so."""
    if not mirror.had_objects:
        return None
    if isinstance(error, NoRoom):
        return None if mirror.received else "evicted"
    return "damaged" if mirror.suspect or isinstance(error, MirrorFailed) else None


async def _counted(
    chunks: AsyncGenerator[bytes, None], on_received: OnReceived | None
) -> AsyncGenerator[bytes, None]:
    """Yield *chunks*, and report their total size."""
    size_bytes = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            size_bytes += len(chunk)
            if on_received:
                on_received(size_bytes)
            yield chunk
