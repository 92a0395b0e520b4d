"""What operators look up in a running service, so that clients do not notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from archiver.errors import TooManyWaiters
from archiver.ports.bucket_contents import BucketContents
from archiver.ports.last_uses import LastUses
from archiver.ports.storage import Storage
from archiver.ports.task_list import TaskList
from archiver.upkeep.catalogue import Selection
from archiver.upkeep.catalogue_page import CataloguePages, Page
from archiver.upkeep.census import Census, Overview, Wanted
from archiver.upkeep.manifest_keys import Cursor

AT_A_TIME = 2
"""Lookups that run at a time in one process."""

WAITING_MAX = 8

RETRY_AFTER = timedelta(seconds=5)


class Operations:
    """Looks up archives and tasks, a few at a time.

    Every method raises TooManyWaiters if too many lookups wait already.
    """

    def __init__(
        self, *, storage: Storage, contents: BucketContents, tasks: TaskList, uses: LastUses
    ) -> None:
        self._pages = CataloguePages(storage=storage, contents=contents, uses=uses)
        self._census = Census(tasks=tasks)
        self._slots = asyncio.Semaphore(AT_A_TIME)
        self._waiting = 0

    async def archives(self, selection: Selection, *, after: Cursor | None, limit: int) -> Page:
        """Return a page of the stored archives. Raises StorageUnavailable or EngineUnavailable."""
        async with self._slot():
            return await self._pages.page(selection, after=after, limit=limit)

    async def tasks(self, wanted: Wanted) -> Overview:
        """Return a census of the tasks. Raises EngineUnavailable."""
        async with self._slot():
            return await self._census.take(wanted)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING_MAX:
            raise TooManyWaiters("too many lists are being made", retry_after=RETRY_AFTER)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
