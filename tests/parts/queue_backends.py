"""The in-memory queue and the JetStream queue, for contract tests and tests of the worker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import pytest

from archiver.jetstream.counters import JetStreamCounters
from archiver.jetstream.fleet import JetStreamFleet
from archiver.jetstream.repair_list import JetStreamRepairList
from archiver.jetstream.task_list import JetStreamTaskList
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.work_queue import open_work_queue
from archiver.model import Archive
from archiver.ports.counters import Counters
from archiver.ports.queue import Fleet, Lease, RepairList, TaskQueue, WorkQueue
from archiver.ports.task_list import TaskList
from archiver.tasks import Task, TaskState
from archiver.testing import MemoryEngine, MemoryTaskList, MemoryWorkQueue
from archiver.worker.worker import Build, Policy
from tests.parts.fleet import CAPS, HUNG_AFTER_S, LEASE, POLICY, prepared, running
from tests.parts.nats import Nats


class OpenWorkQueue(Protocol):
    def __call__(
        self, *, caps: Mapping[str, int], lease: timedelta
    ) -> AbstractAsyncContextManager[WorkQueue]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBackend:
    """The client side of one queue, and a function that opens its worker side."""

    queue: TaskQueue
    repairs: RepairList
    fleet: Fleet
    counters: Counters
    tasks: TaskList
    open_work_queue: OpenWorkQueue

    def work_queue(self, *, lease: timedelta = LEASE) -> AbstractAsyncContextManager[WorkQueue]:
        return self.open_work_queue(caps=CAPS, lease=lease)

    @asynccontextmanager
    async def worker(
        self,
        build: Build,
        *,
        caps: Mapping[str, int] | None = None,
        lease: timedelta = LEASE,
        policy: Policy = POLICY,
    ) -> AsyncIterator[None]:
        """Run a worker while the block runs, then stop it as SIGTERM does."""
        opening = self.open_work_queue(caps=caps or CAPS, lease=lease)
        async with opening as queue, running(queue, build, policy):
            yield

    async def until(self, archive: Archive, state: TaskState) -> Task:
        """Wait until the task reaches *state*, and return it."""
        async with asyncio.timeout(HUNG_AFTER_S):
            while True:
                task = await self.queue.task(archive)
                if task and task.state is state:
                    return task
                await asyncio.sleep(0.01)


OpenStand = Callable[[], AbstractAsyncContextManager[QueueBackend]]


@asynccontextmanager
async def in_memory() -> AsyncIterator[QueueBackend]:
    engine = MemoryEngine()

    @asynccontextmanager
    async def open_queue(
        *,
        caps: Mapping[str, int],  # noqa: ARG001 - in memory there is only one worker
        lease: timedelta,
    ) -> AsyncIterator[WorkQueue]:
        queue = MemoryWorkQueue(engine, lease=lease)
        yield queue
        queue.close()

    yield QueueBackend(
        queue=engine,
        repairs=engine,
        fleet=engine,
        counters=engine,
        tasks=MemoryTaskList(engine),
        open_work_queue=open_queue,
    )


@pytest.fixture(params=("memory", "jetstream"))
def open_stand(request: pytest.FixtureRequest, nats: Nats, namespace: str) -> OpenStand:
    if request.param == "memory":
        return in_memory
    fleet = prepared(nats, namespace)

    @asynccontextmanager
    async def on_jetstream() -> AsyncIterator[QueueBackend]:
        @asynccontextmanager
        async def open_queue(
            *, caps: Mapping[str, int], lease: timedelta
        ) -> AsyncIterator[WorkQueue]:
            async with (
                fleet.connection() as connection,
                open_work_queue(connection=connection, caps=caps, lease=lease) as queue,
            ):
                yield queue

        async with fleet.connection() as connection:
            yield QueueBackend(
                queue=JetStreamTaskQueue(connection=connection),
                repairs=JetStreamRepairList(connection=connection),
                fleet=JetStreamFleet(connection=connection),
                counters=JetStreamCounters(connection=connection),
                tasks=JetStreamTaskList(connection=connection),
                open_work_queue=open_queue,
            )

    return on_jetstream


async def claimed(queue: WorkQueue) -> Lease:
    """Claim the next task, and return its lease."""
    async with asyncio.timeout(HUNG_AFTER_S):
        lease = await queue.claim()
    assert lease
    return lease
