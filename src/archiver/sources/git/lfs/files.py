"""The LFS files of one archive, while it is built."""

import hashlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import BinaryIO, NamedTuple

from archiver.errors import ArchiveTooLarge, BadLfsFile, LfsFileMissing
from archiver.git_objects.lfs_pointer import Pointer
from archiver.model import Limits
from archiver.names import display_path
from archiver.ports.source import OnReceived
from archiver.runtime.tasks import map_in_order
from archiver.runtime.threads import run_in_thread
from archiver.sources.git.lfs.batch import OBJECTS_MAX, Link
from archiver.sources.git.lfs.cache import LfsCache
from archiver.sources.git.lfs.cache_folder import LfsOwner
from archiver.sources.git.lfs.client import LfsClient
from archiver.sources.git.lfs.pointer_search import LfsEntry
from archiver.telemetry import METRICS

DOWNLOADS_MAX = 4
"""Downloads of one archive at a time."""

LINKS_MAX = 10 * OBJECTS_MAX
"""Links that are kept until their download. The host is asked again for others, and so for links
that would have expired by then."""

CHUNK_BYTES = 1 << 20


class _Linked(NamedTuple):
    entry: LfsEntry
    link: Link


class LfsFiles:
    """Fetches the files of *entries*, each once, and yields their contents.

    *lfs_url* is the address in the commit's ``.lfsconfig``, if any.
    """

    def __init__(
        self,
        client: LfsClient,
        cache: LfsCache,
        repo: str,
        entries: Sequence[LfsEntry],
        limits: Limits,
        *,
        lfs_url: str = "",
    ) -> None:
        self._client = client
        self._cache = cache
        self._repo = repo
        self._owner = LfsOwner(source=client.source, repo=repo)
        self._entries = entries
        self._by_hash: dict[str, LfsEntry] = {}
        for entry in entries:
            self._by_hash.setdefault(entry.pointer.sha256, entry)
        self._limits = limits
        self._lfs_url = lfs_url
        self._received_bytes = 0
        self._on_received: OnReceived | None = None

    async def fetch(self, on_received: OnReceived | None = None) -> None:
        """Fetch all files that the cache does not have. *on_received* is called meanwhile.

        The host is asked for all of them before the first download.

        Raises ArchiveTooLarge before any request, LfsFileMissing, LfsRefused, BadLfsFile, NoRoom,
        or another SourceError.
        """
        self._check_sizes()
        self._on_received = on_received
        missing = await self._find_missing()
        links: dict[Pointer, Link] = {}
        for group in _groups(missing):
            found = await self._client.links(self._repo, group, lfs_url=self._lfs_url)
            if len(links) < LINKS_MAX:
                links.update(found)
        linked = self._with_links(missing, links)
        async with aclosing(map_in_order(linked, self._add, at_a_time=DOWNLOADS_MAX)) as added:
            async for _ in added:
                pass

    def _check_sizes(self) -> None:
        total_bytes = sum(entry.pointer.size_bytes for entry in self._entries)
        if total_bytes > self._limits.unpacked_bytes:
            raise self._too_large(total_bytes, self._limits.unpacked_bytes, "max_unpacked_bytes")
        wanted_bytes = sum(each.pointer.size_bytes for each in self._by_hash.values())
        if wanted_bytes > self._cache.max_bytes:
            raise self._too_large(wanted_bytes, self._cache.max_bytes, "worker.lfs_max_bytes")
        for entry in self._entries:
            if self._by_hash[entry.pointer.sha256].pointer != entry.pointer:
                raise LfsFileMissing(
                    f"{self._repo} has two pointers to the LFS file {display_path(entry.path)} "
                    "that differ in its size"
                )

    def _too_large(self, size_bytes: int, most_bytes: int, setting: str) -> ArchiveTooLarge:
        return ArchiveTooLarge(
            f"the LFS files of {self._repo} have {size_bytes:,} bytes, and {setting} is "
            f"{most_bytes:,}"
        )

    async def _find_missing(self) -> list[LfsEntry]:
        wanted = [each for each in self._by_hash.values() if not each.pointer.is_empty]
        pointers = [entry.pointer for entry in wanted]
        missing = await self._cache.missing(self._owner, pointers)
        self._count("hit", len(wanted) - len(missing))
        return [self._by_hash[pointer.sha256] for pointer in missing]

    async def _with_links(
        self, missing: Sequence[LfsEntry], links: dict[Pointer, Link]
    ) -> AsyncGenerator[_Linked, None]:
        for group in _groups(missing):
            if group[0].pointer not in links:
                links |= await self._client.links(self._repo, group, lfs_url=self._lfs_url)
            for entry in group:
                yield _Linked(entry, links.pop(entry.pointer))

    async def _add(self, linked: _Linked) -> None:
        (await self._open(linked.entry, linked.link)).close()

    async def _open(self, entry: LfsEntry, link: Link | None) -> BinaryIO:
        return await self._cache.find_or_fetch(
            self._owner, entry.pointer, lambda: self._receive(entry, link)
        )

    async def _receive(self, entry: LfsEntry, link: Link | None) -> AsyncGenerator[bytes, None]:
        chunks = self._client.chunks(self._repo, entry, link, lfs_url=self._lfs_url)
        async with aclosing(chunks):
            async for chunk in chunks:
                self._received_bytes += len(chunk)
                if self._on_received:
                    self._on_received(self._received_bytes)
                yield chunk
        self._count("fetched", 1)

    def _count(self, outcome: str, files: int) -> None:
        METRICS.lfs_uses.labels(source=self._client.source, outcome=outcome).inc(files)

    async def chunks(self, pointer: Pointer) -> AsyncGenerator[bytes, None]:
        """Yield the file of *pointer*, in chunks of at most 1 MiB. Its end proves that it is right.

        It is fetched if it has gone since ``fetch``. Raises BadLfsFile if its bytes have changed on
        this machine; the file is removed, and so fetched by the next build. Raises like ``fetch``.
        """
        if pointer.is_empty:
            return
        entry = self._by_hash[pointer.sha256]
        hashed = hashlib.sha256()
        with await self._open(entry, None) as file:
            while chunk := await self._read(file, entry, hashed):
                yield chunk
        if hashed.hexdigest() != pointer.sha256:
            raise self._damaged(entry)

    async def _read(self, file: BinaryIO, entry: LfsEntry, hashed: "hashlib._Hash") -> bytes:
        try:
            return await run_in_thread(_read, file, hashed)
        except OSError as exc:
            raise self._damaged(entry) from exc

    def _damaged(self, entry: LfsEntry) -> BadLfsFile:
        self._cache.discard(self._owner, entry.pointer)
        return BadLfsFile(
            f"the LFS file {display_path(entry.path)} of {self._repo} has changed on the worker's "
            "disk, or cannot be read"
        )


def _groups(entries: Sequence[LfsEntry]) -> Iterator[Sequence[LfsEntry]]:
    for start in range(0, len(entries), OBJECTS_MAX):
        yield entries[start : start + OBJECTS_MAX]


def _read(file: BinaryIO, hashed: "hashlib._Hash") -> bytes:
    chunk = file.read(CHUNK_BYTES)
    hashed.update(chunk)
    return chunk
