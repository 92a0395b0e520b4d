"""Direct gets of many keys at once, from a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import nats as nats_py
import nats.errors as nats_errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.direct_get import DirectGet
from archiver.jetstream.streams import INDEX
from tests.parts.fleet import Fleet, delete
from tests.parts.nats import Nats, settled


@dataclass(slots=True)
class Witness:
    """Receives the requests of every client to one stream."""

    stream: str
    questions: list[str] = field(default_factory=list)

    async def hear(self, message: Msg) -> None:
        self.questions.append(message.subject)


@asynccontextmanager
async def client_of(server: Nats) -> AsyncIterator[Client]:
    client = await nats_py.connect(server.url)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def watched(server: Nats, stream: str) -> AsyncIterator[Witness]:
    witness = Witness(stream)
    async with client_of(server) as client:
        await client.subscribe(f"$JS.API.DIRECT.GET.{stream}.>", cb=witness.hear)
        await settled(client)
        yield witness


async def values(connection: Connection, *keys: str) -> list[bytes | None]:
    entries = await asyncio.gather(*(connection.kv.get(INDEX, key) for key in keys))
    return [entry.value if entry else None for entry in entries]


async def listen(client: Client, lookups: DirectGet) -> None:
    subject, receive = lookups.answers
    await client.subscribe(subject, cb=receive)


def test_each_key_is_requested_once_per_turn(fleet: Fleet, nats: Nats) -> None:
    async def play() -> None:
        stream = f"KV_{fleet.namespace}_{INDEX}"
        async with fleet.connection() as connection, watched(nats, stream) as witness:
            for key in ("a", "b", "gone"):
                await connection.kv.put(INDEX, key, key.encode())
            await delete(connection, INDEX, "gone")
            asked = ("a", "b", "gone", "never", "a")
            assert await values(connection, *asked) == [b"a", b"b", None, None, b"a"]
            assert await values(connection, "a") == [b"a"]
        keys = [question.rpartition(".")[2] for question in witness.questions]
        assert sorted(keys) == ["a", "a", "b", "gone", "never"]

    asyncio.run(play())


def test_a_thousand_answers_reach_their_callers(fleet: Fleet) -> None:
    keys = [f"key{number}" for number in range(1000)]

    async def play() -> None:
        async with fleet.connection() as connection:
            for some in (
                keys[at : at + 50] for at in range(0, len(keys), 50)
            ):  # a disk may be slow
                await asyncio.gather(*(connection.kv.put(INDEX, key, key.encode()) for key in some))
            assert await values(connection, *keys) == [key.encode() for key in keys]

    asyncio.run(play())


def test_a_first_caller_that_is_cancelled_does_not_delay_the_others(fleet: Fleet) -> None:
    async def play() -> None:
        async with fleet.connection() as connection:
            await connection.kv.put(INDEX, "a", b"a")
            first = asyncio.create_task(connection.kv.get(INDEX, "a"))
            second = asyncio.create_task(connection.kv.get(INDEX, "a"))
            await asyncio.sleep(0)
            first.cancel()
            entry = await second
            assert entry
            assert entry.value == b"a"
            assert first.cancelled()
            assert await values(connection, "a", "b") == [b"a", None]

    asyncio.run(play())


@pytest.mark.parametrize("pause_s", (0, 0.1))
def test_closing_fails_the_waiting_gets(nats: Nats, namespace: str, pause_s: float) -> None:
    async def play() -> None:
        async with client_of(nats) as client, client_of(nats) as mute:
            await mute.subscribe(f"$JS.API.DIRECT.GET.{namespace}.*")
            await settled(mute)
            lookups = DirectGet(timeout=timedelta(seconds=30))
            await listen(client, lookups)
            asking = [
                asyncio.create_task(lookups.get(client, namespace, key)) for key in ("a", "b")
            ]
            await asyncio.sleep(pause_s)
            await lookups.close()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {EngineUnavailable}

    asyncio.run(play())


def test_gets_of_one_batch_share_the_timeout(nats: Nats, namespace: str) -> None:
    async def play() -> None:
        async with client_of(nats) as client, client_of(nats) as mute:
            await mute.subscribe(f"$JS.API.DIRECT.GET.{namespace}.*")
            await settled(mute)
            lookups = DirectGet(timeout=timedelta(seconds=0.2))
            await listen(client, lookups)
            outcomes = await asyncio.gather(
                *(lookups.get(client, namespace, key) for key in ("a", "b", "c")),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} == {TimeoutError}

    asyncio.run(play())


def test_a_missing_stream_has_no_responders(nats: Nats, namespace: str) -> None:
    async def play() -> None:
        async with client_of(nats) as client:
            lookups = DirectGet(timeout=timedelta(seconds=3))
            await listen(client, lookups)
            outcomes = await asyncio.gather(
                *(lookups.get(client, namespace, key) for key in ("a", "b")),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} == {nats_errors.NoRespondersError}

    asyncio.run(play())
