"""The first and last files of a tree, which prove that an archive is complete."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from http import HTTPStatus

from archiver.errors import EmptyTree
from archiver.model import Archive
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.threads import run_in_thread
from archiver.sources.hgweb.client import HgwebClient
from archiver.sources.hgweb.listings import (
    LISTING_MAX_BYTES,
    NAMES_MAX,
    Listing,
    ListingTooLong,
    parse_listing,
)
from archiver.sources.hgweb.walk import (
    LEVELS_MAX,
    ListedFile,
    ListFolder,
    ListingTooDeep,
    file_after,
    last_file,
)

LISTING_DEADLINE = timedelta(minutes=2)
"""Time for one folder, without the wait for a free slot. hgweb reads the whole manifest, and every
file in the folder that never changed: with 300,000 files, this takes seconds."""

LAST_FILES_MAX_BYTES = 4 * MEGABYTE


class TreeFiles:
    """Finds files by listing folders, *concurrency* at a time and each search within *deadline*."""

    def __init__(self, client: HgwebClient, *, concurrency: int, deadline: timedelta) -> None:
        self._client = client
        self._deadline = deadline
        self._slots = asyncio.Semaphore(concurrency)
        self._last_files: BoundedCache[Archive, bytes] = BoundedCache(
            max_bytes=LAST_FILES_MAX_BYTES
        )

    async def last_file(self, archive: Archive) -> bytes:
        """Return the path of the last file of *archive*.

        Raises:
            EmptyTree, UnknownSubdir: The tree or the subdir has no files.
            SourceError: The host did not respond.
        """
        tree = replace(archive, suffix="tar")  # the same for every suffix
        known = self._last_files.get(tree)
        if known is None:
            known = await self._find_last_file(tree)
            self._last_files.put(tree, known)
        return known

    async def _find_last_file(self, archive: Archive) -> bytes:
        failures = self._client.failures
        async with self._listing(archive) as list_folder:
            path = await last_file(list_folder, archive.subdir.encode())
            if path is None and await list_folder(b"") is None:
                raise failures.unproven(archive)
        if path is None:
            raise failures.unknown_subdir(archive)
        if not path:
            raise EmptyTree(f"{archive.node} in {archive.repo} has no files")
        return path

    async def file_after(self, archive: Archive, path: bytes) -> ListedFile | None:
        """Return the file of *archive* after *path*; the first if *path* is empty.

        Raises:
            SourceError: The host did not respond.
        """
        async with self._listing(archive) as list_folder:
            return await file_after(list_folder, archive.subdir.encode(), path)

    @asynccontextmanager
    async def _listing(self, archive: Archive) -> AsyncIterator[ListFolder]:
        """Yield a function that lists folders of *archive*; translate errors of the block."""
        failures = self._client.failures
        try:
            async with self._client.within(self._deadline):
                yield partial(self._list, archive)
        except ListingTooLong as exc:
            limits = f"{NAMES_MAX} names or {LISTING_MAX_BYTES >> 20} MiB"
            raise failures.unproven(archive, f"lists more than {limits} in a folder") from exc
        except ListingTooDeep as exc:
            fault = f"nests folders more than {LEVELS_MAX} levels deep in the tree"
            raise failures.unproven(archive, fault) from exc
        except ValueError as exc:
            raise failures.unproven(archive) from exc

    async def _list(self, archive: Archive, folder: bytes) -> Listing | None:
        """Return the listing of *folder*; None if the folder does not exist.

        Raises:
            ValueError: The response is not a listing.
            SourceError: The host did not respond.
        """
        url = self._client.urls.listing(archive.repo, archive.node, folder)
        async with self._slots:
            async with (
                self._client.within(LISTING_DEADLINE),
                self._client.get(url, deadline=LISTING_DEADLINE) as response,
            ):
                match response.status:
                    case 200 if not response.is_html:
                        body = await response.read_body(LISTING_MAX_BYTES)
                    case 404:
                        return None
                    case status if status != HTTPStatus.OK and response.error.retryable:
                        raise response.error
                    case _:
                        raise self._client.failures.unproven(archive)
            # Parsing keeps the slot, so that slots also bound the bodies in memory.
            return await run_in_thread(parse_listing, body, node=archive.node, folder=folder)
