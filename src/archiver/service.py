"""The two use cases: request an archive, and build an archive. Read this module first."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

from archiver.building.builder import Builder, replicate
from archiver.errors import (
    EngineUnavailable,
    InvalidRequest,
    StorageUnavailable,
    UnknownSource,
)
from archiver.health import Health, check_service, check_worker
from archiver.limiter import Limiter
from archiver.locality.region_choice import RegionChoice
from archiver.model import (
    Absent,
    Archive,
    ArchiveRequest,
    Copies,
    Pending,
    Ready,
    Region,
    Stored,
)
from archiver.pins import Pins
from archiver.ports.formats import Converter, VerifierFactory
from archiver.ports.index import Index
from archiver.ports.queue import Attempt, Fleet, RepairList, TaskQueue
from archiver.ports.source import Source
from archiver.ports.storage import Storage
from archiver.purge import Purger
from archiver.resolver import Resolver
from archiver.runtime.notifications import Notifications, Subscribers
from archiver.status import StatusReporter
from archiver.task_creator import Found, TaskCreator
from archiver.tasks import Phase, Urgency
from archiver.tree_proof import MayRead

EXPECT_PATIENCE = timedelta(milliseconds=30)
"""How long an announcement waits for the index. A task for a stored archive ends at once."""

REPAIR_PATIENCE = timedelta(milliseconds=200)
"""How long a hit waits for the engine to accept the repair of missing copies."""


class Archiver:
    """Returns presigned URLs of archives in the buckets, and builds archives that are missing.

    ``hits`` notifies of the key hash of each archive that a client is sent to. ``status`` combines
    the buckets with the engine; ``task`` and ``backlog`` ask the engine alone. ``purge`` removes
    every trace of an archive, ``pins`` protect archives from that. New redirects avoid the regions
    that it *avoids*; ``breaker_health`` has a part for each breaker that is not closed.
    """

    def __init__(  # noqa: PLR0913 - one argument per port
        self,
        *,
        sources: Mapping[str, Source],
        storage: Storage,
        index: Index,
        queue: TaskQueue,
        repairs: RepairList,
        fleet: Fleet,
        verify: VerifierFactory,
        converter: Converter,
        notifications: Notifications,
        nearest: Mapping[Region, Sequence[Region]],
        limiter: Limiter,
        avoids: Callable[[Region], bool] = lambda _: False,
        breaker_health: Callable[[], Health] = dict,
    ) -> None:
        self.notifications = notifications
        self.hits: Subscribers[[str]] = Subscribers()
        self._sources = sources
        self._storage = storage
        self._index = index
        self._queue = queue
        self._repairs = repairs
        self._limiter = limiter
        self._builder = Builder(storage=storage, index=index, verify=verify, converter=converter)
        self._resolver = Resolver(index=index, storage=storage)
        self._creator = TaskCreator(queue=queue, resolver=self._resolver, builder=self._builder)
        self._region_choice = RegionChoice(regions=storage.regions, nearest=nearest, avoids=avoids)
        self.pins = Pins(storage=storage)
        self.status = StatusReporter(
            storage=storage,
            index=index,
            queue=queue,
            source=self.source,
            is_pinned=self.pins.is_pinned,
        ).status
        self.purge = Purger(storage=storage, index=index, queue=queue, repairs=repairs).purge
        self.task = queue.task
        self.backlog = queue.backlog
        self.breaker_health = breaker_health
        self.check_health = partial(check_service, fleet, storage)
        self.check_worker_health = partial(check_worker, fleet, storage)

    async def request(
        self,
        request: ArchiveRequest,
        *,
        may_read: MayRead,
        method: str = "GET",
        create: bool = True,
        share: bool,
        client: str,
        limited: bool = True,
        client_region: Region | None = None,
    ) -> Ready | Pending | Absent:
        """Return where the archive is, or the task that will build it.

        Lookups and a new task count against *client*, if it is *limited*. *client_region* is the
        region nearest to its address, if known. With *share*, other processes learn the node of
        the rev.

        An archive with a part that the client may not read is missing for it, and has failed for
        good: neither is a task created, nor is the archive used.

        Raises:
            InvalidRequest, NotFound: The archive cannot exist.
            SourceError, EngineUnavailable: The archive is missing, and the host or the engine,
                needed to create a task, does not respond.
            StorageUnavailable: No region can say whether the archive exists.
            TaskFailed: The archive is missing, and its task recently failed for good.
            TooManyWaiters: Too many requests wait for the host.
            LimitReached: A lookup or a task would exceed a limit.
        """
        found = await self._find(request, client=client, limited=limited, share=share)
        copies, hidden = found.copies, found.hidden(may_read)
        if copies and not hidden:
            ready = await self._hit(
                found.archive, copies, request.preferred_region, client_region, method
            )
            return replace(ready, good_until=found.resolution.good_until)
        if not create:
            return Absent(archive=found.archive)
        return await self._creator.create(found, may_read, client)

    async def prewarm(
        self, request: ArchiveRequest, *, may_read: MayRead, client: str, limited: bool = True
    ) -> Stored | Pending:
        """Return that the archive is stored, or the task without urgency that will build it.

        Otherwise as ``request``. An archive that is stored does not count as used.
        """
        found = await self._find(request, client=client, limited=limited, share=True)
        if found.copies and not found.hidden(may_read):
            return Stored(archive=found.archive)
        return await self._creator.create(found, may_read, client, Urgency.LATER)

    async def expect(self, archive: Archive, *, client: str) -> Stored | Pending:
        """Return as ``prewarm``, for an archive of a changeset that the host has just announced.

        The host is not asked: the task awaits the changeset if the host does not show it yet.

        Raises EngineUnavailable, or LimitReached.
        """
        _require_makes(self.source(archive.source), archive)
        with suppress(StorageUnavailable, TimeoutError):
            async with asyncio.timeout(EXPECT_PATIENCE.total_seconds()):
                if await self._index.copies(archive):
                    return Stored(archive=archive)
        admission = self._limiter.admission(client, archive.source, limited=False)
        outcome = await self._queue.enqueue(
            archive, client=client, admit=admission.deferred_task, urgency=Urgency.ANNOUNCED
        )
        return Pending(archive=archive, outcome=outcome)

    async def build(self, archive: Archive, attempt: Attempt) -> Copies:
        """Store *archive* in every region: copied from another region, or built.

        May be repeated, and may run twice at a time. A region that fails while another succeeds is
        repaired later.

        Raises:
            EngineUnavailable: A region lacks the archive, and the repair cannot be listed. The
                next attempt finds what is stored.
            ArchiverError: No region has the archive. ``retryable`` says whether to try again.
        """
        attempt.report(Phase.CONNECTING)
        found = await self._storage.find(archive)
        if found.copies:
            copies = await replicate(self._storage, archive, found.copies, attempt)
        else:
            source = self.source(archive.source)
            _require_makes(source, archive)
            copies = await self._builder.build(source, archive, attempt, found)
        await self._index.record(archive, copies)
        if missing := copies.missing_from(self._storage.regions):
            await self._repairs.add(archive, missing)
        elif found.copies:
            with suppress(EngineUnavailable):
                await self._repairs.forget(archive)
        return copies

    async def locate(
        self,
        sha256: str,
        preferred: Region | None,
        *,
        may_read: MayRead,
        method: str = "GET",
        client_region: Region | None = None,
    ) -> Ready | None:
        """Return where an archive with these bytes is, if one is known that the client may read.

        Raises EngineUnavailable.
        """
        for archive in await self._index.by_sha256(sha256):
            if archive.source not in self._sources or not may_read(archive.source, archive.repo):
                continue
            copies = await self._index.copies(archive)
            if not copies or copies.manifest.first_hidden(may_read):
                continue
            if copies.manifest.sha256 == sha256:
                return await self._hit(archive, copies, preferred, client_region, method)
        return None

    def source(self, name: str) -> Source:
        """Return the configured source. Raises UnknownSource."""
        try:
            return self._sources[name]
        except KeyError:
            raise UnknownSource(f"unknown source {name!r}") from None

    async def _find(
        self, request: ArchiveRequest, *, client: str, limited: bool, share: bool
    ) -> Found:
        source = self.source(request.source)
        _require_makes(source, request)
        admission = self._limiter.admission(client, source.name, limited=limited)
        resolution = await self._resolver.resolve(
            source, request.repo, request.rev, client=client, admit=admission.lookup, share=share
        )
        archive = request.archive_at(resolution.node)
        return Found(
            source=source,
            admission=admission,
            resolution=resolution,
            archive=archive,
            copies=await self._index.copies(archive),
        )

    async def _hit(
        self,
        archive: Archive,
        copies: Copies,
        preferred: Region | None,
        own: Region | None,
        method: str,
    ) -> Ready:
        self.hits.notify(archive.key_hash)
        if missing := copies.missing_from(self._storage.regions):
            with suppress(EngineUnavailable, TimeoutError):
                async with asyncio.timeout(REPAIR_PATIENCE.total_seconds()):
                    await self._repairs.add(archive, missing)
        region = self._region_choice.choose(copies.regions, preferred=preferred, own=own)
        if region is None:
            raise StorageUnavailable("no configured region has the archive")
        return Ready(
            archive=archive,
            manifest=copies.manifest,
            region=region,
            requested_region=preferred or own,
            url=self._storage.presign(copies, region, method=method),
        )


def _require_makes(source: Source, wanted: ArchiveRequest | Archive) -> None:
    """Return if *source* makes such archives. Raises InvalidRequest."""
    if wanted.flags and not source.completes:
        flag = wanted.flags[0]
        raise InvalidRequest(
            f"{flag}=1 needs a source of kind git",
            parameter=flag,
            allowed=f"no {flag} for {source.name}",
        )
