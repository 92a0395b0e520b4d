"""Which task a worker claims next, and how soon, on a real server."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from nats.js.api import RetentionPolicy
from structlog.testing import capture_logs

from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.consumers import SourceConsumer, share_of_cap
from archiver.jetstream.dispatch import Dispatcher
from archiver.jetstream.feed import WAITING
from archiver.jetstream.leases import JetStreamLease
from archiver.jetstream.link import Servers
from archiver.jetstream.records import WaitingRecord, encode
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.jetstream.work_queue import JetStreamWorkQueue
from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt
from archiver.runtime.tasks import in_background
from archiver.tasks import Priority, TaskState
from tests.parts.fleet import HUNG_AFTER_S, LEASE, POLICY, Fleet, an_archive, copies_of, until
from tests.parts.nats import Nats

MANY = 40
SOURCES = tuple(f"source{number}" for number in range(MANY))


@dataclass(slots=True, kw_only=True)
class Bench:
    """A worker whose attempts end on the test's command."""

    connection: Connection
    queue: JetStreamTaskQueue
    work_queue: JetStreamWorkQueue
    dispatcher: Dispatcher
    leases: list[JetStreamLease] = field(default_factory=list)
    ended: dict[int, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    lost: set[int] = field(default_factory=set)
    priorities: dict[str, Priority] = field(default_factory=dict)

    @property
    def consumers(self) -> list[SourceConsumer]:
        return [*self.dispatcher.consumers]

    @property
    def sources(self) -> list[str]:
        """The sources of the claimed tasks, in order."""
        return [lease.archive.source for lease in self.leases]

    @property
    def claimed_priorities(self) -> str:
        return "".join(self.priorities[lease.archive.key][0] for lease in self.leases)

    @property
    def pending_requests(self) -> int:
        return sum(bool(consumer.request) for consumer in self.consumers)

    async def announce(self, *sources: str) -> None:
        """Announce tasks that do not exist, so every dispatcher waits for them."""
        for source in sources:
            record = WaitingRecord(source=source, priority=Priority.HIGH)
            await self.connection.feed.publish(WAITING, "0" * 64, encode(record))

    async def enqueue(self, source: str, priority: Priority = Priority.HIGH) -> None:
        archive = an_archive(source)
        self.priorities[archive.key] = priority
        await self.queue.enqueue(archive, priority=priority)

    async def until(self, state: Callable[[], bool]) -> None:
        async with asyncio.timeout(HUNG_AFTER_S):
            while not state():
                await asyncio.sleep(0.005)

    async def end(self, number: int) -> None:
        """Have an attempt succeed, by its *number* in the order of claims."""
        await self.until(lambda: len(self.leases) > number)
        self.ended[number].set()
        await self.until(lambda: not self.leases[number].is_open)

    async def work_slot(self) -> None:
        while lease := await self.work_queue.claim():
            self.leases.append(lease)
            number = len(self.leases) - 1
            await self.ended[number].wait()
            if number not in self.lost:
                await lease.succeed()

    def lose(self, number: int) -> None:
        """End an attempt without a trace, as if its worker had died."""
        self.lost.add(number)
        self.ended[number].set()


@asynccontextmanager
async def bench(
    fleet: Fleet, *sources: str, slots: int = 1, cap: int = 100
) -> AsyncIterator[Bench]:
    caps = dict.fromkeys(sources, cap)
    async with fleet.connection() as connection:
        dispatcher = Dispatcher(connection=connection, caps=caps, lease=LEASE)
        ready = Bench(
            connection=connection,
            queue=JetStreamTaskQueue(connection=connection),
            work_queue=JetStreamWorkQueue(
                connection=connection, dispatcher=dispatcher, lease=LEASE
            ),
            dispatcher=dispatcher,
        )
        async with in_background(*(ready.work_slot() for _ in range(slots))):
            yield ready
        dispatcher.close()
        await dispatcher.leave()


def test_sources_without_a_task_occupy_no_claim(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, *SOURCES, slots=1) as here:
            async with in_background(here.dispatcher.serve_claims()), asyncio.timeout(HUNG_AFTER_S):
                while here.pending_requests < MANY // 4:
                    await here.announce(*SOURCES)
                    await asyncio.sleep(0.1)
                for source in SOURCES:
                    await here.enqueue(source)
                for number in range(MANY):
                    await here.end(number)
            return here.sources

    assert sorted(asyncio.run(play())) == sorted(SOURCES)


def test_a_source_with_many_tasks_takes_turns_with_the_others(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "big", "small", "other") as here:
            for source in ("big",) * 6 + ("small", "other"):
                await here.enqueue(source)
            async with in_background(here.dispatcher.serve_claims()):
                for number in range(8):
                    await here.end(number)
            return here.sources

    order = asyncio.run(play())
    assert order.index("small") < 4
    assert order.index("other") < 4
    assert order.count("big") == 6


def test_high_priority_comes_first_and_low_priority_in_between(fleet: Fleet) -> None:
    async def play() -> str:
        async with bench(fleet, "one") as here:
            async with in_background(here.dispatcher.serve_claims()):
                await here.until(lambda: all(c.exists for c in here.consumers))
                await here.enqueue("one")
                await here.until(lambda: bool(here.leases))
                for priority in (Priority.LOW,) * 2 + (Priority.HIGH,) * 12:
                    await here.enqueue("one", priority)
                for number in range(15):
                    await here.end(number)
            return here.claimed_priorities

    order = asyncio.run(play())
    assert order[:7] == "h" * 7
    assert "lh" in order
    assert order.count("l") == 2


def test_a_source_at_its_cap_occupies_no_claim_and_continues_below_it(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "full", "idle", slots=3, cap=3) as here:  # one task each
            async with in_background(here.dispatcher.serve_claims()):
                for _ in range(3):
                    await here.enqueue("full")
                await here.until(lambda: here.sources == ["full"])
                for number in range(3):
                    await here.enqueue("idle")
                    await here.end(number + 1)
                await here.end(0)
                await here.until(lambda: len(here.leases) > 4)
            return here.sources

    assert asyncio.run(play()) == ["full", "idle", "idle", "idle", "full"]


def test_a_task_without_a_waiting_claim_goes_to_another_worker(
    fleet: Fleet,
) -> None:
    async def play() -> list[str]:
        async with (
            bench(fleet, "one", "two") as busy,
            bench(fleet, "one", "two", slots=2) as free,
        ):
            async with in_background(busy.dispatcher.serve_claims()):
                await busy.announce("one", "two")
                await busy.until(lambda: busy.pending_requests == 2)
                await busy.enqueue("one")
                await busy.until(lambda: busy.sources == ["one"])
                async with in_background(free.dispatcher.serve_claims()):
                    await busy.enqueue("two")
                    await free.until(lambda: bool(free.leases))
            return busy.sources + free.sources

    assert asyncio.run(play()) == ["one", "two"]


@pytest.mark.thorough
def test_a_deleted_consumer_is_created_again(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "one") as here:
            async with in_background(here.dispatcher.serve_claims()):
                await here.enqueue("one")
                await here.end(0)
                await here.connection.link.js.delete_stream(here.connection.tasks.name)
                await here.enqueue("one")
                await here.end(1)
            return here.sources

    assert asyncio.run(play()) == ["one", "one"]


@pytest.mark.thorough
def test_an_unannounced_task_is_found_by_a_sweep(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "one") as here:
            async with in_background(here.dispatcher.serve_claims()):
                await here.enqueue("one")
                await here.until(lambda: bool(here.leases))
                here.lose(0)
                await here.until(lambda: len(here.leases) > 1)
            return here.sources

    assert asyncio.run(play()) == ["one", "one"]


def test_a_task_that_arrives_after_close_goes_to_another_worker(
    fleet: Fleet,
) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "one") as here, bench(fleet, "one") as other:
            async with in_background(here.dispatcher.serve_claims()):
                await here.until(lambda: all(c.exists for c in here.consumers))
                await here.announce("one")
                await here.until(lambda: bool(here.consumers[0].request))
            here.dispatcher.close()
            await here.enqueue("one")  # the answer to the request that waits at the server
            await here.dispatcher.leave()
            async with in_background(other.dispatcher.serve_claims()):
                await other.until(lambda: bool(other.leases))
            return here.sources + other.sources

    assert asyncio.run(play()) == ["one"]


