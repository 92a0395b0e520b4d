"""``wait``, ``Prefer`` and ``hop``, in a world of fakes."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from structlog.testing import capture_logs

from archiver.errors import ArchiverError, SourceTimeout, SourceUnavailable, WrongRoot
from archiver.model import Node, Region
from archiver.settings import ServerSettings
from archiver.telemetry import METRICS
from archiver.testing import FakeSource
from archiver.web.files import DEFAULT_WAIT_S
from archiver.web.headers import HEADER_MAX_BYTES
from archiver.web.seats import Holding
from archiver.web.waiting import HOLDS_MAX
from tests.web.client import PUBLIC_URL, SITE, Answer, Client, client
from tests.web.waiters import DEFAULT, PATIENT, built, crowd, settled
from tests.world import World


def query_of(answer: Answer) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def test_whoever_waits_is_sent_to_the_archive_when_it_is_there(web: Client) -> None:
    (answer,) = crowd(web, [PATIENT])
    assert answer.status == 302
    assert len(web.world.storage.download(answer.headers["location"])) == int(
        answer.headers["archiver-size"]
    )
    assert answer.headers["archiver-cache"] == "hit"
    assert 'rel="canonical"' in answer.headers["link"]


def test_a_crowd_that_waits_costs_one_task_and_is_sent_to_where_each_prefers(web: Client) -> None:
    answers = crowd(web, [PATIENT, f"{PATIENT}&preferred_region=us-west-2"] * 50)
    assert [answer.status for answer in answers] == [302] * 100
    regions = [answer.headers["archiver-region"] for answer in answers]
    assert regions == ["us-east-1", "us-west-2"] * 50
    assert len(web.world.engine.tasks) == 1


def test_a_hit_waits_for_nobody(web: Client) -> None:
    web.get(DEFAULT)
    web.work()
    answer = web.get(f"{DEFAULT}?wait=72&hop=8")
    assert (answer.status, answer.headers["archiver-cache"]) == (302, "hit")


def test_after_a_while_the_client_is_sent_to_the_same_place_again(hasty: Client) -> None:
    target = f"{DEFAULT}?&subdir=testing/mozharness&wait=5&preferred_region=us-west-2"
    answer = hasty.get(target, host="evil.example")
    assert answer.status == 302
    assert answer.headers["location"] == (
        f"{PUBLIC_URL}{DEFAULT}?subdir=testing/mozharness&preferred_region=us-west-2&wait=1&hop=1"
    )
    assert answer.headers["cache-control"] == "no-store"
    assert "archiver-sha256" not in answer.headers
    assert len(hasty.world.engine.tasks) == 1


def test_what_is_left_of_the_wait_goes_down_with_each_hold() -> None:
    site = replace(SITE, holding=Holding(hold_s=1))
    with client(World(), site=site) as web:
        answer = web.get(f"{DEFAULT}?wait=5&hop=2")
    assert query_of(answer) == {"wait": "4", "hop": "3"}


def test_what_a_slow_host_took_is_no_more_held() -> None:
    """A client that hangs up after 15 s counts the questions that were asked for it, too."""

    class SlowSource(FakeSource):
        async def resolve(self, repo: str, rev: str) -> Node:
            await asyncio.sleep(0.2)
            return await super().resolve(repo, rev)

    site = replace(SITE, holding=Holding(hold_s=0.1, waiters=0))  # so that nobody can be held
    with client(World(source=SlowSource()), site=site) as web:
        answer = web.get(PATIENT)
    assert answer.status == 302
    assert query_of(answer)["hop"] == "1"


def test_odd_names_come_back_as_they_were(hasty: Client) -> None:
    hasty.world.source.commit("a é+b", {"x y/z": b""}, "v-1+2é")
    answer = hasty.get("/archiver/hgmo/a%20%C3%A9+b/v-1%2B2%C3%A9?subdir=x+y&wait=5")
    again = hasty.get(answer.headers["location"].removeprefix(PUBLIC_URL))
    assert (answer.status, again.status) == (302, 302), answer.body
    assert query_of(again)["hop"] == "2"
    assert len(hasty.world.engine.tasks) == 1


def test_nine_holds_are_the_end_and_the_task_goes_on(hasty: Client) -> None:
    target, seen = f"{DEFAULT}?wait=80", []
    while (answer := hasty.get(target)).status == 302:
        target = answer.headers["location"].removeprefix(PUBLIC_URL)
        seen.append(target)
    assert len(set(seen)) == 8
    assert (answer.status, answer.code) == (503, "not_ready_yet")
    assert int(answer.headers["retry-after"]) >= 1
    assert [task.state.value for task in hasty.world.engine.tasks.values()] == ["PENDING"]


def test_the_defaults_suit_clients_with_a_timeout_of_10_s_and_those_that_follow_9_redirects() -> (
    None
):
    """The last of the redirects leads to S3."""
    assert Holding().hold_s == ServerSettings().hold_s <= 8
    assert HOLDS_MAX <= 9
    assert HOLDS_MAX * Holding().hold_s == DEFAULT_WAIT_S


def test_the_time_is_over_when_it_is() -> None:
    site = replace(SITE, holding=Holding(hold_s=2))
    with client(World(), site=site) as web:
        answer = web.get(f"{DEFAULT}?wait=1")
    assert (answer.status, answer.code) == (503, "not_ready_yet")


def test_no_wait_at_all_is_a_503_and_not_a_202(web: Client) -> None:
    answer = web.get(f"{DEFAULT}?wait=0")
    assert (answer.status, answer.code) == (503, "not_ready_yet")
    assert len(web.world.engine.tasks) == 1


@pytest.mark.parametrize(
    ("query", "parameter"),
    (
        ("wait=", "wait"),
        ("wait=soon", "wait"),
        ("wait=-1", "wait"),
        ("wait=1.5", "wait"),
        ("wait=%D9%A3", "wait"),
        ("wait=1&hop=9", "hop"),
        ("hop=99999999999", "hop"),
        ("wait=1&hop=x", "hop"),
        ("on_miss=", "on_miss"),
        ("on_miss=wait", "on_miss"),
    ),
)
def test_what_is_no_number_of_seconds_or_hops_is_a_400(
    web: Client, query: str, parameter: str
) -> None:
    answer = web.get(f"{DEFAULT}?{query}")
    assert (answer.status, answer.json["parameter"]) == (400, parameter)
    assert web.world.untouched


@pytest.mark.parametrize(
    ("error", "status"),
    ((WrongRoot("two roots"), 502), (SourceTimeout("the host fell silent"), 504)),
    ids=("for good", "after retries"),
)
def test_a_task_that_fails_meanwhile_is_told_at_once(
    web: Client, error: ArchiverError, status: int
) -> None:
    async def play() -> Answer:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(web.asking(PATIENT))
            await settled()
            attempt = web.world.engine.claim()
            assert attempt
            web.world.engine.fail(attempt, error)
        return asking.result()

    answer = web.run(play())
    assert (answer.status, answer.code, answer.json["detail"]) == (
        status,
        error.code,
        error.message,
    )


def test_a_retry_is_waited_for(web: Client) -> None:
    async def play() -> Answer:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(web.asking(PATIENT))
            await settled()
            attempt = web.world.engine.claim()
            assert attempt
            web.world.engine.retry(attempt, SourceUnavailable("the host is away"))
            await settled()
            assert not asking.done()
            await built(web)
        return asking.result()

    assert web.run(play()).status == 302


def test_an_engine_that_goes_away_does_not_end_the_wait(web: Client) -> None:
    async def play() -> Answer:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(web.asking(PATIENT))
            await settled()
            web.world.engine.down = True
            web.world.notifications.publish_all()
            await settled()
            assert not asking.done()
            web.world.engine.down = False
            await built(web)
        return asking.result()

    assert web.run(play()).status == 302


def test_a_client_that_leaves_waits_no_more(web: Client) -> None:
    async def play() -> tuple[float, float]:
        leaves = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(web.asking(PATIENT, leaves=leaves))
            await settled()
            before = METRICS.waiters._value.get()  # noqa: SLF001
            leaves.set()
            await settled()
            return before, METRICS.waiters._value.get()  # noqa: SLF001

    with capture_logs() as lines:
        assert web.run(play()) == (1, 0)
    (line,) = (line for line in lines if line["event"] == "request.finished")
    assert (line["code"], line["outcome"]) == (499, "client_left")


def test_a_wait_is_told_by_its_outcome_and_a_step_of_it_is_quiet(hasty: Client) -> None:
    each = replace(SITE, hits_told_every=timedelta(0))
    with capture_logs() as lines, client(World(), site=each) as web:
        hasty.get(PATIENT)
        crowd(web, [PATIENT])
    finished = [line for line in lines if line["event"] == "request.finished"]
    assert [(line["outcome"], line["log_level"]) for line in finished] == [
        ("held", "debug"),
        ("waited", "info"),
    ]


def test_those_who_waited_are_told_of_together() -> None:
    with capture_logs() as lines, client(World()) as web:
        crowd(web, [PATIENT] * 20)
    told = [line for line in lines if line["event"].endswith(".finished")]
    assert [(line["event"], line["requests"]) for line in told] == [("requests.finished", 20)]


@pytest.mark.parametrize(
    ("prefer", "applied", "status"),
    (
        ("wait=5", "wait=1", 302),
        ("WAIT = 5", "wait=1", 302),
        ('foo, wait="5"; x=y', "wait=1", 302),
        ("wait=0", "wait=0", 503),
        ("wait=soon", None, 202),
        ("wait=5;=,,=", "wait=1", 302),
        ("respond-async", "respond-async", 202),
        ("respond-async, wait=5", "wait=0, respond-async", 202),
        ("handling=lenient", None, 202),
        ('wait="5', "wait=1", 302),
        (f"wait{' ' * 60_000}!", None, 202),  # one of ours took a minute over it
        (f"wait{' ' * 3000}= 5", "wait=1", 302),
        (f"x={'y' * HEADER_MAX_BYTES}, wait=5", None, 202),
    ),
)
def test_a_preference_is_followed_and_said_to_be(
    hasty: Client, prefer: str, applied: str | None, status: int
) -> None:
    answer = hasty.get(DEFAULT, prefer=prefer)
    assert answer.status == status
    assert answer.headers.get("preference-applied") == applied
    assert answer.headers["vary"] == "Prefer"


def test_the_parameter_is_stronger_than_the_header(web: Client) -> None:
    answer = web.get(f"{DEFAULT}?wait=0", prefer="respond-async, wait=10")
    assert answer.status == 503
    assert "preference-applied" not in answer.headers


def test_who_prefers_to_wait_or_a_202_gets_what_comes_first(web: Client) -> None:
    async def play() -> Answer:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(
                web.asking(DEFAULT, headers={"prefer": "respond-async, wait=7"})
            )
            await settled()
            await built(web)
        return asking.result()

    answer = web.run(play())
    assert answer.status == 302
    assert answer.headers["preference-applied"] == "wait=7, respond-async"


def test_a_region_that_is_down_is_waited_past(web: Client) -> None:
    web.world.storage.down.add(Region("us-west-2"))
    (answer,) = crowd(web, [f"{PATIENT}&preferred_region=us-west-2"])
    assert (answer.status, answer.headers["archiver-region"]) == (302, "us-east-1")
