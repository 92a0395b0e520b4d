"""``/archiver/status/{task_id}?wait=`` and ``…/events``, in a world of fakes."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from archiver.errors import WrongRoot
from archiver.model import Archive
from archiver.tasks import Phase, Task
from archiver.telemetry import METRICS
from archiver.testing import FakeAttempt, MemoryEngine
from archiver.web.waiting.waiters import WaitLimits
from tests.memory_world import World
from tests.web.client import CONFIG, DEFAULT, PUBLIC_URL, Client, ClientResponse, client
from tests.web.waiters import built, settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    id: int
    name: str
    data: Any


def events_of(body: bytes) -> list[Event]:
    """Return the events of a stream, as a browser parses them."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in lines:
            found.append(
                Event(id=int(lines["id"]), name=lines["event"], data=json.loads(lines["data"]))
            )
    return found


def status_of(web: Client) -> str:
    return web.get(DEFAULT).headers["location"].removeprefix(PUBLIC_URL)


async def respond_after(
    web: Client, target: str, *then: Callable[[], object], **headers: str
) -> ClientResponse:
    """Request *target*, call each of *then* while it waits, and return the response."""
    async with asyncio.TaskGroup() as group:
        requests = group.create_task(web.request_async(target, headers=headers))
        for act in then:
            await settled()
            assert not requests.done()
            act()
    return requests.result()


def claimed(web: Client) -> FakeAttempt:
    attempt = web.world.engine.claim()
    assert attempt
    return attempt


def test_a_poll_is_answered_at_the_next_change(web: Client) -> None:
    response = web.run(respond_after(web, f"{status_of(web)}?wait=9", lambda: claimed(web)))
    assert response.result["state"] == "STARTED"


def test_a_poll_of_a_task_that_has_ended_is_answered_at_once(web: Client) -> None:
    target = status_of(web)
    web.work()
    result = web.get(f"{target}?wait=9").result
    assert result["state"] == "SUCCESS"
    assert set(result["s3_urls"]) == {"us-east-1", "us-west-2"}


def test_a_poll_without_a_change_ends_in_time() -> None:
    with client(World(), config=replace(CONFIG, wait_limits=WaitLimits(hold_s=0.05))) as web:
        response = web.get(f"{status_of(web)}?wait=9")
    assert response.result["state"] == "PENDING"


def test_a_client_that_sends_its_etag_misses_no_change(web: Client) -> None:
    target = status_of(web)
    known = web.get(target).headers["etag"]
    attempt = claimed(web)
    response = web.get(f"{target}?wait=9", if_none_match=known)
    assert response.result["state"] == "STARTED"
    known = response.headers["etag"]
    response = web.run(
        respond_after(
            web,
            f"{target}?wait=9",
            lambda: attempt.report(Phase.FETCHING, 7),
            if_none_match=known,
        )
    )
    assert response.result["bytes_done"] == 7


def test_a_status_that_the_client_has_is_not_sent_again(web: Client) -> None:
    target = status_of(web)
    known = web.get(target).headers["etag"]
    response = web.get(target, if_none_match=known)
    assert (response.status, response.body, response.headers["etag"]) == (304, b"", known)
    claimed(web)
    assert web.get(target, if_none_match=known).status == 200


@pytest.mark.parametrize(
    "known", ('W/"a", {}', '{},W/"a"', ', "a,b" , {} ,', "{strong}", "*", '"a", {strong}')
)
def test_one_known_etag_of_several_is_enough(web: Client, known: str) -> None:
    target = status_of(web)
    tag = web.get(target).headers["etag"]
    known = known.format(tag, strong=tag.removeprefix("W/"))
    response = web.get(target, if_none_match=known)
    assert (response.status, response.body, response.headers["etag"]) == (304, b"", tag)


@pytest.mark.parametrize("known", ('W/"a", {}', "*", "", " , "))
def test_a_client_with_several_etags_waits_for_a_different_status(web: Client, known: str) -> None:
    target = status_of(web)
    tag = web.get(target).headers["etag"]
    headers = {"if-none-match": known.format(tag)}
    response = web.run(respond_after(web, f"{target}?wait=9", lambda: claimed(web), **headers))
    assert response.status == (304 if known == "*" else 200)


