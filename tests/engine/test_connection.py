"""Calls of a connection end when they are told to, on a real server."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from archiver.engine.buckets import INDEX
from archiver.engine.connection import Connection
from tests.engine.conftest import Fleet

TURNS = 6
"""So many at most does the loop take from the arrival of an answer to whoever waits for it."""

Call = Callable[[Connection], Coroutine[Any, Any, object]]


@pytest.mark.parametrize(
    "call",
    (
        lambda connection: connection.put(INDEX, "key", b"value"),
        lambda connection: connection.get(INDEX, "key"),
        lambda connection: connection.consumer("no_such_stream", "name"),
    ),
    ids=("one that returns nothing", "one that returns something", "one that fails"),
)
def test_a_call_that_is_cancelled_as_its_answer_comes_is_cancelled(
    fleet: Fleet, call: Call
) -> None:
    async def cancel(connection: Connection, turns: int) -> bool:
        """Return whether a call was cancelled, *turns* after there was an answer, or had ended."""
        calling = asyncio.create_task(call(connection))
        received = connection._link.client.stats  # noqa: SLF001 - when there is an answer
        before = received["in_msgs"]
        while received["in_msgs"] == before:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        told = calling.cancel()
        await asyncio.wait({calling})
        return calling.cancelled() or not told

    async def play() -> None:
        async with fleet.connection() as connection, asyncio.timeout(10):
            await connection.put(INDEX, "key", b"value")
            assert all([await cancel(connection, turns) for turns in range(TURNS)])

    asyncio.run(play())
