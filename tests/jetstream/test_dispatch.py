"""Which task a worker begins next, and how soon, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nats.aio.msg import Msg
from nats.js.api import RetentionPolicy
from structlog.testing import capture_logs

from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.dispatch import Dispatcher
from archiver.jetstream.feed import WAITING
from archiver.jetstream.jetstream import JetStream
from archiver.jetstream.lanes import Lane
from archiver.jetstream.link import Servers
from archiver.jetstream.records import WaitingRecord, encode
from archiver.runtime.tasks import in_background
from archiver.tasks import Priority
from tests.jetstream.conftest import HUNG_AFTER_S, LEASE, Fleet, an_archive
from tests.parts.nats import Nats

MANY = 40
SOURCES = tuple(f"source{number}" for number in range(MANY))


@dataclass(slots=True, kw_only=True)
class Bench:
    """A dispatcher whose tasks end when the test says so."""

    connection: Connection
    engine: JetStream
    dispatcher: Dispatcher
    lanes: list[Lane]
    started: list[Msg] = field(default_factory=list)

    @property
    def sources(self) -> list[str]:
        """Return the sources of the tasks that were started, in their order."""
        return [message.subject.split(".")[-2] for message in self.started]

    @property
    def priorities(self) -> str:
        return "".join(message.subject.split(".")[-3][0] for message in self.started)

    @property
    def open_questions(self) -> int:
        return sum(bool(lane.question) for lane in self.lanes)

    async def spread_rumours(self, *sources: str) -> None:
        """Have every dispatcher ask for tasks that are not there, and wait for them."""
        for source in sources:
            record = WaitingRecord(source=source, priority=Priority.HIGH)
            await self.connection.tell(WAITING, "0" * 64, encode(record))

    async def enqueue(self, source: str, priority: Priority = Priority.HIGH) -> None:
        await self.engine.enqueue(an_archive(source), priority=priority)

    async def until(self, state: Callable[[], bool]) -> None:
        async with asyncio.timeout(HUNG_AFTER_S):
            while not state():
                await asyncio.sleep(0.005)

    async def end(self, number: int) -> None:
        """Have the task that was started as this *number* done, from 0."""
        await self.until(lambda: len(self.started) > number)
        await self.started[number].ack_sync()
        self.dispatcher.freed()


@asynccontextmanager
async def bench(
    fleet: Fleet, *sources: str, slots: int = 1, concurrency: int = 100
) -> AsyncIterator[Bench]:
    async with fleet.connection() as connection:
        lanes = [
            Lane(
                connection=connection,
                source=source,
                priority=priority,
                concurrency=concurrency,
                lease=LEASE,
            )
            for priority in Priority
            for source in sources
        ]
        started: list[Msg] = []
        dispatcher = Dispatcher(
            connection=connection, lanes=lanes, slots=slots, start=started.append
        )
        yield Bench(
            connection=connection,
            engine=JetStream(connection=connection),
            dispatcher=dispatcher,
            lanes=lanes,
            started=started,
        )
        dispatcher.close()
        await dispatcher.leave()


def test_sources_without_a_task_hold_no_slot_while_they_are_asked(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, *SOURCES, slots=1) as here:
            async with in_background(here.dispatcher.run()), asyncio.timeout(HUNG_AFTER_S):
                while here.open_questions < MANY // 4:
                    await here.spread_rumours(*SOURCES)
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
            async with in_background(here.dispatcher.run()):
                for number in range(8):
                    await here.end(number)
            return here.sources

    order = asyncio.run(play())
    assert order.index("small") < 4
    assert order.index("other") < 4
    assert order.count("big") == 6


def test_high_priority_comes_first_and_low_priority_comes_all_the_same(fleet: Fleet) -> None:
    async def play() -> str:
        async with bench(fleet, "one") as here:
            async with in_background(here.dispatcher.run()):
                await here.until(lambda: all(lane.made for lane in here.lanes))
                await here.enqueue("one")
                await here.until(lambda: bool(here.started))
                for priority in (Priority.LOW,) * 2 + (Priority.HIGH,) * 12:
                    await here.enqueue("one", priority)
                for number in range(15):
                    await here.end(number)
            return here.priorities

    order = asyncio.run(play())
    assert order[:7] == "h" * 7
    assert "lh" in order
    assert order.count("l") == 2


def test_a_source_at_its_cap_holds_no_slot_and_goes_on_when_a_seat_is_free(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "full", "idle", slots=3, concurrency=2) as here:  # one seat each
            async with in_background(here.dispatcher.run()):
                for _ in range(3):
                    await here.enqueue("full")
                await here.until(lambda: here.sources == ["full"])
                for number in range(3):
                    await here.enqueue("idle")
                    await here.end(number + 1)
                await here.end(0)
                await here.until(lambda: len(here.started) > 4)
            return here.sources

    assert asyncio.run(play()) == ["full", "idle", "idle", "idle", "full"]


def test_a_task_that_comes_when_no_slot_is_free_goes_to_a_worker_that_has_one(
    fleet: Fleet,
) -> None:
    async def play() -> list[str]:
        async with (
            bench(fleet, "one", "two") as busy,
            bench(fleet, "one", "two", slots=2) as free,
        ):
            async with in_background(busy.dispatcher.run()):
                await busy.spread_rumours("one", "two")
                await busy.until(lambda: busy.open_questions == 2)
                await busy.enqueue("one")
                await busy.until(lambda: busy.sources == ["one"])
                async with in_background(free.dispatcher.run()):
                    await busy.enqueue("two")
                    await free.until(lambda: bool(free.started))
            return busy.sources + free.sources

    assert asyncio.run(play()) == ["one", "two"]


def test_a_lane_whose_consumer_is_gone_has_it_made_again(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "one") as here:
            async with in_background(here.dispatcher.run()):
                await here.enqueue("one")
                await here.end(0)
                await here.connection.js.delete_stream(here.connection.tasks_stream)
                await here.enqueue("one")
                await here.end(1)
            return here.sources

    assert asyncio.run(play()) == ["one", "one"]


def test_a_task_that_nothing_tells_of_is_found_by_a_sweep(fleet: Fleet) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "one") as here:
            async with in_background(here.dispatcher.run()):
                await here.enqueue("one")
                await here.until(lambda: bool(here.started))
                here.dispatcher.freed()  # its worker died: the lease is left to run out
                await here.until(lambda: len(here.started) > 1)
            return here.sources

    assert asyncio.run(play()) == ["one", "one"]


def test_what_comes_after_a_worker_was_told_to_stop_is_there_for_another_one(
    fleet: Fleet,
) -> None:
    async def play() -> list[str]:
        async with bench(fleet, "one") as here, bench(fleet, "one") as other:
            async with in_background(here.dispatcher.run()):
                await here.until(lambda: all(lane.made for lane in here.lanes))
                await here.spread_rumours("one")
                await here.until(lambda: bool(here.lanes[0].question))
            here.dispatcher.close()
            await here.enqueue(
                "one"
            )  # which the question that waits at the server is answered with
            await here.dispatcher.leave()
            async with in_background(other.dispatcher.run()):
                await other.until(lambda: bool(other.started))
            return here.sources + other.sources

    assert asyncio.run(play()) == ["one"]


def test_a_consumer_that_cannot_be_made_is_a_warning_while_the_engine_answers(
    nats: Nats, namespace: str
) -> None:
    """A server, an account or a stream may allow fewer consumers than a worker needs."""
    fleet = Fleet(servers=Servers(urls=[nats.url]), namespace=namespace)

    async def play() -> list[str]:
        only_look = connect(fleet.servers, namespace=namespace, name="test", prepares=False)
        async with only_look as connection:
            await connection.js.add_stream(
                name=f"{namespace}_tasks",
                subjects=[f"{namespace}.tasks.*.*.*"],
                retention=RetentionPolicy.WORK_QUEUE,
                max_consumers=1,
            )
        with capture_logs() as lines:
            async with bench(fleet, "hgmo") as it, in_background(it.dispatcher.run()):
                await it.until(lambda: any(line["event"] == "lane.broken" for line in lines))
        return [line["log_level"] for line in lines if line["event"] == "lane.broken"][:1]

    assert asyncio.run(play()) == ["warning"]
