"""A connection ensures its streams, and its calls can be cancelled, on real servers."""

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from archiver.jetstream.connection import Connection, connect
from archiver.jetstream.link import Servers
from archiver.jetstream.streams import INDEX
from tests.parts.fleet import Fleet
from tests.parts.nats import Nats
from tests.parts.secured_nats import secured

TURNS = 6
"""The loop takes at most so many turns from the arrival of an answer to its waiter."""

Call = Callable[[Connection], Coroutine[Any, Any, object]]


@pytest.mark.parametrize(
    "call",
    (
        lambda connection: connection.kv.put(INDEX, "key", b"value"),
        lambda connection: connection.kv.get(INDEX, "key"),
        lambda connection: connection.streams.last("no_such_stream", "name"),
    ),
    ids=("one that returns nothing", "one that returns something", "one that fails"),
)
def test_a_call_that_is_cancelled_as_its_answer_comes_is_cancelled(
    fleet: Fleet, call: Call
) -> None:
    async def cancel(connection: Connection, turns: int) -> bool:
        """Return whether a call was cancelled, *turns* after its answer arrived, or had ended."""
        calling = asyncio.create_task(call(connection))
        received = connection.link.client.stats
        before = received["in_msgs"]
        while received["in_msgs"] == before:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        running = calling.cancel()
        await asyncio.wait({calling})
        return calling.cancelled() or not running

    async def play() -> None:
        async with fleet.connection() as connection, asyncio.timeout(10):
            await connection.kv.put(INDEX, "key", b"value")
            assert all([await cancel(connection, turns) for turns in range(TURNS)])

    asyncio.run(play())


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():
            await asyncio.sleep(0.02)


def reasons(lines: list[MutableMapping[str, Any]]) -> list[str]:
    return [line["reason"] for line in lines if "reason" in line]


def test_an_unexpected_answer_does_not_end_a_connection(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(message: Msg) -> None:
        asked.append(message.subject)
        await message.respond(b"not JSON")

    async def play(url: str) -> bool:
        async with await nats.connect(url) as impostor:
            await impostor.subscribe("$JS.API.STREAM.INFO.*", cb=answer)
            await impostor.flush()
            async with connect(Servers(urls=[url]), namespace="odd", name="test") as connection:
                await until(lambda: len(asked) > 1)
                return connection.link.is_up

    with secured(tmp_path, "") as (port, _):
        assert asyncio.run(play(f"nats://127.0.0.1:{port}"))


def test_a_fault_that_returns_after_its_end_is_reported_again(nats: Nats, namespace: str) -> None:
    fleet = Fleet(servers=Servers(urls=[nats.url]), namespace=namespace)
    demanding = replace(
        fleet.servers, replicas=3
    )  # on a single server, which cannot create such streams

    async def play() -> list[str]:
        with capture_logs() as lines:
            async with connect(demanding, namespace=namespace, name="test") as connection:
                await until(lambda: reasons(lines) == ["too_few_servers"])
                await fleet.prepare()
                async with asyncio.timeout(30):
                    await connection.prepared.wait()
                await connection.link.js.delete_stream(connection.tasks.name)
                connection.link.gaps.notify()
                await until(lambda: len(reasons(lines)) > 1)
        return reasons(lines)

    assert asyncio.run(play()) == ["too_few_servers"] * 2


@pytest.mark.thorough
def test_a_task_is_stored_in_a_new_queue_although_a_worker_listens(fleet: Fleet) -> None:
    another = replace(fleet, namespace=f"{fleet.namespace}_another")
    only_one = {"Nats-Expected-Last-Subject-Sequence": "0"}

    async def store(fleet: Fleet, *, worker_makes_it: bool) -> int:
        async with fleet.connection() as connection, fleet.connection() as worker:

            async def hear(_message: Msg) -> None:
                if worker_makes_it:
                    await worker.streams.ensure()

            subject = connection.tasks.subject("hi", "hgmo", "-", "digest")
            await worker.link.subscriptions.subscribe(subject, hear)
            await connection.link.js.delete_stream(connection.tasks.name)
            return await connection.streams.publish(subject, b"", only_one)

    async def play() -> list[int]:
        places = await asyncio.gather(
            store(fleet, worker_makes_it=False), store(another, worker_makes_it=True)
        )
        return list(places)

    assert asyncio.run(play()) == [1, 1]