def test_a_client_with_any_etag_gets_304(web: Client) -> None:
    target = status_of(web)
    web.work()
    for each in (target, "/archiver/status/nonsense"):
        assert web.get(each, if_none_match="*").status == 304


def test_a_status_with_urls_is_always_sent_and_has_no_etag(web: Client) -> None:
    target = status_of(web)
    web.work()
    assert "etag" not in web.get(target).headers


def test_many_polls_cost_one_reading_per_change(web: Client) -> None:
    target = status_of(web)

    async def play() -> list[ClientResponse]:
        async with asyncio.TaskGroup() as group:
            requests = [
                group.create_task(web.request_async(f"{target}?wait=9")) for _ in range(100)
            ]
            await settled()
            claimed(web)
        return [task.result() for task in requests]

    assert {response.result["state"] for response in web.run(play())} == {"STARTED"}
    assert web.world.engine.asked == 2


def test_a_poll_without_an_engine_is_a_503_at_once(web: Client) -> None:
    target = status_of(web)
    web.world.engine.down = True
    response = web.get(f"{target}?wait=9")
    assert (response.status, response.code) == (503, "engine_unavailable")


class SilentEngine(MemoryEngine):
    """Accepts tasks, and never returns their state."""

    async def task(self, archive: Archive) -> Task | None:
        await asyncio.Event().wait()
        return await super().task(archive)


def test_a_slow_engine_does_not_prolong_a_poll() -> None:
    patient = replace(CONFIG, wait_limits=WaitLimits(hold_s=3600))
    with client(World(engine=SilentEngine()), config=patient) as web:
        target = status_of(web)
        response = web.run(asyncio.wait_for(web.request_async(f"{target}?wait=1"), 30))
    assert (response.status, response.code) == (503, "engine_unavailable")
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "task_id", ("nonsense", f"hgxx:a:-:{'0' * 40}:-:tar.gz", f"hgmo:a:-:{'0' * 64}:-:tar.gz")
)
def test_an_id_of_no_task_is_not_waited_for(web: Client, task_id: str) -> None:
    target = f"/archiver/status/{task_id}"
    assert web.get(f"{target}?wait=9").result["state"] == "PENDING"
    response = web.get(f"{target}/events")
    assert (response.status, response.code) == (404, "no_such_task")


def test_a_poll_waits_for_seconds(web: Client) -> None:
    response = web.get("/archiver/status/nonsense?wait=long")
    assert (response.status, response.json["parameter"]) == (400, "wait")


def test_a_stream_sends_every_change_and_ends_with_the_task(web: Client) -> None:
    target = f"{status_of(web)}/events"

    async def play() -> ClientResponse:
        async with asyncio.TaskGroup() as group:
            requests = group.create_task(web.request_async(target))
            await settled()
            attempt = claimed(web)
            await settled()
            attempt.report(Phase.FETCHING, 7)
            await settled()
            await web.world.archiver.build(attempt.archive, attempt)
        return requests.result()

    response = web.run(play())
    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    assert response.body.startswith(b"retry: 3000\n\n")
    events = events_of(response.body)
    assert [event.name for event in events] == ["progress"] * (len(events) - 1) + ["done"]
    assert [event.data["result"]["state"] for event in events[:2]] == ["PENDING", "STARTED"]
    assert events[2].data["result"]["bytes_done"] == 7
    ids = [event.id for event in events]
    assert ids == sorted(set(ids))
    result = events[-1].data["result"]
    assert result.keys() == web.get(target.removesuffix("/events")).result.keys()
    sizes = [len(web.world.storage.download(url)) for url in result["s3_urls"].values()]
    assert sizes == [result["size"]] * 2


@pytest.mark.parametrize("slow_at", (b"retry", b"data"))
def test_an_end_during_a_slow_send_is_sent(web: Client, slow_at: bytes) -> None:
    target = f"{status_of(web)}/events"

    async def take(piece: bytes) -> None:
        if slow_at in piece:
            await built(web)
            await settled()

    response = web.run(web.request_async(target, takes=take))
    assert events_of(response.body)[-1].name == "done"


