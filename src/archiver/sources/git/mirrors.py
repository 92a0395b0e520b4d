"""The mirrors of a worker: used under locks, bounded in size, and replaced when damaged."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from archiver.errors import MirrorFailed, NoRoom
from archiver.runtime.threads import run_in_thread
from archiver.sources.git.child import GitFailed
from archiver.sources.git.locks import POLL_S
from archiver.sources.git.mirror import Mirror
from archiver.sources.git.mirror_folder import MirrorFolder
from archiver.sources.git.program import GitProgram
from archiver.sources.git.store import Identity, Store, has_room, storing
from archiver.telemetry import METRICS, describe, log

OPEN_TRIES = 500
"""Another process holds the lock only for a rename."""

GROWTH_MAX = 3
"""Times its first size at which a mirror is replaced: most of its objects are of old commits."""

SMALL_BYTES = 64 << 20
"""A mirror of this size may stay, however small it was at first."""

MEASURED_S = 30.0
"""Age at which the total size of all mirrors is measured again. Other processes add to it."""


FreeDisk: TypeAlias = Callable[[int], None]
"""Removes other files from the disk until so many bytes fit. Blocks, and raises OSError."""


class Mirrors:
    """The mirrors in *folder*, of at most *max_bytes* in total.

    ``free_elsewhere`` makes room on the same disk if no mirror can be removed. Worker processes of
    one machine share the folder. Any of them may be killed at any time.
    """

    def __init__(self, *, folder: Path, max_bytes: int, git: GitProgram) -> None:
        self.folder = MirrorFolder(folder)
        self._max_bytes = max_bytes
        self._git = git
        self.free_elsewhere: FreeDisk = lambda _: None
        self._making_room = asyncio.Lock()
        self._total_bytes = 0
        self._measured_at = float("-inf")

    @asynccontextmanager
    async def use(self, source: str, repo: str, digits: int) -> AsyncIterator[Mirror]:
        """Yield the repository's mirror, which exists until the end of the block.

        *digits* is the length of git's ids. GitFailed in the block becomes MirrorFailed or NoRoom.
        After any failure of git, the next user gets an empty mirror, unless the disk is full.

        Raises MirrorFailed or NoRoom.
        """
        identity = Identity(source=source, repo=repo, digits=digits)
        store, lock = await self._open(identity)
        try:
            with storing():
                mirror = Mirror(
                    identity=identity,
                    store=store,
                    git=self._git,
                    use_lock=lock,
                    make_room=self.make_room,
                )
            with self._repairing(mirror), self._counting(mirror), mirror.translating():
                yield mirror
            await self._maintain(mirror)
        finally:
            os.close(lock)
            if not self.folder.is_current(store):
                await run_in_thread(self._remove, store)

    async def _open(self, identity: Identity) -> tuple[Store, int]:
        for _ in range(OPEN_TRIES):
            with storing():
                if opened := self.folder.lock_current(identity):
                    return opened
            await asyncio.sleep(POLL_S)
        raise MirrorFailed("the worker's copy of the repository stays locked")

    @contextmanager
    def _counting(self, mirror: Mirror) -> Iterator[None]:
        try:
            yield
        finally:
            labels = {"source": mirror.identity.source, "outcome": mirror.outcome}
            METRICS.mirror_uses.labels(**labels).inc()

    @contextmanager
    def _repairing(self, mirror: Mirror) -> Iterator[None]:
        try:
            yield
        finally:
            if mirror.suspect:
                self.replace(mirror, reason="damaged")

    def replace(self, mirror: Mirror, *, reason: str) -> None:
        """Let the next user begin with an empty mirror. Does nothing if that is so already.

        Raises NoRoom.
        """
        with storing():
            if not self.folder.is_current(mirror.store):
                return
            self.folder.replace(mirror.store, mirror.identity)
        self._note_removal(mirror.identity, reason)

    async def _maintain(self, mirror: Mirror) -> None:
        """Shrink the mirror after a fetch. The archive is complete even if that fails."""
        if not mirror.received or not self.folder.is_current(mirror.store):
            return
        try:
            with storing():
                await self._shrink(mirror)
        except (GitFailed, MirrorFailed, NoRoom) as exc:
            log.warning("mirror.not_maintained", repo=mirror.identity.repo, cause=describe(exc))
            error = mirror.translate(exc) if isinstance(exc, GitFailed) else exc
            if not isinstance(error, NoRoom):
                with suppress(NoRoom):
                    self.replace(mirror, reason="damaged")

    async def _shrink(self, mirror: Mirror) -> None:
        """Replace a mirror that has grown much, or merge its packs if there are many."""
        if mirror.outgrew(factor=GROWTH_MAX, at_least_bytes=SMALL_BYTES):
            self.replace(mirror, reason="outgrown")
        elif await mirror.try_repack():
            METRICS.mirror_repacks.inc()

    async def make_room(self, more_bytes: int) -> None:
        """Remove mirrors that are not in use until *more_bytes* fit. Raises NoRoom."""
        async with self._making_room:
            if not self._fits(more_bytes):
                await run_in_thread(self._evict, more_bytes)
            self._total_bytes += more_bytes

    def _fits(self, more_bytes: int) -> bool:
        fresh = time.monotonic() - self._measured_at < MEASURED_S
        return fresh and self._has_room(more_bytes)

    def _has_room(self, more_bytes: int) -> bool:
        within = self._total_bytes + more_bytes <= self._max_bytes
        return within and has_room(self.folder.path, more_bytes)

    def _evict(self, more_bytes: int) -> None:
        with storing():
            statuses = self.folder.statuses()
            self._total_bytes = sum(status.size.size_bytes for status in statuses)
            self._measured_at = time.monotonic()
            for status in statuses:
                if self._has_room(more_bytes):
                    break
                if self.folder.try_remove(status.store):
                    self._total_bytes -= status.size.size_bytes
                    self._note_removal(status.identity, "evicted")
            METRICS.mirror_bytes.set(self._total_bytes)
            if self._total_bytes + more_bytes > self._max_bytes:
                raise NoRoom("worker.mirror_max_bytes are in use by mirrors that are needed now")
            if not has_room(self.folder.path, more_bytes):
                self.free_elsewhere(more_bytes)
            if not has_room(self.folder.path, more_bytes):
                raise NoRoom("the disk of worker.mirror_dir has no room for a repository now")

    def free(self, more_bytes: int) -> None:
        """Remove mirrors that are not in use until the disk has room for *more_bytes*. Blocks."""
        for status in self.folder.statuses():
            if has_room(self.folder.path, more_bytes):
                return
            if self.folder.try_remove(status.store):
                self._note_removal(status.identity, "evicted")

    def _note_removal(self, identity: Identity | None, reason: str) -> None:
        METRICS.mirror_removals.labels(reason=reason).inc()
        names = {"source": identity.source, "repo": identity.repo} if identity else {}
        log.info("mirror.removed", reason=reason, **names)

    def _remove(self, store: Store) -> None:
        with suppress(OSError):  # the clean-up of the next start tries again
            self.folder.try_remove(store)

    async def clean_up(self) -> None:
        """Remove what killed processes left behind. Raises NoRoom if the folder is unusable."""
        await run_in_thread(self._clean_up)

    def _clean_up(self) -> None:
        with storing():
            self.folder.clean_up()
