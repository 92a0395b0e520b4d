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
from archiver.web.waiting.admission import WaitLimits
from tests.web.client import CONFIG, PUBLIC_URL, Answer, Client, client
from tests.web.waiters import built, settled
from tests.world import ASH, World

DEFAULT = f"/archiver/hgmo/{ASH}/default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    id: int
    name: str
    data: Any


def events_of(body: bytes) -> list[Event]:
    """Return what a browser would make of a stream."""
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


async def told(web: Client, target: str, *then: Callable[[], object], **headers: str) -> Answer:
    """Ask, do one thing after the other meanwhile, and return the answer."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(web.asking(target, headers=headers))
        for act in then:
            await settled()
            assert not asking.done()
            act()
    return asking.result()


def claimed(web: Client) -> FakeAttempt:
    attempt = web.world.engine.claim()
    assert attempt
    return attempt


def test_a_poll_is_answered_at_the_next_change(web: Client) -> None:
    answer = web.run(told(web, f"{status_of(web)}?wait=9", lambda: claimed(web)))
    assert answer.result["state"] == "STARTED"


def test_a_poll_of_what_has_ended_is_answered_at_once(web: Client) -> None:
    target = status_of(web)
    web.work()
    result = web.get(f"{target}?wait=9").result
    assert result["state"] == "SUCCESS"
    assert set(result["s3_urls"]) == {"us-east-1", "us-west-2"}


def test_a_poll_in_which_nothing_happens_ends_all_the_same() -> None:
    with client(World(), config=replace(CONFIG, wait_limits=WaitLimits(hold_s=0.05))) as web:
        answer = web.get(f"{status_of(web)}?wait=9")
    assert answer.result["state"] == "PENDING"


def test_a_client_that_says_what_it_knows_misses_no_change(web: Client) -> None:
    target = status_of(web)
    known = web.get(target).headers["etag"]
    attempt = claimed(web)
    answer = web.get(f"{target}?wait=9", if_none_match=known)
    assert answer.result["state"] == "STARTED"
    known = answer.headers["etag"]
    answer = web.run(
        told(
            web,
            f"{target}?wait=9",
            lambda: attempt.report(Phase.FETCHING, 7),
            if_none_match=known,
        )
    )
    assert answer.result["bytes_done"] == 7


def test_a_status_that_the_client_has_is_not_sent_again(web: Client) -> None:
    target = status_of(web)
    known = web.get(target).headers["etag"]
    answer = web.get(target, if_none_match=known)
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", known)
    claimed(web)
    assert web.get(target, if_none_match=known).status == 200


@pytest.mark.parametrize(
    "known", ('W/"a", {}', '{},W/"a"', ', "a,b" , {} ,', "{strong}", "*", '"a", {strong}')
)
def test_one_of_several_tags_that_the_client_has_will_do(web: Client, known: str) -> None:
    target = status_of(web)
    tag = web.get(target).headers["etag"]
    known = known.format(tag, strong=tag.removeprefix("W/"))
    answer = web.get(target, if_none_match=known)
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)


@pytest.mark.parametrize("known", ('W/"a", {}', "*", "", " , "))
def test_who_has_a_status_by_one_of_several_tags_waits_for_another_one(
    web: Client, known: str
) -> None:
    target = status_of(web)
    tag = web.get(target).headers["etag"]
    headers = {"if-none-match": known.format(tag)}
    answer = web.run(told(web, f"{target}?wait=9", lambda: claimed(web), **headers))
    assert answer.status == (304 if known == "*" else 200)


def test_who_has_whatever_there_is_is_sent_nothing(web: Client) -> None:
    target = status_of(web)
    web.work()
    for each in (target, "/archiver/status/nonsense"):
        assert web.get(each, if_none_match="*").status == 304


def test_a_status_with_links_is_always_sent_and_has_no_tag(web: Client) -> None:
    target = status_of(web)
    web.work()
    assert "etag" not in web.get(target).headers


def test_many_who_poll_cost_one_look_per_change(web: Client) -> None:
    target = status_of(web)

    async def play() -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(web.asking(f"{target}?wait=9")) for _ in range(100)]
            await settled()
            claimed(web)
        return [task.result() for task in asking]

    assert {answer.result["state"] for answer in web.run(play())} == {"STARTED"}
    assert web.world.engine.asked == 2


def test_a_poll_without_an_engine_says_so_at_once(web: Client) -> None:
    target = status_of(web)
    web.world.engine.down = True
    answer = web.get(f"{target}?wait=9")
    assert (answer.status, answer.code) == (503, "engine_unavailable")


class SilentEngine(MemoryEngine):
    """Takes tasks, and never says how far they are."""

    async def task(self, archive: Archive) -> Task | None:
        await asyncio.Event().wait()
        return await super().task(archive)


def test_a_poll_is_held_no_longer_than_it_asks_for_although_the_engine_takes_long() -> None:
    patient = replace(CONFIG, wait_limits=WaitLimits(hold_s=3600))
    with client(World(engine=SilentEngine()), config=patient) as web:
        target = status_of(web)
        answer = web.run(asyncio.wait_for(web.asking(f"{target}?wait=1"), 30))
    assert (answer.status, answer.code) == (503, "engine_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("task_id", ("nonsense", f"hgxx:a:-:{'0' * 40}:-:tar.gz"))
def test_an_id_of_no_task_is_not_waited_for(web: Client, task_id: str) -> None:
    target = f"/archiver/status/{task_id}"
    assert web.get(f"{target}?wait=9").result["state"] == "PENDING"
    answer = web.get(f"{target}/events")
    assert (answer.status, answer.code) == (404, "no_such_task")


def test_a_poll_waits_for_seconds(web: Client) -> None:
    answer = web.get("/archiver/status/nonsense?wait=long")
    assert (answer.status, answer.json["parameter"]) == (400, "wait")


def test_a_stream_tells_all_that_happens_and_ends_with_the_task(web: Client) -> None:
    target = f"{status_of(web)}/events"

    async def play() -> Answer:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(web.asking(target))
            await settled()
            attempt = claimed(web)
            await settled()
            attempt.report(Phase.FETCHING, 7)
            await settled()
            await web.world.archiver.build(attempt.archive, attempt)
        return asking.result()

    answer = web.run(play())
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    assert answer.body.startswith(b"retry: 3000\n\n")
    events = events_of(answer.body)
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
def test_an_end_that_comes_while_a_slow_client_takes_a_piece_is_told(
    web: Client, slow_at: bytes
) -> None:
    target = f"{status_of(web)}/events"

    async def take(piece: bytes) -> None:
        if slow_at in piece:
            await built(web)
            await settled()

    answer = web.run(web.asking(target, takes=take))
    assert events_of(answer.body)[-1].name == "done"


def test_a_failure_is_told_with_its_reason(web: Client) -> None:
    target = f"{status_of(web)}/events"
    attempt = claimed(web)
    answer = web.run(
        told(web, target, lambda: web.world.engine.fail(attempt, WrongRoot("two roots")))
    )
    last = events_of(answer.body)[-1]
    assert last.name == "failed"
    assert last.data["result"]["error"] == {"code": "wrong_root", "message": "two roots"}


def test_who_comes_back_is_not_told_again_what_it_knows(web: Client) -> None:
    target = f"{status_of(web)}/events"

    async def first_event() -> Event:
        leaves, heard = asyncio.Event(), bytearray()

        async def take(piece: bytes) -> None:
            heard.extend(piece)
            if b"data" in piece:
                leaves.set()

        await web.asking(target, leaves=leaves, takes=take)
        return events_of(bytes(heard))[0]

    known = web.run(first_event())
    attempt = claimed(web)
    web.world.engine.tasks[attempt.archive.key] = replace(
        web.world.engine.tasks[attempt.archive.key],
        updated_at=web.world.engine.tasks[attempt.archive.key].created_at,
    )
    again = web.run(
        told(
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
def test_an_id_that_is_none_of_ours_is_no_id(web: Client, last: str) -> None:
    target = f"{status_of(web)}/events"
    web.work()
    (event,) = events_of(web.get(target, last_event_id=last).body)
    assert event.name == "done"


def test_a_stream_takes_no_parameter_and_has_a_head(web: Client) -> None:
    target = f"{status_of(web)}/events"
    assert web.get(f"{target}?wait=1").json["parameter"] == "wait"
    head = web.head(target)
    assert (head.status, head.body) == (200, b"")


def test_a_stream_of_what_nobody_can_tell_is_a_503(web: Client) -> None:
    target = f"{status_of(web)}/events"
    web.world.engine.down = True
    answer = web.get(target)
    assert (answer.status, answer.code) == (503, "engine_unavailable")


def test_streams_are_counted_for_all_and_for_each_client() -> None:
    config = replace(CONFIG, wait_limits=WaitLimits(event_streams=3, event_streams_per_client=2))
    with client(World(), config=config) as web:
        target = f"{status_of(web)}/events"

        async def play() -> tuple[list[Answer], float]:
            async with asyncio.TaskGroup() as group:
                asking = [
                    group.create_task(web.asking(target, client=address))
                    for address in ("192.0.2.1",) * 3 + ("192.0.2.2",) * 2
                ]
                await settled()
                now = METRICS.event_streams._value.get()  # noqa: SLF001
                await built(web)
            return [task.result() for task in asking], now

        answers, now = web.run(play())
        assert [answer.status for answer in answers] == [200, 200, 503, 200, 503]
        assert now == 3
        assert METRICS.event_streams._value.get() == 0  # noqa: SLF001


def test_a_process_that_ends_lets_everyone_go(web: Client) -> None:
    target = status_of(web)

    async def play() -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            asking = [
                group.create_task(web.asking(asked))
                for asked in (f"{target}/events", f"{target}?wait=9", f"{DEFAULT}?wait=72")
            ]
            await settled()
            web.state.waiters.close()
        return [task.result() for task in asking]

    stream, polled, waited = web.run(play())
    assert [event.name for event in events_of(stream.body)] == ["progress"]
    assert polled.result["state"] == "PENDING"
    assert waited.headers["location"].endswith("wait=72&hop=1")  # it was not held for long