def test_a_failure_is_sent_with_its_reason(web: Client) -> None:
    target = f"{status_of(web)}/events"
    attempt = claimed(web)
    response = web.run(
        respond_after(web, target, lambda: web.world.engine.fail(attempt, WrongRoot("two roots")))
    )
    last = events_of(response.body)[-1]
    assert last.name == "failed"
    assert last.data["result"]["error"] == {"code": "wrong_root", "message": "two roots"}


def test_a_client_that_reconnects_does_not_get_known_events_again(web: Client) -> None:
    target = f"{status_of(web)}/events"

    async def first_event() -> Event:
        leaves, heard = asyncio.Event(), bytearray()

        async def take(piece: bytes) -> None:
            heard.extend(piece)
            if b"data" in piece:
                leaves.set()

        await web.request_async(target, leaves=leaves, takes=take)
        return events_of(bytes(heard))[0]

    known = web.run(first_event())
    attempt = claimed(web)
    web.world.engine.tasks[attempt.archive.key] = replace(
        web.world.engine.tasks[attempt.archive.key],
        updated_at=web.world.engine.tasks[attempt.archive.key].created_at,
    )
    again = web.run(
        respond_after(
            web,
            target,
            lambda: attempt.report(Phase.FETCHING, 7),
            lambda: web.world.engine.fail(attempt, WrongRoot("two roots")),
            last_event_id=str(known.id),
        )
    )
    events = events_of(again.body)
    assert events[0].data["result"]["bytes_done"] == 7
    assert [event.name for event in events] == ["progress", "failed"]
    end = web.get(target, last_event_id=str(events[-1].id))
    assert (end.status, end.body) == (204, b"")


@pytest.mark.parametrize("last", ("", "x", "-1", "9" * 40, "12\n"))
def test_a_malformed_event_id_is_ignored(web: Client, last: str) -> None:
    target = f"{status_of(web)}/events"
    web.work()
    (event,) = events_of(web.get(target, last_event_id=last).body)
    assert event.name == "done"


def test_a_stream_takes_no_parameter_and_has_a_head(web: Client) -> None:
    target = f"{status_of(web)}/events"
    assert web.get(f"{target}?wait=1").json["parameter"] == "wait"
    head = web.head(target)
    assert (head.status, head.body) == (200, b"")


def test_a_stream_without_an_engine_is_a_503(web: Client) -> None:
    target = f"{status_of(web)}/events"
    web.world.engine.down = True
    response = web.get(target)
    assert (response.status, response.code) == (503, "engine_unavailable")


def test_streams_are_limited_per_client_and_in_all() -> None:
    config = replace(CONFIG, wait_limits=WaitLimits(event_streams=3, event_streams_per_client=2))
    with client(World(), config=config) as web:
        target = f"{status_of(web)}/events"

        async def play() -> tuple[list[ClientResponse], float]:
            async with asyncio.TaskGroup() as group:
                requests = [
                    group.create_task(web.request_async(target, client=address))
                    for address in ("192.0.2.1",) * 3 + ("192.0.2.2",) * 2
                ]
                await settled()
                now = METRICS.event_streams._value.get()  # noqa: SLF001
                await built(web)
            return [task.result() for task in requests], now

        responses, now = web.run(play())
        assert [response.status for response in responses] == [200, 200, 503, 200, 503]
        assert now == 3
        assert METRICS.event_streams._value.get() == 0  # noqa: SLF001


def test_a_process_that_stops_ends_all_streams(web: Client) -> None:
    target = status_of(web)

    async def play() -> list[ClientResponse]:
        async with asyncio.TaskGroup() as group:
            requests = [
                group.create_task(web.request_async(path))
                for path in (f"{target}/events", f"{target}?wait=9", f"{DEFAULT}?wait=72")
            ]
            await settled()
            web.state.waiters.close()
        return [task.result() for task in requests]

    stream, polled, waited = web.run(play())
    assert [event.name for event in events_of(stream.body)] == ["progress"]
    assert polled.result["state"] == "PENDING"
    assert waited.headers["location"].endswith("wait=72&hop=1")  # the hold was short
