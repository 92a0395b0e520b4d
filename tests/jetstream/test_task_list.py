"""A long queue on a real server is counted and listed in little memory."""

import asyncio
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from archiver.jetstream.connection import Connection
from archiver.jetstream.records import Order, encode
from archiver.jetstream.task_list import JetStreamTaskList
from archiver.jetstream.task_subject import client_token
from archiver.jetstream.translation import WrongRevision
from archiver.model import Archive
from archiver.tasks import Priority, TaskState
from archiver.upkeep.census import Census, Overview, Wanted
from tests.jetstream.test_lanes import publish_without_client
from tests.parts.fleet import HUNG_AFTER_S, Fleet, an_archive

LONG = 20_000
PORTION = 500
MEMORY_MAX = 32_000_000


async def publish(connection: Connection, archive: Archive, client: str) -> None:
    tasks = connection.tasks
    token = client_token(client)
    order = Order(key=archive.key, created_at=datetime.now(UTC), client=client)
    subject = tasks.subject(Priority.MIDDLE, archive.source, token, archive.key_hash)
    with suppress(WrongRevision):  # a second try, after the first has stored it
        await tasks.publish_new(subject, encode(order))


@pytest.mark.thorough
def test_a_long_queue_takes_little_memory(fleet: Fleet) -> None:
    async def play() -> Overview:
        async with fleet.connection() as connection, asyncio.timeout(HUNG_AFTER_S):
            archives = [an_archive() for _ in range(LONG)]
            for first in range(0, LONG, PORTION):
                portion = archives[first : first + PORTION]
                await asyncio.gather(*(publish(connection, each, "flood") for each in portion))
            first_of_all = archives[0]
            del archives
            tracemalloc.start()
            census = Census(tasks=JetStreamTaskList(connection=connection))
            overview = await census.take(Wanted(limit=10))
            assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX
            tracemalloc.stop()
            assert overview.tasks[0].task.archive == first_of_all
        return overview

    overview = asyncio.run(play())
    assert overview.counts == {(TaskState.PENDING, "hgmo"): LONG}
    assert overview.clients == {"flood": LONG}
    assert len(overview.tasks) == 10


def test_a_message_of_an_earlier_version_is_counted_and_listed(fleet: Fleet) -> None:
    async def play() -> Overview:
        async with fleet.connection() as connection, asyncio.timeout(HUNG_AFTER_S):
            await publish_without_client(connection, an_archive())
            return await Census(tasks=JetStreamTaskList(connection=connection)).take(
                Wanted(limit=1, source="hgmo")
            )

    overview = asyncio.run(play())
    assert overview.counts == {(TaskState.PENDING, "hgmo"): 1}
    assert [listed.client for listed in overview.tasks] == [""]
