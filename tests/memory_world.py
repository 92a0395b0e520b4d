"""Archiver with in-memory fakes and one repository."""

from dataclasses import dataclass, field
from datetime import timedelta

from archiver.breaker import Breaker, BreakerName
from archiver.health import health_of_breakers
from archiver.limiter import ClientLimits, Limiter
from archiver.model import Absent, Archive, ArchiveRequest, Node, Pending, Ready, Region
from archiver.runtime.notifications import Notifications
from archiver.service import Archiver
from archiver.testing import (
    FakeAttempt,
    FakeConverter,
    FakeSource,
    GzipVerifier,
    MemoryEngine,
    MemoryIndex,
    MemoryLastUses,
    MemoryStorage,
    MemoryTaskList,
    MemoryWorkQueue,
)
from archiver.tree_proof import everything
from archiver.upkeep.operations import Operations
from archiver.worker.worker import Policy, Worker

ASH = "projects/ash"
FILES = {"README": b"read me", "testing/mozharness/a.py": b"a", "testing/mozharness/b/c.py": b"c"}


@dataclass(kw_only=True)
class World:
    """``node`` is the tip of ``projects/ash``, its default branch, and the tag ``V_1``."""

    source: FakeSource = field(default_factory=FakeSource)
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    engine: MemoryEngine = field(default_factory=MemoryEngine)
    uses: MemoryLastUses = field(default_factory=MemoryLastUses)
    converter: FakeConverter = field(default_factory=FakeConverter)
    notifications: Notifications = field(default_factory=Notifications)
    nearest: dict[Region, tuple[Region, ...]] = field(default_factory=dict)
    limits: ClientLimits = field(default_factory=ClientLimits)
    avoided: set[Region] = field(default_factory=set)
    not_closed: dict[BreakerName, Breaker] = field(default_factory=dict)
    index: MemoryIndex = field(init=False)
    archiver: Archiver = field(init=False)
    node: Node = field(init=False)

    def __post_init__(self) -> None:
        self.index = MemoryIndex(storage=self.storage, notifications=self.notifications)
        self.engine.notifications = self.notifications
        self.archiver = self.new_process()
        self.node = self.source.commit(ASH, FILES, "default", "V_1")

    def new_process(self) -> Archiver:
        """Return the Archiver of another process, with empty caches."""
        return Archiver(
            sources={self.source.name: self.source},
            storage=self.storage,
            index=self.index,
            queue=self.engine,
            repairs=self.engine,
            fleet=self.engine,
            verify=GzipVerifier,
            converter=self.converter,
            notifications=self.notifications,
            nearest=self.nearest,
            limiter=Limiter(limits=self.limits, counters=self.engine),
            avoids=self.avoided.__contains__,
            breaker_health=lambda: health_of_breakers(self.not_closed),
        )

    def archive(self, subdir: str = "", suffix: str = "tar.gz") -> Archive:
        return self.wanted(subdir=subdir, suffix=suffix).archive_at(self.node)

    def wanted(
        self,
        rev: str | None = None,
        *,
        repo: str = ASH,
        subdir: str = "",
        suffix: str = "tar.gz",
    ) -> ArchiveRequest:
        return ArchiveRequest(
            source=self.source.name,
            repo=repo,
            rev=self.node if rev is None else rev,
            subdir=subdir,
            suffix=suffix,
        )

    @property
    def operations(self) -> Operations:
        tasks = MemoryTaskList(self.engine)
        return Operations(
            storage=self.storage, contents=self.storage.contents, tasks=tasks, uses=self.uses
        )

    async def work(self, *, max_failures: int = 5) -> None:
        """Build all queued tasks, including tasks that are queued during the call.

        Retries come at once. A task that waits for an outage is left for the next call.
        """
        queue = MemoryWorkQueue(self.engine, ends_when_empty=True)
        policy = Policy(
            concurrency=1,
            grace=timedelta(0),
            max_failures=max_failures,
            retry_base=timedelta(0),
        )
        await Worker(build=self.archiver.build, queue=queue, policy=policy).work_until_closed()
        queue.release_waiting()

    @property
    def untouched(self) -> bool:
        """Return whether no task was created and no request was sent to the host."""
        return not self.engine.tasks and not self.source.asked


async def request(
    archiver: Archiver,
    wanted: ArchiveRequest,
    *,
    create: bool = True,
    client_region: Region | None = None,
) -> Ready | Pending | Absent:
    """Return the result of *archiver* for *wanted* with default options."""
    return await archiver.request(
        wanted,
        may_read=everything,
        create=create,
        share=create,
        client="",
        client_region=client_region,
    )


async def build(world: World, subdir: str = "") -> Archive:
    """Build the archive as a worker does, and return it."""
    archive = world.archive(subdir)
    await world.archiver.build(archive, FakeAttempt(archive=archive))
    return archive


def lose(world: World) -> None:
    """Delete all objects but keep their manifests."""
    for objects in world.storage.objects.values():
        objects.clear()
