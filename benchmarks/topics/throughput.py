"""How many small archives does a worker build a second? Of 1, 10 and 100 sources."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

from archiver.engine.connection import Connection, connect
from archiver.engine.jetstream import JetStream
from archiver.engine.link import Servers
from archiver.errors import EngineUnavailable
from archiver.model import Archive, Node
from archiver.wiring import NAMESPACE
from benchmarks.inputs import NODE
from benchmarks.lab import TIMEOUT_S, Host, Lab, new_repo
from benchmarks.race import Row, Table, race
from tests.system.stack import Stack

ARCHIVES, QUICK_ARCHIVES = 1000, 30
WARM_UP = 0.1
"""The share of the archives during which a new worker makes its consumers."""

ENQUEUED_AT_A_TIME = 32
POLL_S = 0.05

COUNTS = (1, 10, 100)
ONE, *_ = NAMES = tuple(f"{count} source{'s' if count > 1 else ''}" for count in COUNTS)
GOAL = "≥ 0.9"


def measure(lab: Lab) -> list[Table]:
    archives = QUICK_ARCHIVES if lab.inputs.quick else ARCHIVES
    with lab.host(lab.inputs.get("tiny")) as host, lab.faraway() as regions:
        contestants = {
            name: partial(_build, lab, host, regions, count=count, archives=archives)
            for name, count in zip(NAMES, COUNTS, strict=True)
        }
        rates = race(contestants, rounds=lab.rounds, unit="/s")
    goals = {NAMES[-1]: GOAL}
    rows = [Row(what=what, samples=s, goal=goals.get(what, "")) for what, s in rates.items()]
    return [Table(title="builds a second", unit="/s", rows=rows, base=ONE)]


def _build(lab: Lab, host: Host, regions: Mapping[str, str], *, count: int, archives: int) -> float:
    """Return how many archives of *count* sources a worker builds a second, once it is at it."""
    sources = [f"source{number}" for number in range(count)]
    configured = {name: {"url_template": host.template} for name in sources}
    settings = {**regions, "ARCHIVER_SOURCES": json.dumps(configured)}
    wanted = list(_archives(lab, sources, archives))
    with lab.servers(host, settings) as stack:
        asyncio.run(_enqueue(stack, wanted))
        with stack.worker():
            return asyncio.run(_rate(stack, archives))


def _archives(lab: Lab, sources: list[str], count: int) -> Iterator[Archive]:
    tiny = lab.inputs.get("tiny")
    for source in itertools.islice(itertools.cycle(sources), count):
        repo = new_repo(tiny)
        yield Archive(source=source, repo=repo, node=Node(NODE), subdir="", suffix="tar.gz")


@asynccontextmanager
async def _connection(stack: Stack) -> AsyncIterator[Connection]:
    servers = Servers(urls=(f"nats://127.0.0.1:{stack.nats.port}",))
    async with connect(servers, namespace=NAMESPACE, name="throughput") as connection:
        await connection.wait(timedelta(seconds=10))
        yield connection


async def _enqueue(stack: Stack, archives: list[Archive]) -> None:
    """Create the tasks with the engine's own code, so that no web process is measured."""
    left = iter(archives)
    async with _connection(stack) as connection, asyncio.TaskGroup() as group:
        engine = JetStream(connection=connection)

        async def enqueue() -> None:
            for archive in left:
                await engine.enqueue(archive)

        for _ in range(ENQUEUED_AT_A_TIME):
            group.create_task(enqueue())


async def _rate(stack: Stack, archives: int) -> float:
    """Return the rate at which tasks leave the queue, from the end of the warm-up to the last."""
    warm = archives - round(archives * WARM_UP)
    async with _connection(stack) as connection, asyncio.timeout(TIMEOUT_S):
        left = await _until(connection, warm)
        started = time.monotonic()
        await _until(connection, 0)
        return left / (time.monotonic() - started)


async def _until(connection: Connection, most: int) -> int:
    """Return how many tasks are left as soon as they are at *most* so many."""
    while True:
        with suppress(EngineUnavailable):  # on a busy machine, the server may take its time
            if (left := await connection.count(connection.tasks_stream)) <= most:
                return left
        await asyncio.sleep(POLL_S)
