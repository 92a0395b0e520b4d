"""The files of a commit, or of one path in it, in a mirror that is held open."""

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from archiver.errors import (
    ArchiverError,
    BadArchive,
    BadPack,
    EmptyTree,
    MirrorFailed,
    NoRoom,
    NotPackable,
)
from archiver.git_objects import CommitRecord
from archiver.model import Archive
from archiver.ports.source import OnReceived
from archiver.sources.config import Attributes, SourceConfig
from archiver.sources.git.attributes import NO_EFFECTS, Effects, find_effects
from archiver.sources.git.child import GitFailed
from archiver.sources.git.client import GitClient
from archiver.sources.git.commit import Gitlink, read_commit
from archiver.sources.git.listing import Listing, empty_listing, list_tree
from archiver.sources.git.mirror import Mirror
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.git.pack import open_pack
from archiver.sources.git.program import GitProgram

LACKS_OBJECTS = "sent a pack that lacks objects of the commit, or has malformed ones"

Seat = Callable[[], AbstractAsyncContextManager[None]]
"""Yields the right to fetch from the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """``record`` leads from the commit to the subdir of ``archive``.

    If the subdir is in a submodule, or is one, ``gitlink`` is that of the submodule, and the
    ``listing`` is empty. ``git`` is bound to the mirror, with limits that suit the listing.
    """

    archive: Archive
    mirror: Mirror
    record: CommitRecord
    gitlink: Gitlink | None
    listing: Listing
    effects: Effects
    git: GitProgram


@asynccontextmanager
async def _no_seat() -> AsyncIterator[None]:
    yield


class Snapshots:
    """Opens the snapshots of one source."""

    def __init__(self, config: SourceConfig, client: GitClient, mirrors: Mirrors) -> None:
        self._config = config
        self._client = client
        self._mirrors = mirrors

    async def open(
        self,
        stack: AsyncExitStack,
        archive: Archive,
        *,
        on_received: OnReceived | None = None,
        seat: Seat = _no_seat,
        may_be_empty: bool = False,
    ) -> Snapshot:
        """Return the snapshot of *archive*, which *stack* closes.

        The host sends the commit under a *seat*, unless the mirror has it. If the mirror is damaged
        or leaves no room, an empty one replaces it, once. Raises as ``Source.open``.
        """
        for _ in range(2):
            opened = await self._try(stack, archive, on_received, seat, may_be_empty=may_be_empty)
            if opened:
                return opened
        raise MirrorFailed("git failed twice on the worker's copy of the repository")

    def blame(self, snapshot: Snapshot) -> None:
        """Have the next user begin with an empty mirror: this one has other files than git says."""
        self._mirrors.replace(snapshot.mirror, reason="damaged")

    async def _try(
        self,
        stack: AsyncExitStack,
        archive: Archive,
        on_received: OnReceived | None,
        seat: Seat,
        *,
        may_be_empty: bool,
    ) -> Snapshot | None:
        """Return the snapshot.

        None if its mirror was damaged or left no room, and an empty one has replaced it.
        """
        async with AsyncExitStack() as opened:
            using = self._mirrors.use(self._config.name, archive.repo, len(archive.node))
            mirror = await opened.enter_async_context(using)
            try:
                listing = await self._fetch(opened, mirror, archive, on_received, seat)
                snapshot = await self._read(
                    opened, mirror, archive, listing, may_be_empty=may_be_empty
                )
            except (GitFailed, MirrorFailed, BadPack, NoRoom) as exc:
                error = mirror.translate(exc) if isinstance(exc, GitFailed) else exc
                if reason := _reason_to_replace(mirror, error):
                    self._mirrors.replace(mirror, reason=reason)
                    return None
                if _is_of_the_host(mirror, error, exc):
                    error = self._client.failures.bad_pack(LACKS_OBJECTS)
                if error is exc:
                    raise
                raise error from exc
            stack.push_async_exit(opened.pop_all())
            return snapshot

    async def _fetch(
        self,
        opened: AsyncExitStack,
        mirror: Mirror,
        archive: Archive,
        on_received: OnReceived | None,
        seat: Seat,
    ) -> Listing | None:
        """Have the host send the commit, unless the mirror has it.

        Returns the listing of *archive*, which *opened* closes, if the commit has just arrived and
        has been listed.
        """
        if await mirror.has(archive.node):
            return None
        async with mirror.fetch_lock(), seat():
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

    async def _read(
        self,
        opened: AsyncExitStack,
        mirror: Mirror,
        archive: Archive,
        listing: Listing | None,
        *,
        may_be_empty: bool,
    ) -> Snapshot:
        limits, attributes = self._config.limits, self._config.git.attributes
        record, gitlink = await read_commit(mirror, archive)
        effects = NO_EFFECTS
        if gitlink:
            listing = opened.enter_context(empty_listing(mirror, archive, limits))
        elif listing is None:
            listing = await opened.enter_async_context(list_tree(mirror, archive, limits))
        if not listing.entries and not gitlink and not may_be_empty:
            raise EmptyTree(f"{archive.node} in {archive.repo} has no files")
        if listing.entries and attributes is Attributes.HONOUR:
            effects = await opened.enter_async_context(
                find_effects(mirror, archive, listing, record, may_be_empty=may_be_empty)
            )
        return Snapshot(
            archive=archive,
            mirror=mirror,
            record=record,
            gitlink=gitlink,
            listing=listing,
            effects=effects,
            git=mirror.git_for(attributes).limited(cpu=listing.cpu),
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
        return "evicted" if error.of_disk and not mirror.received else None
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
