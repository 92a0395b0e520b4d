"""Finds files of a tree, in the order in which hgweb packs them, by listing its folders.

That is the order of their paths as bytes, where a folder's name includes its slash. The first and
last files prove that an archive is complete.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from http import HTTPStatus

from archiver.errors import EmptyTree
from archiver.model import Archive
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.threads import run_in_thread
from archiver.sources.fetch import within
from archiver.sources.hgweb.client import HgwebClient
from archiver.sources.hgweb.listings import (
    LISTING_MAX_BYTES,
    NAMES_MAX,
    PATH_MAX_BYTES,
    Listing,
    ListingTooLong,
    parse_listing,
)

LEVELS_MAX = 256
"""Listings on the way to one file. Each is a request to the host; trees have some 20 levels."""


class ListingTooDeep(ValueError):
    """A file is more than LEVELS_MAX listings away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A file by its whole path, and the date of its changeset."""

    path: bytes
    date: float | None


ListFolder = Callable[[bytes], Awaitable[Listing | None]]
"""Returns the listing of a folder, or None if it is absent. A path is empty or ends in a slash."""


async def last_file(list_folder: ListFolder, subdir: bytes) -> bytes | None:
    """Return the path of the last file in *subdir*, or *subdir* itself if it is a file.

    Empty if the whole tree is empty; None if *subdir* does not exist. Raises ListingTooDeep, or
    ValueError if the host lists folders without files.
    """
    folder = _as_folder(subdir)
    listing = await list_folder(folder)
    if listing is None:
        return subdir if subdir and await _is_file(list_folder, subdir) else None
    if not listing.names and not folder:
        return b""
    found = await _descend(list_folder, folder, listing, last=True)
    return found.path


async def file_after(list_folder: ListFolder, subdir: bytes, path: bytes) -> ListedFile | None:
    """Return the file in *subdir* that follows *path*; the first file if *path* is empty.

    None if there is no such file. Raises the same errors as ``last_file``.
    """
    top = _as_folder(subdir)
    folder = path[: path.rfind(b"/") + 1] if path else top
    for _ in range(LEVELS_MAX):
        listing = await list_folder(folder) or Listing(names=())
        rest = path[len(folder) :]
        if following := [name for name in listing.names if name > rest]:
            remaining = Listing(names=tuple(following), date=listing.date)
            return await _descend(list_folder, folder, remaining, last=False)
        if len(folder) <= len(top):
            return None
        folder = folder[: folder.rstrip(b"/").rfind(b"/") + 1]
    raise ListingTooDeep


async def _descend(
    list_folder: ListFolder, folder: bytes, listing: Listing | None, *, last: bool
) -> ListedFile:
    for _ in range(LEVELS_MAX):
        if not listing or not listing.names or len(folder) > PATH_MAX_BYTES:
            raise ValueError("a listed folder has no files")
        path = folder + listing.names[-1 if last else 0]
        if not path.endswith(b"/"):
            return ListedFile(path=path, date=listing.date)
        folder = path
        listing = await list_folder(folder)
    raise ListingTooDeep


async def _is_file(list_folder: ListFolder, path: bytes) -> bool:
    parent, _, name = path.rpartition(b"/")
    listing = await list_folder(_as_folder(parent))
    return listing is not None and name in listing.names


def _as_folder(path: bytes) -> bytes:
    return path + b"/" if path else b""


LISTING_DEADLINE = timedelta(minutes=2)
"""Time for one folder, without the wait for a free slot. hgweb reads the whole manifest, and every
file in the folder that never changed: with 300,000 files, this takes seconds."""

LAST_FILES_MAX_BYTES = 4 * MEGABYTE


class TreeFiles:
    """Finds files by listing folders, each search within the deadline of an archive.

    Listings have their own slots: they may be slow, and lookups must not wait for them.
    """

    def __init__(self, client: HgwebClient) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(max(1, client.config.lookup_concurrency // 2))
        self._last_files: BoundedCache[Archive, bytes] = BoundedCache(
            max_bytes=LAST_FILES_MAX_BYTES
        )

    async def last_file(self, archive: Archive) -> bytes:
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
        async with self._listing(archive) as list_folder:
            return await file_after(list_folder, archive.subdir.encode(), path)

    @asynccontextmanager
    async def _listing(self, archive: Archive) -> AsyncIterator[ListFolder]:
        """Yield a function that lists folders of *archive*; translate errors of the block."""
        failures = self._client.failures
        try:
            async with within(self._client.config.deadline, source=self._client.config.name):
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
        """Return the listing of *folder*. Raises ValueError if the response is not a listing."""
        url = self._client.urls.listing(archive.repo, archive.node, folder)
        async with self._slots:
            async with (
                within(LISTING_DEADLINE, source=self._client.config.name),
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
