"""How many small archives does a worker build per second? From 1, 10 and 100 sources."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.link import Servers
from archiver.jetstream.task_queue import JetStreamTaskQueue
from archiver.model import Archive, Node
from archiver.tasks import TaskState
from archiver.wiring.adapters import NAMESPACE
from benchmarks.inputs import NODE, Input
from benchmarks.lab import TIMEOUT_S, Host, Lab, new_repo
from benchmarks.race import Row, Table, race
from tests.system.stack import Stack

ARCHIVES, QUICK_ARCHIVES = 200, 10
"""Archives per round: five rounds build 1,000."""

ENQUEUED_AT_A_TIME = 32
POLL_S = 0.02

COUNTS = (1, 10, 100)
ONE, *_ = NAMES = tuple(f"{count} source{'s' if count > 1 else ''}" for count in COUNTS)
GOAL = "≥ 0.9"


def measure(lab: Lab) -> list[Table]:
    tiny = lab.inputs.get("tiny")
    archives = QUICK_ARCHIVES if lab.inputs.quick else ARCHIVES
    with ExitStack() as stack:
        host = stack.enter_context(lab.host(tiny))
        regions = stack.enter_context(lab.faraway())
        contestants: dict[str, Callable[[], float]] = {}
        for name, count in zip(NAMES, COUNTS, strict=True):
            sources = [f"source{number}" for number in range(count)]
            parts = stack.enter_context(_worker(lab, host, regions, sources))
            contestants[name] = partial(_rate, parts, tiny, sources, archives)
            contestants[name]()  # until the worker has created its consumers
        rates = race(contestants, rounds=lab.rounds, unit="/s")
    goals = {NAMES[-1]: GOAL}
    rows = [Row(what=what, samples=s, goal=goals.get(what, "")) for what, s in rates.items()]
    return [Table(title="builds per second", unit="/s", rows=rows, base=ONE)]


@contextmanager
def _worker(
    lab: Lab, host: Host, regions: Mapping[str, str], sources: list[str]
) -> Iterator[Stack]:
    """Yield an installation with a worker for *sources*, which is idle while others run."""
    configured = {name: {"url_template": host.template} for name in sources}
    settings = {**regions, "ARCHIVER_SOURCES": json.dumps(configured)}
    with lab.servers(host, settings) as parts, parts.worker():
        yield parts


def _rate(parts: Stack, archive: Input, sources: list[str], count: int) -> float:
    """Return archives per second, from the first task to the end of the last."""
    wanted = [
        Archive(source=source, repo=new_repo(archive), node=Node(NODE), subdir="", suffix="tar.gz")
        for source in itertools.islice(itertools.cycle(sources), count)
    ]
    return count / asyncio.run(_build(parts, wanted))


async def _build(parts: Stack, archives: list[Archive]) -> float:
    """Create tasks with the engine's own code, and return the seconds until the queue is empty.

    Raises:
        RuntimeError: A task failed, which also removes it from the queue.
    """
    async with _connection(parts) as connection, asyncio.timeout(TIMEOUT_S):
        engine, left = JetStreamTaskQueue(connection=connection), iter(archives)

        async def enqueue() -> None:
            for archive in left:
                await engine.enqueue(archive)

        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(ENQUEUED_AT_A_TIME):
                group.create_task(enqueue())
        while await _waiting(connection):  # noqa: ASYNC110 - it is NATS that knows
            await asyncio.sleep(POLL_S)
        duration_s = time.monotonic() - started
        await _require_success(engine, archives)
        return duration_s


async def _require_success(engine: JetStreamTaskQueue, archives: list[Archive]) -> None:
    for archive in archives:
        task = await engine.task(archive)
        if task is None or task.state is not TaskState.SUCCESS:
            raise RuntimeError(f"{archive.key} was not built: {task}")


async def _waiting(connection: Connection) -> bool:
    with suppress(EngineUnavailable):  # on a busy machine, the server may take its time
        return await connection.tasks.count() > 0
    return True


@asynccontextmanager
async def _connection(parts: Stack) -> AsyncIterator[Connection]:
    servers = Servers(urls=(f"nats://127.0.0.1:{parts.nats.port}",))
    async with connect(servers, namespace=NAMESPACE, name="throughput") as connection:
        async with asyncio.timeout(60):
            await connection.prepared.wait()
        yield connection
