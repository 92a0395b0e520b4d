"""The LFS files of a machine: fetched once, used for many archives, bounded in size."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, TypeAlias

from archiver.errors import NoRoom
from archiver.git_objects.lfs_pointer import Pointer
from archiver.runtime.threads import run_in_thread
from archiver.sources.git.lfs.cache_folder import LfsFolder, LfsOwner, StoredFile, using_disk
from archiver.sources.git.locks import locked
from archiver.sources.git.mirrors import FreeDisk
from archiver.sources.git.store import has_room
from archiver.telemetry import METRICS, log

FILES_MAX = 200_000
"""Twice the files of the largest archive. A list of all takes 60 MB when room is made."""

MEASURED_S = 30.0
"""Age at which the total size is measured again. Other processes add to it."""

RECENT_S = 600
"""Age below which a file is removed only if there is no other way: a build may need it soon."""

SPARE_SHARE = 20
"""When room is made, a twentieth of the budget is freed besides, so that it is not made again for
each small file."""

FetchFile: TypeAlias = Callable[[], AsyncGenerator[bytes, None]]
"""Fetches a file, whose end proves that it is right."""


class LfsCache:
    """The LFS files in *folder*, of at most *max_bytes* in total.

    ``free_elsewhere`` makes room on the same disk if no file can be removed. Worker processes of
    one machine share the folder. Any of them may be killed at any time.
    """

    def __init__(self, *, folder: Path, max_bytes: int) -> None:
        self.folder = LfsFolder(folder)
        self.max_bytes = max_bytes
        self.free_elsewhere: FreeDisk = lambda _: None
        self._making_room = asyncio.Lock()
        self._total_bytes = 0
        self._total_files = 0
        self._measured_at = float("-inf")

    def find(self, owner: LfsOwner, pointer: Pointer) -> BinaryIO | None:
        """Return the file, open and to be closed, if it is there. Raises NoRoom."""
        with using_disk():
            return self.folder.open(owner, pointer)

    async def missing(self, owner: LfsOwner, pointers: Sequence[Pointer]) -> list[Pointer]:
        """Return those of *pointers* whose files are not there. The others count as used.

        Raises NoRoom.
        """
        with using_disk():
            return await run_in_thread(self._missing, owner, pointers)

    def _missing(self, owner: LfsOwner, pointers: Sequence[Pointer]) -> list[Pointer]:
        return [pointer for pointer in pointers if not self.folder.use(owner, pointer)]

    async def find_or_fetch(self, owner: LfsOwner, pointer: Pointer, fetch: FetchFile) -> BinaryIO:
        """Return the file, open and to be closed. It is fetched if it is not there.

        If it is being fetched already, here or in another process, that one is awaited. Raises
        NoRoom, or whatever *fetch* raises.
        """
        if file := self.find(owner, pointer):
            return file
        async with self._writing(owner, pointer) as descriptor:
            if file := self.find(owner, pointer):
                return file
            await self._make_room(pointer.size_bytes)
            with using_disk():
                os.truncate(descriptor, 0)
                os.truncate(descriptor, pointer.size_bytes)  # counts from now on
            async with aclosing(fetch()) as chunks:
                async for chunk in chunks:
                    with using_disk():
                        await run_in_thread(_write, descriptor, chunk)
            with using_disk():
                return self.folder.add(owner, pointer)

    @asynccontextmanager
    async def _writing(self, owner: LfsOwner, pointer: Pointer) -> AsyncIterator[int]:
        """Yield a descriptor of the new file, which is gone after the block, or has been added."""
        path = self.folder.new_path(owner, pointer)
        async with AsyncExitStack() as stack:
            while True:
                with using_disk():
                    self.folder.create()
                    with suppress(FileNotFoundError):  # another process has just moved its file
                        lock = await stack.enter_async_context(locked(path, create=True))
                        break
            try:
                yield lock
            finally:
                with suppress(OSError):  # the next start removes it
                    _unlink_own(path, lock)

    def discard(self, owner: LfsOwner, pointer: Pointer) -> None:
        """Remove a file whose bytes have changed. Raises NoRoom."""
        with using_disk():
            self.folder.discard(owner, pointer)
        METRICS.lfs_removals.labels(reason="damaged").inc()
        log.warning("lfs.damaged", source=owner.source, repo=owner.repo)

    async def _make_room(self, more_bytes: int) -> None:
        """Remove files until *more_bytes* fit. Raises NoRoom."""
        async with self._making_room:
            with using_disk():
                if not self._fits(more_bytes):
                    await run_in_thread(self._evict, more_bytes)
            self._total_bytes += more_bytes
            self._total_files += 1

    def _fits(self, more_bytes: int) -> bool:
        fresh = time.monotonic() - self._measured_at < MEASURED_S
        return fresh and self._has_room(more_bytes)

    def _has_room(self, more_bytes: int) -> bool:
        within = self._total_bytes + more_bytes <= self.max_bytes
        return within and self._total_files < FILES_MAX and has_room(self.folder.path, more_bytes)

    def _evict(self, more_bytes: int) -> None:
        files = self._measure()
        if not self._has_room(more_bytes):
            for file in self._victims(files, more_bytes):
                file.path.unlink(missing_ok=True)
                self._total_bytes -= file.size_bytes
                self._total_files -= 1
                METRICS.lfs_removals.labels(reason="evicted").inc()
        METRICS.lfs_bytes.set(self._total_bytes)
        if not self._has_room(more_bytes):
            self.free_elsewhere(more_bytes)
        if not self._has_room(more_bytes):
            raise NoRoom("the disk of worker.mirror_dir has no room for an LFS file now")

    def free(self, more_bytes: int) -> None:
        """Remove the least recently used files until the disk has room for *more_bytes*. Blocks."""
        for file in self._measure():
            if has_room(self.folder.path, more_bytes):
                return
            file.path.unlink(missing_ok=True)
            METRICS.lfs_removals.labels(reason="evicted").inc()

    def _measure(self) -> list[StoredFile]:
        """Return all files, the least recently used first, after counting them."""
        files = sorted(self.folder.stored(), key=attrgetter("used_ns"))
        self._total_files = len(files)
        self._total_bytes = self.folder.new_bytes() + sum(file.size_bytes for file in files)
        self._measured_at = time.monotonic()
        return files

    def _victims(self, files: list[StoredFile], more_bytes: int) -> Iterator[StoredFile]:
        recent_ns = time.time_ns() - RECENT_S * 1_000_000_000
        enough_bytes = self.max_bytes - self.max_bytes // SPARE_SHARE - more_bytes
        enough_files = FILES_MAX - FILES_MAX // SPARE_SHARE
        for file in files:
            spare = self._total_bytes <= enough_bytes and self._total_files <= enough_files
            if self._has_room(more_bytes) and (spare or file.used_ns >= recent_ns):
                return
            yield file

    async def clean_up(self) -> None:
        """Remove what killed processes left behind. Raises NoRoom if the folder is unusable."""
        with using_disk():
            await run_in_thread(self.folder.clean_up)


def _write(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _unlink_own(path: Path, lock: int) -> None:
    """Remove the file at *path* if it is that of *lock*: another process may have created one."""
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock), path.stat()):
            path.unlink()