def test_a_consumer_that_cannot_be_created_is_a_warning_while_the_engine_answers(
    nats: Nats, namespace: str
) -> None:
    """A server, an account or a stream may allow fewer consumers than a worker needs."""
    fleet = Fleet(servers=Servers(urls=[nats.url]), namespace=namespace)

    async def play() -> list[str]:
        only_look = connect(fleet.servers, namespace=namespace, name="test", prepares=False)
        async with only_look as connection:
            await connection.link.js.add_stream(
                name=f"{namespace}_tasks",
                subjects=[f"{namespace}.tasks.*.*.*"],
                retention=RetentionPolicy.WORK_QUEUE,
                max_consumers=1,
            )
        with capture_logs() as lines:
            async with bench(fleet, "hgmo") as it, in_background(it.dispatcher.serve_claims()):
                await it.until(lambda: any(line["event"] == "lane.broken" for line in lines))
        return [line["log_level"] for line in lines if line["event"] == "lane.broken"][:1]

    assert asyncio.run(play()) == ["warning"]


def test_no_more_attempts_run_than_the_cap_of_the_source_allows(fleet: Fleet) -> None:
    caps = {"small": 3, "large": 6}
    full = {source: asyncio.Event() for source in caps}
    running, peak = Counter[str](), Counter[str]()

    async def build(archive: Archive, _attempt: Attempt) -> Copies:
        source = archive.source
        running[source] += 1
        peak[source] = max(peak[source], running[source])
        if running[source] == caps[source]:
            full[source].set()
        await full[source].wait()
        await asyncio.sleep(0.1)  # time for one attempt too many
        running[source] -= 1
        return copies_of(archive)

    async def play() -> None:
        archives = [an_archive(source) for source in caps for _ in range(12)]
        policy = replace(POLICY, concurrency=12)
        async with (
            fleet.queue() as queue,
            fleet.worker(build, caps=caps, policy=policy),
            fleet.worker(build, caps=caps, policy=policy),
        ):
            for number, archive in enumerate(archives):
                await queue.enqueue(archive, priority=[*Priority][number % 3])
            for archive in archives:
                await until(queue, archive, TaskState.SUCCESS)

    asyncio.run(play())
    assert peak == caps


@pytest.mark.parametrize("cap", (3, 4, 8, 100))
def test_the_shares_of_all_priorities_are_the_cap(cap: int) -> None:
    shares = [share_of_cap(cap, priority) for priority in Priority]

    assert sum(shares) == cap
    assert min(shares) >= 1
