"""The two use cases: ``request`` an archive, ``build`` an archive. Read this first."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from archiver.building.builder import Builder
from archiver.errors import (
    ArchiverError,
    EngineUnavailable,
    SourceError,
    StorageUnavailable,
    TaskFailed,
    UnknownSource,
)
from archiver.health import Health, WorkerReport, health_of
from archiver.locality.region_choice import RegionChoice
from archiver.model import (
    Absent,
    Archive,
    ArchiveRequest,
    Copies,
    Pending,
    PresignedUrl,
    Ready,
    Region,
)
from archiver.ports.formats import Converter, Verify
from archiver.ports.index import Index
from archiver.ports.queue import Attempt, Fleet, RepairList, TaskQueue
from archiver.ports.source import Source
from archiver.ports.storage import Found, Storage
from archiver.resolver import Resolver
from archiver.runtime.hedging import hedged
from archiver.runtime.notifications import Notifications
from archiver.tasks import Backlog, Phase, Task, TaskState
from archiver.telemetry import METRICS, log

PATIENCE = timedelta(milliseconds=200)
"""How long an archive that is there waits for what only the engine knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far an archive is, and a fresh link per region that has it."""

    task: Task
    source_url: str
    copies: Copies | None = None
    urls: Mapping[Region, PresignedUrl] = field(default_factory=dict, repr=False)
    missing: tuple[Region, ...] = ()


class Archiver:
    """Hands out archives that are in the buckets, and puts those there that are not."""

    def __init__(  # noqa: PLR0913 - one argument per port
        self,
        *,
        sources: Mapping[str, Source],
        storage: Storage,
        index: Index,
        queue: TaskQueue,
        repairs: RepairList,
        fleet: Fleet,
        verify: Verify,
        converter: Converter,
        news: Notifications,
        nearest: Mapping[Region, Sequence[Region]],
    ) -> None:
        self.news = news
        self._sources = sources
        self._storage = storage
        self._index = index
        self._queue = queue
        self._repairs = repairs
        self._fleet = fleet
        self._maker = Builder(storage=storage, index=index, verify=verify, converter=converter)
        self._resolver = Resolver(index=index)
        self._nearness = RegionChoice(regions=storage.regions, nearest=nearest)

    def source(self, name: str) -> Source:
        """Return the configured source. Raises UnknownSource."""
        try:
            return self._sources[name]
        except KeyError:
            raise UnknownSource(f"there is no source {name!r} here") from None

    async def request(
        self,
        wanted: ArchiveRequest,
        *,
        method: str = "GET",
        create: bool = True,
        share: bool,
        client: str,
        client_region: Region | None = None,
    ) -> Ready | Pending | Absent:
        """Return where the wanted archive is, or the task that will put it there.

        *client* is whom questions to the host are counted for, *client_region* the nearest to its
        address, as far as that is known. With *share*, the fleet gets to know what the rev means.

        Raises:
            InvalidRequest, NotFound: It can never be there.
            SourceError, EngineUnavailable: It is not there, and who could say more, or begin a
                task, does not answer.
            StorageUnavailable: Nobody can say whether it is there.
            TaskFailed: It is not there, and its task failed for good a moment ago.
            TooManyWaiters: So many questions wait for a host that this one may not.
        """
        source = self.source(wanted.source)
        meaning = await self._resolver.meaning(
            source, wanted.repo, wanted.rev, client=client, share=share
        )
        archive = wanted.at(meaning.node)
        if copies := await self._index.copies(archive):
            ready = await self._hit(archive, copies, wanted.preferred_region, client_region, method)
            return replace(ready, good_until=meaning.good_until) if meaning.good_until else ready
        if not create:
            return Absent(archive=archive)
        try:
            await self._resolver.require_known(source, wanted.repo, archive.node, client=client)
        except SourceError:
            if not await self._maker.relatives(source, archive):
                raise
        self._raise_recent_failure(archive)
        return Pending(archive=archive, outcome=await self._queue.enqueue(archive))

    async def backlog(self, source: str) -> Backlog | None:
        """Return how long the queue of *source* is, if that can be told."""
        return await self._queue.backlog(source)

    async def locate(
        self,
        sha256: str,
        preferred: Region | None,
        *,
        method: str = "GET",
        client_region: Region | None = None,
    ) -> Ready | None:
        """Return where the bytes with this digest are, if an archive is known that has them.

        Raises:
            EngineUnavailable: Nobody can say whether there is one.
        """
        for archive in await self._index.by_sha256(sha256):
            if archive.source not in self._sources:
                continue
            copies = await self._index.copies(archive)
            if copies and copies.manifest.sha256 == sha256:
                return await self._hit(archive, copies, preferred, client_region, method)
        return None

    async def task(self, archive: Archive) -> Task | None:
        """Return what the engine knows of the task of *archive*, and nothing of what is stored.

        Raises:
            EngineUnavailable: It cannot be asked.
        """
        return await self._queue.task(archive)

    async def status(self, archive: Archive) -> Status:
        """Return how far *archive* is: SUCCESS if and only if a region has it, whoever built it.

        Raises:
            EngineUnavailable: No region has it, and its task cannot be asked for.
            StorageUnavailable: Its task ended well, and no region answers.
        """
        return await hedged(
            self._status(archive), lambda: self._status_if_stored(archive), after=PATIENCE
        )

    async def _status_if_stored(self, archive: Archive) -> Status | None:
        """Return the status of an archive that is there without asking for its task."""
        copies = await self._index.copies(archive)
        return self._stored(archive, copies, None) if copies else None

    async def _status(self, archive: Archive) -> Status:
        try:
            # Asked before the buckets: the other way round, a commit in between would look undone.
            task = await self._queue.task(archive)
        except EngineUnavailable:
            if stored := await self._status_if_stored(archive):
                return stored
            raise
        try:
            copies = await self._index.copies(archive, since=_succeeded_at(task))
        except StorageUnavailable:
            if _says_success(task):
                raise
            copies = None
        if copies:
            return self._stored(archive, copies, task)
        return Status(task=_unfinished(archive, task), source_url=self._source_url(archive))

    def _stored(self, archive: Archive, copies: Copies, task: Task | None) -> Status:
        return Status(
            task=_succeeded(archive, copies, task),
            source_url=self._source_url(archive),
            copies=copies,
            urls={
                region: self._storage.presign(copies, region, method="GET")
                for region in copies.regions
            },
            missing=self._missing(copies),
        )

    def _source_url(self, archive: Archive) -> str:
        source = self.source(archive.source)
        return source.url(source.fetchable(archive))

    async def check(self) -> Health:
        """Return whether the engine queues tasks, workers take them, and regions store archives.

        Web processes may have no right to write, so the workers say which regions take writes.
        """
        async with asyncio.TaskGroup() as group:
            engine = group.create_task(self._fleet.check())
            regions = group.create_task(self._storage.check())
            reports = group.create_task(self._reports())
        return health_of(engine=engine.result(), regions=regions.result(), reports=reports.result())

    async def check_worker(self) -> Health:
        """Return whether the engine hands out tasks, and regions take writes of this process."""
        async with asyncio.TaskGroup() as group:
            engine = group.create_task(self._fleet.check())
            regions = group.create_task(self._storage.writable())
        return Health(engine=engine.result(), regions=regions.result(), of_worker=True)

    async def _reports(self) -> Sequence[WorkerReport] | ArchiverError:
        try:
            return await self._fleet.workers()
        except EngineUnavailable as exc:
            return exc

    async def build(self, archive: Archive, attempt: Attempt) -> Copies:
        """Put *archive* into every region: as one of them has it, or made anew.

        Safe to repeat, and to run twice at a time. A region that fails while another succeeds
        leaves a repair for later.

        Raises:
            ArchiverError: No region has it. ``retryable`` says whether a later attempt might do.
        """
        attempt.report(Phase.CONNECTING)
        found = await self._storage.find(archive)
        if found.copies:
            copies = await self._complete(archive, found.copies, attempt)
        else:
            source = self.source(archive.source)
            await self._require_lost(archive, found)
            found = await self._writable(found)
            copies = await self._maker.make(source, archive, attempt, found)
        await self._index.record(archive, copies)
        with suppress(EngineUnavailable):
            if missing := self._missing(copies):
                await self._repairs.note(archive, missing)
            elif found.copies:
                await self._repairs.forget(archive)
        return copies

    async def _require_lost(self, archive: Archive, found: Found) -> None:
        """Return unless a region that is silent now is known to have *archive*.

        A second fetch would give the archive a second manifest.

        Raises:
            StorageUnavailable: One is.
        """
        if not found.unreachable:
            return
        known = await self._index.copies(archive)
        if known and set(known.regions).intersection(found.unreachable):
            raise StorageUnavailable("the regions that have the archive do not answer")

    async def _writable(self, found: Found) -> Found:
        """Return *found*, with the regions that take no writes now among those to avoid.

        Proven before the host is asked, which must not pay for an outage of ours.

        Raises:
            StorageUnavailable: No region takes writes.
        """
        answers = await self._storage.writable()
        refusing = {region: failure for region, failure in answers.items() if failure}
        if len(refusing) == len(answers):
            raise StorageUnavailable("no region takes writes") from next(iter(refusing.values()))
        return replace(found, unreachable=tuple({**dict.fromkeys(found.unreachable), **refusing}))

    async def _complete(self, archive: Archive, copies: Copies, attempt: Attempt) -> Copies:
        """Copy to the regions that lack the archive; return all that have it then."""
        regions = set(copies.regions)
        for region in self._missing(copies):
            attempt.report(Phase.COPYING)
            try:
                await self._storage.copy(archive, copies, region)
            except ArchiverError as exc:
                METRICS.repairs.labels(region=region, outcome="failed").inc()
                log.warning("copy.failed", region=region, key=archive.key, **exc.log_fields)
            else:
                METRICS.repairs.labels(region=region, outcome="succeeded").inc()
                log.info("copy.succeeded", region=region, key=archive.key)
                regions.add(region)
        return Copies(
            manifest=copies.manifest,
            regions=tuple(region for region in self._storage.regions if region in regions),
        )

    def _raise_recent_failure(self, archive: Archive) -> None:
        """Spare the host: what failed for good a moment ago would fail again."""
        if failure := self._queue.recent_failure(archive):
            raise TaskFailed(failure.message, code=failure.code)

    def _missing(self, copies: Copies) -> tuple[Region, ...]:
        return tuple(region for region in self._storage.regions if region not in copies.regions)

    async def _hit(
        self,
        archive: Archive,
        copies: Copies,
        preferred: Region | None,
        own: Region | None,
        method: str,
    ) -> Ready:
        if missing := self._missing(copies):
            with suppress(EngineUnavailable, TimeoutError):
                async with asyncio.timeout(PATIENCE.total_seconds()):
                    await self._repairs.note(archive, missing)
        region = self._nearness.choose(copies.regions, preferred=preferred, own=own)
        if region is None:
            raise StorageUnavailable("no configured region has the archive")
        return Ready(
            archive=archive,
            manifest=copies.manifest,
            region=region,
            wanted=preferred or own,
            url=self._storage.presign(copies, region, method=method),
        )


def _says_success(task: Task | None) -> bool:
    return task is not None and task.state is TaskState.SUCCESS


def _succeeded_at(task: Task | None) -> datetime | None:
    return task.updated_at if task and _says_success(task) else None


def _unfinished(archive: Archive, task: Task | None) -> Task:
    """Return the task of an archive that is not there: nobody's word makes it a SUCCESS.

    A task that nobody knows, or whose archive was taken away, is PENDING, as the original has it.
    """
    if task is None or _says_success(task):
        return Task(archive=archive, state=TaskState.PENDING, phase=Phase.QUEUED)
    return task


def _succeeded(archive: Archive, copies: Copies, task: Task | None) -> Task:
    """Return the task as the buckets prove it to have ended, whatever the engine remembers."""
    known = task or Task(archive=archive, state=TaskState.SUCCESS, phase=Phase.DONE)
    return replace(
        known,
        state=TaskState.SUCCESS,
        phase=Phase.DONE,
        bytes_done=copies.manifest.size_bytes,
        error=None,
        updated_at=known.updated_at or copies.manifest.created_at,
    )
